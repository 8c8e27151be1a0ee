r"""Smoothness (clumpiness): the light that stands above its neighborhood.

.. math:: S = \frac{\sum \max(I - I_S, 0) - a \langle \max(s - s_S, 0) \rangle}{\sum I}

between 0.25 and 1.5 Petrosian radii, an annulus of area a; :math:`I_S` is the mean over a square of 0.25 Petrosian
radii (Lotz et al. 2004, AJ 128, 163, eq. 11; Conselice 2003 has ten times it).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from galdiff.metrics.growth import elliptical_radius
from galdiff.metrics.source import Sources
from galdiff.metrics.windows import windows

__all__ = ["clumps", "smoothness"]

_INNER, _OUTER, _BOX = 0.25, 1.5, 0.25


def clumps(light: Tensor, width: Tensor) -> Tensor:
    """Return the light above the mean of the square around every pixel, ``(sample, y, x)``; the border is a mirror.

    A square an even number of pixels wide cannot be centered on one: it is taken half a pixel off in each of the four
    directions in turn, and the light above is their mean.

    Parameters
    ----------
    light : Tensor
        ``(sample, y, x)``.
    width : Tensor
        Sides of the squares, whole, ``(sample,)`` [pixel].
    """
    height, columns = light.shape[1:]
    width = width.long()
    even = torch.nonzero(width % 2 == 0)[:, 0]
    # Means over the squares about every pixel, of even ones half a pixel before it and, last, behind the border.
    mean = _box_mean(light, width)
    above = (light - mean[:, :-1, :-1]).clamp_min_(0)
    if len(even):
        light, mean = light[even], mean[even]
        others = [mean[:, y : y + height, x : x + columns] for y, x in ((0, 1), (1, 0), (1, 1))]
        above[even] = sum(((light - other).clamp_min_(0) for other in others), above[even]) / 4
    return above


def _box_mean(light: Tensor, width: Tensor) -> Tensor:
    """Return means over squares from half a width before a pixel on, rounded down, ``(sample, y + 1, x + 1)``."""
    before = width // 2
    margin = int(before.max()) + 1
    for axis in (1, 2):
        n = light.shape[axis]
        place = torch.arange(-margin, n + margin, device=light.device)
        light = light.index_select(axis, torch.minimum(place.bitwise_xor(place >> 63), 2 * n - 1 - place))
    summed = functional.pad(light, (1, 0, 1, 0)).cumsum(dim=1).cumsum(dim=2)
    shape = (light.shape[1] - 2 * margin + 1, light.shape[2] - 2 * margin + 1)
    near, far = margin - before, margin - before + width
    box = windows(summed, far, far, shape) - windows(summed, far, near, shape)
    box += windows(summed, near, near, shape) - windows(summed, near, far, shape)
    return box / width.square()[:, None, None]


def smoothness(sources: Sources, center: Tensor, radius: Tensor) -> Tensor:
    """Return S, ``(sample,)``; NaN where the square is less than two pixels wide or the annulus has no light.

    Parameters
    ----------
    sources : Sources
        The light.
    center : Tensor
        y and x, ``(sample, 2)``.
    radius : Tensor
        Petrosian radius, ``(sample,)`` [pixel].
    """
    light = sources.light
    width = (_BOX * radius).floor()
    above = clumps(light, width.clamp_min(1))
    height, columns = light.shape[1:]
    y, x = (torch.arange(s, dtype=light.dtype, device=light.device) for s in (height, columns))
    at = elliptical_radius(y, x, center)
    outer, inner = ((share * radius[:, None, None] + 0.5 - at).clamp(0, 1) for share in (_OUTER, _INNER))
    weight = outer - inner
    count = sources.background.sum(dim=(1, 2)).clamp_min(1)
    sky = torch.where(sources.background, above, 0.0).sum(dim=(1, 2)) / count
    area = torch.pi * (_OUTER**2 - _INNER**2) * radius.square()
    total = (weight * light).sum(dim=(1, 2))
    result = ((weight * above).sum(dim=(1, 2)) - area * sky) / total
    return torch.where((width >= 2) & (total > 0), result, torch.nan)

r"""Smoothness (clumpiness): the light that stands above its neighborhood.

.. math:: S = \frac{\sum \max(I - I_S, 0) - a \langle \max(s - s_S, 0) \rangle}{\sum I}

between 0.25 and 1.5 Petrosian radii, an annulus of area a; :math:`I_S` is the mean over a square of 0.25 Petrosian
radii (Lotz et al. 2004, AJ 128, 163, eq. 11; Conselice 2003 has ten times it).
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from galdiff.metrics.growth import elliptical_radius
from galdiff.metrics.source import Sources

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
    offset = (width % 2 == 0).to(light.dtype)[:, None, None] / 2
    rows, columns = ([_means(n, width, way * offset) for way in (-1, 1)] for n in light.shape[1:])
    above = [(light - row @ light @ column.mT).clamp_min_(0) for row, column in product(rows, columns)]
    return torch.stack(above).mean(dim=0)


def _means(n: int, width: Tensor, offset: Tensor) -> Tensor:
    """Return matrices that take running means of n pixels, ``(sample, n, n)``."""
    pixel = torch.arange(n, dtype=offset.dtype, device=offset.device)
    at, half = pixel[:, None] + offset, width[:, None, None] / 2
    places = (pixel, -1 - pixel, 2 * n - 1 - pixel)
    return torch.stack([((at - place).abs() < half).to(at.dtype) for place in places]).sum(dim=0) / (2 * half)


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

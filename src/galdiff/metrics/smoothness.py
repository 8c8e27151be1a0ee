r"""Smoothness (clumpiness): the light that stands above its neighborhood.

.. math:: S = \frac{\sum \max(I - I_S, 0) - a \langle \max(s - s_S, 0) \rangle}{\sum I}

between 0.25 and 1.5 Petrosian radii, an annulus of area a; :math:`I_S` is the mean over a square of 0.25 Petrosian radii
(Lotz et al. 2004, AJ 128, 163, eq. 11; Conselice 2003 has ten times it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from galdiff.metrics.growth import elliptical_radius
from galdiff.metrics.source import Sources

__all__ = ["boxcar", "smoothness"]

_INNER, _OUTER, _BOX = 0.25, 1.5, 0.25


def boxcar(light: Tensor, width: Tensor) -> Tensor:
    """Return means over centered squares of sides ``width`` ``(sample,)``, mirrored at the border.

    Squares of an even width take half of the pixels on their border, and so stay centered.
    """
    half = width[:, None, None] / 2 + 0.5
    for axis in (1, 2):
        n = light.shape[axis]
        pixel = torch.arange(n, dtype=light.dtype, device=light.device)
        gaps = (pixel[:, None] - pixel, pixel[:, None] + pixel + 1, 2 * n - 1 - pixel[:, None] - pixel)
        kernel = torch.stack([(half - gap.abs()).clamp(0, 1) for gap in gaps]).sum(dim=0) / width[:, None, None]
        light = kernel @ light if axis == 1 else light @ kernel.mT
    return light


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
    clumps = (light - boxcar(light, width.clamp_min(1))).clamp_min(0)
    height, columns = light.shape[1:]
    y, x = (torch.arange(s, dtype=light.dtype, device=light.device) for s in (height, columns))
    at = elliptical_radius(y, x, center)
    outer, inner = ((share * radius[:, None, None] + 0.5 - at).clamp(0, 1) for share in (_OUTER, _INNER))
    weight = outer - inner
    count = sources.background.sum(dim=(1, 2)).clamp_min(1)
    sky = torch.where(sources.background, clumps, 0.0).sum(dim=(1, 2)) / count
    area = torch.pi * (_OUTER**2 - _INNER**2) * radius.square()
    total = (weight * light).sum(dim=(1, 2))
    result = ((weight * clumps).sum(dim=(1, 2)) - area * sky) / total
    return torch.where((width >= 2) & (total > 0), result, torch.nan)

r"""Gini, M20 and the pixels that they are measured on.

.. math:: G = \frac{\sum_i (2 i - n - 1) |x_i|}{(n - 1) \sum_i |x_i|}, \qquad
          M_{20} = \log_{10} \frac{\sum_{i \in 20\%} \mu_i}{\sum_i \mu_i}, \quad \mu_i = x_i |r_i - r_c|^2

over the n pixels of a region, sorted by brightness; the 20% are the brightest pixels that hold a fifth of its light
(Lotz, Primack & Madau 2004, AJ 128, 163, eqs. 6 to 8). The region is statmorph's: the image smoothed by a normal of
0.2 Petrosian radii, above its mean on the Petrosian ellipse, connected to its brightest pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from galdiff.metrics.growth import elliptical_radius
from galdiff.metrics.segmentation import grow

__all__ = ["gini_m20", "petrosian_region", "smooth"]

_SMOOTHING = 0.2
_REACH = 4  # standard deviations


def smooth(light: Tensor, sigma: Tensor) -> Tensor:
    """Convolve images ``(sample, y, x)`` with normals of widths ``(sample,)`` [pixel]; nothing lies beyond."""
    reach = (_REACH * sigma + 0.5).floor()[:, None]
    # Half of the kernel; its sum is the whole kernel's, also of what reaches over the border.
    longest = max(*light.shape[1:], int(reach.max()) + 1)
    gap = torch.arange(longest, dtype=light.dtype, device=light.device)
    half = torch.exp(-0.5 * (gap / sigma[:, None]).square()) * (gap <= reach)
    half = half / (2 * half.sum(dim=1, keepdim=True) - half[:, :1])

    def matrix(n: int) -> Tensor:
        both = torch.cat([half[:, 1:n].flip(1), half[:, :n]], dim=1)
        return both.unfold(1, n, 1).flip(1)

    rows = matrix(light.shape[1])
    columns = rows if light.shape[1] == light.shape[2] else matrix(light.shape[2])
    return rows @ light @ columns


def petrosian_region(
    light: Tensor, radius: Tensor, center: Tensor, ellipticity: Tensor, orientation: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the pixels of objects, and whether other regions were as bright.

    Parameters
    ----------
    light : Tensor
        float64 ``(sample, y, x)``, 0 where masked.
    radius : Tensor
        Elliptical Petrosian radius, ``(sample,)`` [pixel].
    center, ellipticity, orientation : Tensor
        Of the ellipse, as `galdiff.metrics.growth.elliptical_radius` takes them.

    Returns
    -------
    region : Tensor
        bool ``(sample, y, x)``.
    disjoint : Tensor
        bool ``(sample,)``.
    """
    smoothed = smooth(light, _SMOOTHING * radius)
    height, width = light.shape[1:]
    y, x = (torch.arange(s, dtype=light.dtype, device=light.device) for s in (height, width))
    at = elliptical_radius(y, x, center, ellipticity, orientation)
    # Pixels on the border of the annulus count in part, by how fast the elliptical radius grows across them.
    pitch = torch.hypot(*torch.gradient(at, dim=(1, 2))).clamp_min(1e-6)
    edges = (radius + 0.5, radius - 0.5)
    outer, inner = (((edge[:, None, None] - at) / pitch + 0.5).clamp(0, 1) for edge in edges)
    area = torch.pi * (1 - ellipticity) * (edges[0].square() - edges[1].square())
    threshold = (smoothed * (outer - inner)).sum(dim=(1, 2)) / area
    above = smoothed >= threshold[:, None, None]
    peak = smoothed.flatten(1).argmax(dim=1, keepdim=True)
    seed = torch.zeros_like(above).flatten(1).scatter_(1, peak, True).view_as(above)
    region = grow(above, seed)
    return region, (region != above).any(dim=2).any(dim=1)


def gini_m20(light: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gini coefficient and M20 of regions.

    Parameters
    ----------
    light : Tensor
        float64 ``(sample, y, x)``.
    region : Tensor
        bool ``(sample, y, x)``.

    Returns
    -------
    gini, m20 : Tensor
        ``(sample,)``; NaN for fewer than two pixels, without light, or without a positive moment.
    """
    inside = torch.where(region, light, 0.0)
    # Pixels outside are zeros at the beginning of the order, and weigh nothing.
    values, order = inside.abs().flatten(1).sort(dim=1)
    size = values.shape[1]
    count = region.flatten(1).sum(dim=1, keepdim=True).to(values.dtype)
    rank = torch.arange(1, size + 1, dtype=values.dtype, device=values.device) - (size - count)
    sum_abs = values.sum(dim=1)
    gini = ((2 * rank - count - 1) * values).sum(dim=1) / ((count[:, 0] - 1) * sum_abs)

    y, x = (torch.arange(s, dtype=light.dtype, device=light.device) for s in light.shape[1:])
    total = inside.sum(dim=(1, 2))
    center_y = (inside.sum(dim=2) * y).sum(dim=1) / total
    center_x = (inside.sum(dim=1) * x).sum(dim=1) / total
    square = (y - center_y[:, None]).square()[:, :, None] + (x - center_x[:, None]).square()[:, None]
    moments = inside * square
    # Brightest are those that all brighter ones leave room for in a fifth of the light; negative ones never are.
    positive = torch.where(inside.flatten(1).gather(1, order) > 0, values, 0.0)
    brighter = positive.sum(dim=1, keepdim=True) - positive.cumsum(dim=1)
    bright = (brighter <= 0.2 * total[:, None]) & (positive > 0)
    faintest = torch.where(bright, positive, torch.inf).amin(dim=1)[:, None, None]
    brightest = torch.where(inside >= faintest, moments, 0.0).sum(dim=(1, 2))
    moment = moments.sum(dim=(1, 2))
    m20 = torch.log10(brightest / moment)
    return (
        torch.where((count[:, 0] > 1) & (sum_abs > 0), gini, torch.nan),
        torch.where((total > 0) & (moment > 0) & (brightest > 0), m20, torch.nan),
    )

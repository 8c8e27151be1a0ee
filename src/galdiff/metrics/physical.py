r"""Physical features of cutouts: quick, in fixed apertures, for distances between populations.

The sky is measured in the corners of the stamp (outside the largest circle that fits): its level by the median, its
noise by the median absolute deviation. The object is what stands above the sky by three times the noise, smoothed by a
pixel, connected to the center; it is measured on the mean of the bands with the sky taken off. Definitions follow
Conselice 2003 (ApJS 147, 1) for concentration and asymmetry, Lotz et al. 2004 (AJ 128, 163) for Gini and M20, and
Stobie 1980 for the moments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_square_images
from galdiff.metrics.overlap import annulus_weights
from galdiff.metrics.segmentation import grow

__all__ = ["FEATURES", "PROTOCOL", "SHAPE", "SKY", "physical_features", "physical_morphology"]

SHAPE = ("flux", "r50", "concentration", "gini", "ellipticity", "asymmetry", "color")
"""Features of the object."""
SKY = ("sky_noise", "roughness", "sky_level")
"""Features of the sky and of its grain."""
FEATURES = SHAPE + SKY
"""Columns of `physical_features`."""
PROTOCOL = "physical-10"
"""Name of these features as they are measured here; a change of either gets another name."""
_BATCH = 256
_UNITS = {"r20": "pixel", "r50": "pixel", "r80": "pixel", "flux": "ln(pixel value)", "color": "ln(flux ratio)"}


def physical_morphology(images: Any) -> xr.Dataset:
    """Measure every image.

    Parameters
    ----------
    images : array_like
        Pixel values ``(sample, band, y, x)``, square, an object in the middle of each.

    Returns
    -------
    xarray.Dataset
        Along ``sample``: ``flux`` (natural log of the summed light), ``r20``, ``r50``, ``r80`` [pixel],
        ``concentration`` 5 log10(r80 / r20), ``gini``, ``m20``, ``ellipticity`` (moments, (a^2 - b^2) / (a^2 + b^2)),
        ``axis_ratio`` b / a, ``asymmetry`` (half turn, the sky's own taken off), ``color`` (log flux ratio of the first
        and last band; 0 for one band), ``sky_noise``, ``roughness`` (standard deviation of the sky after its local mean
        is taken off), ``sky_level``, and ``flag``: 1 where no object stands above the sky; measurements that make no
        sense without one are NaN there.

    Raises
    ------
    DataError
        For images that are not square or not finite, or of fewer than four pixels a side.
    """
    x = as_square_images(images)
    if x.shape[-1] < 4:
        raise DataError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, not of 4 or more a side")
    parts = [_measure(part.float()) for part in x.split(_BATCH)]
    columns = {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}
    data = {name: ("sample", values, {"units": _UNITS.get(name, "")}) for name, values in columns.items()}
    return xr.Dataset(data, attrs={"protocol": PROTOCOL})


def physical_features(images: Any) -> np.ndarray:
    """Return `FEATURES` as float64 ``(sample, 10)``; objects that are not found have the values of pure sky."""
    measured = physical_morphology(images)
    columns = [measured[name].to_numpy().astype(np.float64) for name in FEATURES]
    return np.nan_to_num(np.stack(columns, axis=1), nan=0.0)


def _measure(x: Tensor) -> dict[str, Tensor]:
    size = x.shape[-1]
    grid = torch.arange(size, device=x.device) - (size - 1) / 2
    yy, xx = torch.meshgrid(grid, grid, indexing="ij")
    radius = torch.hypot(yy, xx)
    corner, aperture = radius > size / 2, radius <= size / 2
    level = x[..., corner].median(dim=-1).values
    light = x - level[..., None, None]
    gray = light.mean(dim=1)
    sky = gray[:, corner]
    noise = 1.4826 * (sky - sky.median(dim=1, keepdim=True).values).abs().median(dim=1).values
    local = functional.avg_pool2d(gray[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    roughness = (gray - local)[:, corner].std(dim=1)

    peak = gray.abs().amax(dim=(1, 2)).clamp_min(1e-12)
    # The local mean of nine pixels: three times the noise of one is at least one here, and nine where it is white.
    threshold = torch.maximum(noise, 0.02 * peak)[:, None, None]
    core = radius <= max(2.0, size / 16)
    region = grow((local > threshold) & aperture, core, limit=size)
    area = region.flatten(1).sum(dim=1)
    found = area >= 5
    inside = torch.where(region, gray, 0.0)
    flux = inside.sum(dim=(1, 2)).clamp_min(1e-6 * peak)
    center_y, center_x = (inside * yy).sum((1, 2)) / flux, (inside * xx).sum((1, 2)) / flux
    dy, dx = yy - center_y[:, None, None], xx - center_x[:, None, None]
    weight = inside.clamp_min(0)
    ellipticity, axis_ratio = _ellipse(weight, dy, dx)
    growth = _growth(gray * aperture, size)
    r20, r50, r80 = (_crossing(growth, share) for share in (0.2, 0.5, 0.8))

    shape = {
        "flux": flux.log(),
        "r20": r20,
        "r50": r50,
        "r80": r80,
        "concentration": 5 * torch.log10(r80 / r20.clamp_min(0.3)),
        "gini": _gini(weight, area),
        "m20": _m20(weight, dy * dy + dx * dx),
        "ellipticity": ellipticity,
        "axis_ratio": axis_ratio,
        "asymmetry": _asymmetry(gray, corner, aperture),
        "color": _color(light, region),
    }
    shape = {name: torch.where(found, value, torch.nan) for name, value in shape.items()}
    flag = (~found).to(torch.int8)
    return {**shape, "sky_noise": noise, "roughness": roughness, "sky_level": level.mean(dim=1), "flag": flag}


def _ellipse(weight: Tensor, dy: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Return ellipticity and axis ratio by the second moments of weights ``(n, y, x)`` about their center."""
    total = weight.sum((1, 2)).clamp_min(1e-12)
    i_yy, i_xx, i_xy = ((weight * q).sum((1, 2)) / total for q in (dy * dy, dx * dx, dy * dx))
    mean, gap = (i_xx + i_yy) / 2, torch.hypot((i_xx - i_yy) / 2, i_xy)
    # A pixel's own second moment, 1 / 12, keeps a point source round.
    minor, major = ((mean + sign * gap).clamp_min(1 / 12) for sign in (-1, 1))
    return gap / mean.clamp_min(1e-12), (minor / major).sqrt().clamp_max(1.0)


def _gini(weight: Tensor, area: Tensor) -> Tensor:
    """Return the Gini coefficient of the light of ``area`` pixels, the others of which there are being zero."""
    values = weight.flatten(1).sort(dim=1).values
    pixels, count = values.shape[1], area.clamp_min(2).float()
    rank = torch.arange(1, pixels + 1, device=weight.device) - (pixels - count)[:, None]
    ranked = ((2 * rank - count[:, None] - 1) * values * (rank > 0)).sum(1)
    return ranked / ((count - 1) * values.sum(1)).clamp_min(1e-12)


def _m20(weight: Tensor, distance: Tensor) -> Tensor:
    """Return the log share that the brightest fifth of the light has of the second moment, of squared distances."""
    total = weight.sum((1, 2)).clamp_min(1e-12)
    moment = (weight * distance).flatten(1)
    order = weight.flatten(1).argsort(dim=1, descending=True)
    share = weight.flatten(1).gather(1, order).cumsum(1) / total[:, None]
    brightest = (moment.gather(1, order) * (share <= 0.2)).sum(1)
    return torch.log10((brightest / moment.sum(1).clamp_min(1e-12)).clamp_min(1e-4))


def _asymmetry(gray: Tensor, corner: Tensor, aperture: Tensor) -> Tensor:
    """Return the asymmetry under a half turn, less what the sky in the corners has."""
    turned = (gray - gray.flip(1, 2)).abs()
    background = turned[:, corner].mean(dim=1)
    light = (gray.abs() * aperture).sum((1, 2)).clamp_min(1e-12)
    return ((turned * aperture).sum((1, 2)) - background * aperture.sum()) / (2 * light)


def _color(light: Tensor, region: Tensor) -> Tensor:
    """Return the log ratio of the first and the last band's light in a region, of at least a hundredth of the most."""
    by_band = (light * region[:, None]).sum((2, 3))
    floor = 0.01 * by_band.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    by_band = torch.maximum(by_band, floor)
    return torch.log(by_band[:, 0] / by_band[:, -1])


def _growth(gray: Tensor, size: int) -> Tensor:
    """Light within circles of radius 1, 2, … pixels over that within the largest, made monotonic, ``(n, radius)``."""
    edges = list(range(size // 2 + 1))
    rings = gray.flatten(1).double() @ annulus_weights(size, edges).to(gray.device).T
    growth = rings.cumsum(dim=1)
    return (growth / growth[:, -1:].clamp_min(1e-12)).cummax(dim=1).values.clamp(0, 1).float()


def _crossing(growth: Tensor, share: float) -> Tensor:
    """Radius at which the curve of growth crosses a share, interpolated."""
    after = (growth >= share).float().argmax(dim=1)
    before = torch.where(after > 0, growth.gather(1, (after - 1).clamp_min(0)[:, None])[:, 0], 0.0)
    here = growth.gather(1, after[:, None])[:, 0]
    return after + ((share - before) / (here - before).clamp_min(1e-6)).clamp(0, 1)

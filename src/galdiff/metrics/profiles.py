r"""Azimuthally averaged radial profiles with exact overlap of pixels and annuli.

.. math:: I_j = \frac{\sum_i w_{ij} I_i}{\sum_i w_{ij}}, \qquad
          \sigma_j^2 = \frac{\sum_i w_{ij}^2 \sigma_i^2}{(\sum_i w_{ij})^2}

with :math:`w_{ij}` the area that valid pixel i and annulus j share (`galdiff.metrics.overlap`). The curve of growth is
:math:`F_j = \sum_{k \le j} I_k A_k` with :math:`A_k` the annulus's area in the stamp, so that a masked pixel counts
with the mean of its annulus. Between two edges light is taken as even: the radius that holds a share of it is
interpolated in r squared. Edges are borders of annuli, as in photutils since its version 1.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_images, as_numbers, as_scale, as_square_images, as_valid, labels_of, per_image
from galdiff.metrics.isophotes import Isophotes
from galdiff.metrics.overlap import annulus_sums, annulus_weights

__all__ = ["annulus_weights", "radial_profile", "stacked_profile"]

_SHARES = {"r20": 0.2, "r50": 0.5, "r80": 0.8}
_CHUNK = 128
_WHOLE = 0.99  # of an annulus in the stamp, for it to count in a stack


def radial_profile(
    images: Any,
    edges: Sequence[float] | np.ndarray | None = None,
    *,
    center: Any = "stamp",
    axis_ratio: Any = None,
    angle: Any = 0.0,
    scale: Any = None,
    error: Any = None,
    mask: Any = None,
    pixel_scale: float | None = None,
) -> xr.Dataset:
    """Measure mean surface brightness in annuli, and the light within them.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square. Of a DataArray the attributes ``units`` and ``pixel_scale`` and the
        coordinate ``band`` are kept.
    edges : sequence of float, optional
        Ascending radii of the annuli's borders in pixels; by default 0, 1, … to half the side. Of ellipses the
        semi-major axes.
    center : {"stamp", "centroid"} or array_like
        The stamps' centers, the flux centroids (`flux_centroid`), or rows and columns ``(sample, 2)``, where 0 is the
        middle of the first pixel.
    axis_ratio, angle : float or array_like, optional
        Of elliptical annuli: minor over major axis in (0, 1], and the major axis from x towards y [rad]; one, or one
        an image. Their overlap is exact as well.
    scale : array_like, optional
        ``(sample,)``: what an image's edges are multiplied with, such as its half-light radius in pixels.
    error : array_like, optional
        Standard deviations of the pixels, of a shape that broadcasts to the images'.
    mask : array_like of bool, optional
        True where a pixel is valid; what others hold is not looked at.
    pixel_scale : float, optional
        Side of a pixel [arcsec]: adds ``radius_arcsec``.

    Returns
    -------
    xarray.Dataset
        ``profile`` (images' unit a pixel), ``profile_error`` where there is an error map, ``growth`` (images' unit;
        light between the first and an annulus's outer edge) and ``log_slope`` (d ln I / d ln r; NaN where light is
        not positive) along ``(sample, band, annulus)``; ``r20``, ``r50``, ``r80`` along ``(sample, band)``
        [pixel, or units of ``scale`` where given], the radii that hold a share of the light within the last edge (NaN
        where that is not positive; of images without sky, and with an error of second order in the annuli's width);
        ``center`` along ``(sample, axis)`` [pixel]; coordinates ``radius``, ``inner`` and ``outer``. An annulus
        without a valid pixel is NaN. Everything float64.

    Raises
    ------
    DataError
        For images that are not square or not finite, edges that do not ascend, options of another length, and a scale
        that is not positive.

    References
    ----------
    Bradley et al., photutils, ``RadialProfile(method="exact")``, to which the profile is equal. Its error is the sum of
    w sigma^2, not of w^2 sigma^2 as of a weighted mean of independent pixels, and is larger.
    """
    labels = labels_of(images)
    known = labels.pixel_scale if pixel_scale is None else pixel_scale
    pixel_scale = None if known is None else as_scale(known)
    valid = as_valid(mask)
    x = as_square_images(images, valid=valid)
    n, size = len(x), x.shape[-1]
    borders = _borders(np.arange(size // 2 + 1) if edges is None else edges)
    isophotes = Isophotes.of(x, center, axis_ratio, angle, valid)
    factor = per_image(scale, x, "scale")
    deviation = None if error is None else _as_deviation(error, x, valid)
    keep = None if valid is None else valid.to(x.device).expand_as(x)
    radii = torch.as_tensor(borders, device=x.device)
    parts = []
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        here = radii if factor is None else radii * factor[part, None]
        keep_, deviation_ = (None if v is None else v[part] for v in (keep, deviation))
        parts.append(_measure(x[part].double(), here, isophotes.part(part), keep_, deviation_))
    profile, sigma, area = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    growth = np.cumsum(np.nan_to_num(profile) * area, axis=-1)
    middle = (borders[1:] + borders[:-1]) / 2
    unit = "pixel" if scale is None else "scale"
    dims = ("sample", "band", "annulus")
    data: dict[str, Any] = {
        "profile": (dims, profile, {"units": labels.units}),
        "growth": (dims, growth, {"units": labels.units}),
        "log_slope": (dims, _log_slope(profile, middle), {"units": ""}),
        "area": (("sample", "annulus"), area[:, 0], {"units": "pixel^2", "description": "within the stamp"}),
    }
    if error is not None:
        data["profile_error"] = (dims, sigma, {"units": labels.units})
    for name, share in _SHARES.items():
        data[name] = (dims[:2], _radius_of_share(growth, borders, share), {"units": unit})
    at = isophotes.center
    where = np.full((n, 2), (size - 1) / 2) if at is None else at.cpu().numpy()
    data["center"] = (("sample", "axis"), where, {"units": "pixel"})
    coords: dict[str, Any] = {
        name: ("annulus", values, {"units": unit})
        for name, values in (("radius", middle), ("inner", borders[:-1]), ("outer", borders[1:]))
    }
    if pixel_scale is not None and scale is None:
        coords["radius_arcsec"] = ("annulus", middle * pixel_scale, {"units": "arcsec"})
    if labels.bands is not None:
        coords["band"] = labels.bands
    attrs: dict[str, Any] = {
        "center": center if isinstance(center, str) else "given",
        "shape": "circles" if axis_ratio is None else "ellipses",
        "overlap": "exact",
    }
    if pixel_scale is not None:
        attrs["pixel_scale"] = pixel_scale
    return xr.Dataset(data, coords | {"axis": np.array(["y", "x"], dtype=object)}, attrs)


def stacked_profile(
    images: Any, edges: Sequence[float] | np.ndarray | None = None, *, mask: Any = None, **geometry: Any
) -> xr.Dataset:
    """Average profiles in units of each object's own half-light radius and surface brightness.

    Annuli are measured exactly at every object's own radii: nothing is interpolated.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square, the sky taken off.
    edges : sequence of float, optional
        Borders of the annuli in half-light radii; by default 0, 0.1, … 3.
    mask : array_like of bool, optional
        True where a pixel is valid.
    **geometry
        ``center``, ``axis_ratio`` and ``angle`` of `radial_profile`.

    Returns
    -------
    xarray.Dataset
        Along ``(band, annulus)``: ``stack``, the mean over the objects of I(r / r50) over the mean surface brightness
        within r50; ``stack_error`` (standard error) and ``count``. ``r50`` [pixel] along ``sample``, of the mean of the
        bands; objects without one (no light) and annuli that leave the stamp are left out.
    """
    valid = as_valid(mask)
    x = as_square_images(images, valid=valid)
    borders = _borders(np.linspace(0, 3, 31) if edges is None else edges)
    at = Isophotes.of(x, geometry.get("center", "stamp"), None, None, valid).center
    options = geometry | {"center": "stamp" if at is None else at.cpu().numpy()}
    everywhere = None if valid is None else valid.expand_as(x).all(dim=1, keepdim=True)
    fine = np.arange(2 * x.shape[-1] + 1) / 4
    r50 = radial_profile(x.mean(dim=1, keepdim=True), fine, mask=everywhere, **options)["r50"].to_numpy()[:, 0]
    safe = np.where(r50 > 0, r50, 1.0)
    measured = radial_profile(x, borders, scale=safe, mask=valid, **options)
    half = radial_profile(x, [0.0, 1.0], scale=safe, mask=valid, **options)["profile"].to_numpy()
    ratio = per_image(options.get("axis_ratio"), x, "axis ratio")
    flat = np.ones(len(x)) if ratio is None else ratio.cpu().numpy()
    ideal = np.pi * flat[:, None] * safe[:, None] ** 2 * np.diff(borders**2)
    usable = (r50 > 0)[:, None] & (measured["area"].to_numpy() >= _WHOLE * ideal)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where((half > 0) & usable[:, None], measured["profile"].to_numpy() / half, np.nan)
        there = np.isfinite(scaled)
        count = there.sum(axis=0)
        mean = np.where(there, scaled, 0.0).sum(axis=0) / count
        spread = np.sqrt(np.where(there, (scaled - mean) ** 2, 0.0).sum(axis=0) / (count - 1) / count)
    dims = ("band", "annulus")
    data = {"stack": (dims, mean), "stack_error": (dims, spread), "count": (dims, count)}
    names = ["radius", "inner", "outer", *(["band"] if "band" in measured.coords else [])]
    coords = {name: measured.coords[name] for name in names}
    return xr.Dataset(data | {"r50": ("sample", r50, {"units": "pixel"})}, coords=coords)


def _borders(edges: Any) -> np.ndarray:
    borders = np.asarray(edges, dtype=float)
    if borders.ndim != 1 or len(borders) < 2 or not (np.diff(borders) > 0).all() or borders[0] < 0:
        raise DataError("edges do not ascend from 0 or above")
    return borders


def _measure(
    x: Tensor, edges: Tensor, isophotes: Isophotes, valid: Tensor | None, deviation: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return profile, its error (NaN without one), and the annuli's areas within the stamp."""
    bands, size = x.shape[1:3]
    geometry = isophotes._asdict()
    sums, _ = annulus_sums(x if valid is None else torch.cat([x, valid.double()], dim=1), edges, **geometry)
    # The stamp as one large pixel.
    moved = None if isophotes.center is None else (isophotes.center + 0.5) / size - 0.5
    stamp = annulus_sums(x.new_ones(len(x), 1, 1, 1), edges / size, **geometry | {"center": moved})[0] * size**2
    light, area = sums[:, :bands], stamp if valid is None else sums[:, bands:]
    area = torch.where(area > 1e-9, area, torch.nan)  # what rounding leaves of nothing
    sigma = torch.full_like(light, torch.nan)
    if deviation is not None:
        variance = deviation.double().square()
        _, summed = annulus_sums(torch.zeros_like(x), edges, variance=variance, **geometry)
        sigma = torch.zeros_like(light) if summed is None else summed.sqrt() / area
    return (light / area).cpu().numpy(), sigma.cpu().numpy(), stamp.cpu().numpy()


def _as_deviation(error: Any, x: Tensor, valid: Tensor | None) -> Tensor:
    given = as_numbers(error, x.device)
    if given.ndim != 4 or any(a not in (1, b) for a, b in zip(given.shape, x.shape, strict=True)):
        raise DataError(f"the error map has shape {tuple(given.shape)}, the images {tuple(x.shape)}")
    given = as_images(given.expand_as(x), valid=valid)
    if (given < 0).any():
        raise DataError("the error map has values below 0", remedy="Give standard deviations")
    return given


def _log_slope(profile: np.ndarray, radius: np.ndarray) -> np.ndarray:
    if len(radius) < 2:
        return np.full_like(profile, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        brightness = np.where(profile > 0, np.log(profile), np.nan)
    return np.gradient(brightness, np.log(radius), axis=-1)


def _radius_of_share(growth: np.ndarray, borders: np.ndarray, share: float) -> np.ndarray:
    """First radius at which the curve of growth holds a share of its last value, even in r squared between edges."""
    total = growth[..., -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = np.where(total > 0, growth / total, np.nan)
    after = (fraction >= share).argmax(axis=-1)[..., None]
    here = np.take_along_axis(fraction, after, axis=-1)
    before = np.where(after > 0, np.take_along_axis(fraction, np.maximum(after - 1, 0), axis=-1), 0.0)
    inner, outer = borders[after] ** 2, borders[after + 1] ** 2
    return np.sqrt(inner + (share - before) / (here - before) * (outer - inner))[..., 0]

r"""Morphology of cutouts, batched: Gini and M20, concentration, asymmetry, smoothness, radii, Sérsic index.

Definitions are those of the papers as statmorph 0.7 reads them (Rodriguez-Gomez et al. 2019, MNRAS 483, 4140), on the
mean of the bands above the sky:

=========================== ====================================================================================
center                      least asymmetry within 1.5 Petrosian radii about the centroid (Conselice 2003)
ellipticity, orientation    second moments of the object's pixels about the center
Petrosian radius            annulus at 0.2 of the mean within (Petrosian 1976), circles and ellipses
r20, r50, r80               radii of shares of the light within 1.5 Petrosian radii; C = 5 log10(r80 / r20)
Gini, M20                   in the Petrosian region (`galdiff.metrics.gini`; Lotz et al. 2004), with the statistics
                            F = -0.693 M20 + 4.95 G - 3.96 (bulge) and S = 0.139 M20 + 0.990 G - 0.327 (merger)
A, A_rms^2, S               `galdiff.metrics.asymmetry`, `galdiff.metrics.smoothness`
Sérsic index                `galdiff.metrics.sersic`
=========================== ====================================================================================

It differs from statmorph in this: the sky's noise, asymmetry and smoothness are measured in all four corners instead
of the first box of sky that is found, so that nothing depends on how a stamp is turned; squares of the smoothness
that are an even number of pixels wide are taken off center in all four directions; the search for the center goes
along the axes instead of by a simplex; no pixel is rejected as an outlier; ``r50_elliptical`` is half of the light
within 1.5 elliptical Petrosian radii, not within the largest isophote.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_stamps
from galdiff.metrics.asymmetry import Asymmetry
from galdiff.metrics.gini import gini_m20, petrosian_region
from galdiff.metrics.growth import Growth
from galdiff.metrics.segmentation import MINIMUM_AREA
from galdiff.metrics.sersic import fit_sersic
from galdiff.metrics.smoothness import smoothness
from galdiff.metrics.source import Sources, as_labels

__all__ = ["PROBLEMS", "STATISTICS", "flagged_fraction", "morphology"]

STATISTICS = {
    "center_x": "pixel",
    "center_y": "pixel",
    "ellipticity": "",
    "orientation": "rad",
    "petrosian_radius": "radius",
    "petrosian_radius_elliptical": "radius",
    "r20": "radius",
    "r50": "radius",
    "r80": "radius",
    "r50_elliptical": "radius",
    "flux": "pixel value",
    "signal_to_noise": "",
    "gini": "",
    "m20": "",
    "gini_m20_bulge": "",
    "gini_m20_merger": "",
    "concentration": "",
    "asymmetry": "",
    "rms_asymmetry2": "",
    "smoothness": "",
    "sersic_index": "",
    "sersic_radius": "radius",
    "sersic_ellipticity": "",
    "color": "mag",
}
"""Statistics of an object with their units; a radius has the unit of the pixel scale."""

PROBLEMS = {
    "no_object": 2,
    "no_petrosian_radius": 2,
    "nothing_at_the_center": 2,
    "no_region": 2,
    "center_far_from_centroid": 1,
    "disjoint_region": 1,
    "incomplete_aperture": 1,
    "no_sky": 1,
    "faint": 1,
    "no_ellipse": 2,
}
"""What can be wrong with a measurement, and whether it is suspect (1) or bad (2) then."""

_EXTENT = 1.5  # Petrosian radii
_CHUNK = {"cpu": 64}  # what stays in a core's cache
_FITTED = 2**21  # pixels of the cutouts that are fitted together
_COMPLETE, _SKY_PIXELS, _FAINT = 0.9, 16, 2.5


def morphology(
    images: Any,
    *,
    segmentation: Any = None,
    psf_fwhm: float | None = None,
    gain: float | None = None,
    pixel_scale: float = 1.0,
    subtract_sky: bool = True,
) -> xr.Dataset:
    """Measure every image.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, one object each; tensors are measured on their device. Pixels that are not finite
        are masked.
    segmentation : array_like, optional
        ``(sample, y, x)``: 0 sky, 1 the object, anything else other sources, which are masked; by default
        `galdiff.metrics.segment`'s.
    psf_fwhm : float, optional
        Full width at half maximum of a normal PSF [unit of the pixel scale], of which the Sérsic fit takes account;
        the rest is measured on what is seen.
    gain : float, optional
        Electrons a pixel value, for the noise of the light: pixels of the Sérsic fit weigh alike without it.
    pixel_scale : float
        Side of a pixel, in arcsec or any unit.
    subtract_sky : bool
        Whether to take the median of the corners off every band.

    Returns
    -------
    xarray.Dataset
        Along ``sample``: `STATISTICS`; ``flag``, 0 good, 1 suspect, 2 bad: every statistic is NaN; ``sersic_flag``,
        the same of the Sérsic fit alone; ``problems``, the bits of `PROBLEMS`. A lens ring, with nothing at its
        center, is bad. Single statistics are NaN where they have no meaning: ``color`` (first band minus last) of one
        band or of negative light, ``smoothness`` where a quarter of the Petrosian radius is less than two pixels.

    Raises
    ------
    DataError
        For another rank, no image, fewer than four pixels a side, a segmentation of another shape, or a width, gain or
        scale that is not positive.
    """
    for name, value in (("psf_fwhm", psf_fwhm), ("gain", gain), ("pixel_scale", pixel_scale)):
        if value is not None and not value > 0:
            raise DataError(f"{name} is {value}", remedy="It is a positive number")
    x = as_stamps(images)
    labels = None if segmentation is None else as_labels(segmentation, x)
    psf_sigma = None if psf_fwhm is None else psf_fwhm / pixel_scale / math.sqrt(8 * math.log(2))
    chunk = _CHUNK.get(x.device.type, 1024)
    together = max(1, _FITTED // (chunk * math.prod(x.shape[2:]))) * chunk
    parts = []
    for rows in torch.arange(len(x)).split(together):
        measured = []
        for few in rows.split(chunk):
            part = slice(int(few[0]), int(few[-1]) + 1)
            given = None if labels is None else labels[part]
            measured.append(_measure(Sources.find(x[part], segmentation=given, subtract_sky=subtract_sky), gain))
        parts.append(_with_sersic(measured, psf_sigma))
    columns = {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}
    data: dict[str, Any] = {}
    for name, unit in STATISTICS.items():
        scale = pixel_scale if unit == "radius" else 1.0
        unit = ("pixel" if pixel_scale == 1 else "unit of the pixel scale") if unit == "radius" else unit
        data[name] = ("sample", columns[name] * scale, {"units": unit})
    meanings = {"flag_values": np.arange(3, dtype=np.int8), "flag_meanings": "good suspect bad"}
    data["flag"] = ("sample", columns["flag"].astype(np.int8), meanings)
    data["sersic_flag"] = ("sample", columns["sersic_flag"].astype(np.int8), meanings)
    masks = 2 ** np.arange(len(PROBLEMS), dtype=np.int16)
    bits = {"flag_masks": masks, "flag_meanings": " ".join(PROBLEMS)}
    data["problems"] = ("sample", columns["problems"].astype(np.int16), bits)
    return xr.Dataset(data, attrs={"protocol": "morphology-1"})


def flagged_fraction(measured: xr.Dataset, *, level: int = 2) -> float:
    """Return the share of objects whose flag is ``level`` or more: a figure beside what is measured on the rest.

    Parameters
    ----------
    measured : xarray.Dataset
        From `morphology` or `galdiff.metrics.morphology_exact`.
    level : int
        2 for bad measurements alone, 1 for suspect ones as well.
    """
    return float((measured["flag"] >= level).mean())


def _measure(sources: Sources, gain: float | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Measure those that are there, the others have a flag; return what a Sérsic fit of the former begins with too."""
    flux = (sources.light * sources.object).sum(dim=(1, 2))
    found = (sources.object.sum(dim=(1, 2)) >= MINIMUM_AREA) & (flux > 0)
    result = {name: sources.light.new_full((len(sources),), torch.nan) for name in STATISTICS}
    bits = 2 ** list(PROBLEMS).index("no_object")
    result |= {"flag": torch.where(found, 0, 2), "problems": torch.where(found, 0, bits), "found": found}
    if not found.any():
        return result, {}
    values, start = _statistics(sources[found], gain)
    for column, part in values.items():
        result[column][found] = part
    return result, start


def _with_sersic(
    measured: list[tuple[dict[str, Tensor], dict[str, Tensor]]], psf_sigma: float | None
) -> dict[str, Tensor]:
    """Fit many at once: a few that take long would cost as much as all others in every chunk."""
    result = {name: torch.cat([columns[name] for columns, _ in measured]) for name in measured[0][0]}
    found = result.pop("found")
    result["sersic_flag"] = torch.where(found, 0, 2)
    if found.any():
        starts = [start for _, start in measured if start]
        fit = fit_sersic(**{name: torch.cat([s[name] for s in starts]) for name in starts[0]}, psf_sigma=psf_sigma)
        for name in ("index", "radius", "ellipticity"):
            result[f"sersic_{name}"][found] = torch.where(fit.converged, getattr(fit, name), torch.nan)
        odd = fit.bounded | (fit.radius > math.hypot(*starts[0]["light"].shape[1:]))
        result["sersic_flag"][found] = torch.where(fit.converged, odd.long(), 2)
    for name in STATISTICS:
        result[name][result["flag"] == 2] = torch.nan
    return result


def _statistics(sources: Sources, gain: float | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    light, valid = sources.light, ~sources.masked
    inside = torch.where(sources.object, light, 0.0)
    centroid = _centroid(inside)
    about_centroid = Growth.about(light, valid, centroid).petrosian()
    asymmetry = Asymmetry.of(sources, _EXTENT * about_centroid.nan_to_num(1.0))
    reach = 0.25 * about_centroid.nan_to_num(1.0)
    center = asymmetry.find_center(centroid, reach)
    ellipticity, orientation, elliptic = _ellipse(inside, center)
    circles = Growth.about(light, valid, center)
    ellipses = Growth.about(light, valid, center, ellipticity, orientation)
    circular, elliptical = circles.petrosian(), ellipses.petrosian()
    reached = torch.isfinite(about_centroid + circular + elliptical)
    circular, elliptical = circular.nan_to_num(1.0), elliptical.nan_to_num(1.0)
    extent = _EXTENT * circular
    r20, r50, r80 = (circles.containing(share, extent) for share in (0.2, 0.5, 0.8))
    region, disjoint = petrosian_region(light, elliptical, centroid, ellipticity, orientation)
    gini, m20 = gini_m20(light, region)
    concentration = 5 * torch.log10(r80 / r20)
    least, rms2 = asymmetry(center)
    half = ellipses.containing(0.5, _EXTENT * elliptical)
    variance = sources.noise.square()[:, None, None] + (0 if gain is None else light.abs() / gain)
    variance = torch.where(variance > 0, variance, 1.0)
    start = {
        "light": light.float(),
        "weight": (valid / (variance / variance.amin(dim=(1, 2), keepdim=True))).float(),
        "center": center,
        "radius": half.nan_to_num(1.0),
        "ellipticity": ellipticity,
        "orientation": orientation,
        # About what a profile of this concentration has.
        "index": ((concentration / 2.7) ** 3.5).nan_to_num(1.0),
    }
    signal = region & (light >= 0)
    ratio = (torch.where(signal, light, 0.0) / variance.sqrt()).sum(dim=(1, 2)) / signal.sum(dim=(1, 2)).clamp_min(1)
    band_flux = torch.where(region[:, None], sources.bands, 0.0).sum(dim=(2, 3), dtype=torch.float64)
    color = -2.5 * torch.log10(band_flux[:, 0] / band_flux[:, -1])
    lit = (band_flux[:, 0] > 0) & (band_flux[:, -1] > 0) & (band_flux.shape[1] > 1)
    height, width = light.shape[1:]
    border = torch.tensor([height - 1, width - 1], device=center.device)
    pixel = torch.minimum(center.round().clamp_min(0), border).long()
    there = sources.object[torch.arange(len(center), device=center.device), pixel[:, 0], pixel[:, 1]]
    complete = circles.measured(extent) / (torch.pi * extent.square())
    problems = {
        "no_petrosian_radius": ~reached,
        "nothing_at_the_center": ~there,
        "no_region": ~torch.isfinite(gini + m20) | region.all(dim=2).all(dim=1),
        "center_far_from_centroid": (center - centroid).norm(dim=1) > reach - 1 / 32,
        "disjoint_region": disjoint,
        "incomplete_aperture": complete < _COMPLETE,
        "no_sky": sources.background.sum(dim=(1, 2)) < _SKY_PIXELS,
        "faint": (ratio < _FAINT) & (sources.noise > 0),
        "no_ellipse": ~elliptic,
    }
    levels = [where.long() * PROBLEMS[name] for name, where in problems.items()]
    bits = [where.long() << list(PROBLEMS).index(name) for name, where in problems.items()]
    values = {
        "center_x": center[:, 1],
        "center_y": center[:, 0],
        "ellipticity": ellipticity,
        "orientation": orientation,
        "petrosian_radius": circular,
        "petrosian_radius_elliptical": elliptical,
        "r20": r20,
        "r50": r50,
        "r80": r80,
        "r50_elliptical": half,
        "flux": circles.within(2 * circular),
        "signal_to_noise": torch.where(sources.noise > 0, ratio, torch.nan),
        "gini": gini,
        "m20": m20,
        "gini_m20_bulge": -0.693 * m20 + 4.95 * gini - 3.96,
        "gini_m20_merger": 0.139 * m20 + 0.990 * gini - 0.327,
        "concentration": concentration,
        "asymmetry": least,
        "rms_asymmetry2": rms2,
        "smoothness": smoothness(sources, center, circular),
        "color": torch.where(lit, color, torch.nan),
        "flag": torch.stack(levels).amax(dim=0),
        "problems": torch.stack(bits).sum(dim=0),
    }
    return values, start


def _centroid(inside: Tensor) -> Tensor:
    """Return y and x of the light's center, ``(sample, 2)``."""
    y, x = (torch.arange(s, dtype=inside.dtype, device=inside.device) for s in inside.shape[1:])
    moments = torch.stack([(inside.sum(dim=2) * y).sum(dim=1), (inside.sum(dim=1) * x).sum(dim=1)], dim=1)
    return moments / inside.sum(dim=(1, 2))[:, None]


def _ellipse(inside: Tensor, center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return 1 - b / a, the angle of the major axis from x to y, by second moments, and whether they are an ellipse's.

    Noise below the sky far from the center can make them negative; a circle then stands in.
    """
    y, x = (torch.arange(s, dtype=inside.dtype, device=inside.device) for s in inside.shape[1:])
    dy, dx = y - center[:, :1], x - center[:, 1:]
    total = inside.sum(dim=(1, 2))
    xx = (inside.sum(dim=1) * dx.square()).sum(dim=1) / total
    yy = (inside.sum(dim=2) * dy.square()).sum(dim=1) / total
    xy = torch.einsum("nyx,ny,nx->n", inside, dy, dx) / total
    # What is thinner than a pixel is as thick as one (as in SExtractor).
    thin = (xx * yy - xy.square() < 1 / 144) / 12
    xx, yy = xx + thin, yy + thin
    mean, gap = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    elliptic = mean - gap > 0
    ratio = torch.where(elliptic, (mean - gap).clamp_min(1e-6) / (mean + gap), 1.0).sqrt()
    return 1 - ratio, torch.atan2(2 * xy, xx - yy) / 2, elliptic

r"""Strong lenses: the radius of the ring, and the spectrum of what no ring explains.

The ring radius is where the azimuthally averaged profile of the arc has its maximum,

.. math:: \hat\theta_E = \arg\max_r \langle I \rangle_\varphi (r),

to parts of a pixel by a parabola through the three annuli around it. It is the Einstein radius of an axisymmetric lens
whose source is behind its center; a source beside it, or one that is large, moves the maximum (`galdiff.judges.fit_sie`
has no such bias). The light of the lensing galaxy must be taken off before. Substructure shows in the power of the
residual after the axisymmetric profile.
"""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_numbers, as_scale, as_square_images
from galdiff.metrics.isophotes import centers_of
from galdiff.metrics.overlap import annulus_sums, annulus_weights
from galdiff.metrics.residuals import residual
from galdiff.metrics.spectra import power_spectrum

__all__ = ["arc_residual_spectrum", "einstein_radius"]

SIGNIFICANT = 5.0
"""How far the ring must stand above the sky, and above what is inside it, in standard deviations of the profile."""


def einstein_radius(
    images: Any, *, pixel_scale: float = 1.0, center: Any = "stamp", noise_rms: Any | None = None
) -> xr.Dataset:
    """Measure ring radii of lensed arcs.

    Parameters
    ----------
    images : array_like
        Pixel values ``(sample, band, y, x)``, square, without the light of the lens; bands are averaged.
    pixel_scale : float
        Side of a pixel [arcsec].
    center : {"stamp", "centroid"} or array_like
        Center of the ring, as of `radial_profile`: the stamps' centers, the flux centroids, or rows and columns
        ``(sample, 2)``, where 0 is the middle of the first pixel.
    noise_rms : array_like, optional
        Standard deviation of the noise of the mean band, a number or ``(sample,)``; by default measured in the corners.

    Returns
    -------
    xarray.Dataset
        Along ``sample``: ``einstein_radius`` and ``einstein_radius_error`` [arcsec] (from the noise alone), ``peak``
        (brightness of the ring) and ``flag``: 1 where no maximum off the center stands out; its radius is NaN.

    Raises
    ------
    DataError
        For images that are not square, a center that is not known, noise of another length, or a scale that is not
        positive.
    """
    pixel_scale = as_scale(pixel_scale)
    x = as_square_images(images).double().mean(dim=1)
    n, size = x.shape[0], x.shape[-1]
    if size < 8:
        raise DataError(f"images are {size} x {size} pixels, not of 8 or more")
    grid = torch.arange(size, device=x.device, dtype=x.dtype) - (size - 1) / 2
    corner = torch.hypot(grid[:, None], grid) > size / 2
    sky = x[:, corner].median(dim=1).values
    spread = 1.4826 * (x[:, corner] - sky[:, None]).abs().median(dim=1).values
    noise = spread if noise_rms is None else as_numbers(noise_rms, x.device)
    if noise.shape not in ((), (n,)) or not (noise >= 0).all():
        raise DataError(f"noise of shape {tuple(noise.shape)} is not one standard deviation for each of {n} images")
    noise = noise.expand(n)
    x = x - sky[:, None, None]
    edges = torch.arange(size // 2 + 1, dtype=x.dtype, device=x.device)
    weights = annulus_weights(size, edges.tolist()).to(x.device)
    area = weights.sum(dim=1)
    # What an annulus off the center has outside the stamp is sky: none of its light, all of its area.
    profile = annulus_sums(x[:, None], edges, center=centers_of(x[:, None], center, window=1.0))[0][:, 0] / area
    error = noise[:, None] * (weights.square().sum(dim=1).sqrt() / area)

    j = profile.argmax(dim=1).clamp(1, profile.shape[1] - 2)
    around = j[:, None] + torch.arange(-1, 2, device=x.device)
    (a, b, c), (da, db, dc) = (y.gather(1, around).T for y in (profile, error))
    curvature = a - 2 * b + c
    shift = (a - c) / (2 * curvature)
    # How the vertex moves with each of the three values.
    jacobian = [(c - b) / curvature**2, (a - c) / curvature**2, (b - a) / curvature**2]
    moved = sum((g * d).square() for g, d in zip(jacobian, (da, db, dc), strict=True)).sqrt()
    inside = torch.where(torch.arange(profile.shape[1], device=x.device) < j[:, None], profile, torch.inf)
    hole, at = inside.min(dim=1)
    dip = b - hole > SIGNIFICANT * torch.hypot(db, error.gather(1, at[:, None])[:, 0])
    interior = (b > a) & (b >= c) & (curvature < 0)
    found = interior & (b > SIGNIFICANT * db) & dip & (b > 0)
    radius = torch.where(found, (j + 0.5 + shift) * pixel_scale, torch.nan)
    data = {
        "einstein_radius": radius,
        "einstein_radius_error": torch.where(found, moved * pixel_scale, torch.nan),
        "peak": b,
        "flag": (~found).to(torch.int8),
    }
    units = {"einstein_radius": "arcsec", "einstein_radius_error": "arcsec", "peak": "pixel value"}
    return xr.Dataset({k: ("sample", v.cpu().numpy(), {"units": units.get(k, "")}) for k, v in data.items()})


def arc_residual_spectrum(images: Any, pixel_scale: float | None = None) -> xr.Dataset:
    """Return the power spectra of images less their axisymmetric profiles, where substructure is.

    Parameters
    ----------
    images : array_like
        Pixel values ``(sample, band, y, x)``, square.
    pixel_scale : float, optional
        Side of a pixel [arcsec].

    Returns
    -------
    xarray.Dataset
        `power_spectrum` of `residual`, under a Hann window.
    """
    return power_spectrum(residual(images), pixel_scale=pixel_scale, window="hann")

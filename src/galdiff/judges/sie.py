r"""Einstein radii by fitting the whole arc: an isothermal ellipsoid with shear before a Sérsic source.

The model is the simulator's (`galdiff.simulate.lens_light`, deflections by caustics): rays are followed back from a
fine grid, blurred and binned. Its amplitude and a level of the sky are linear and solved for exactly; Einstein radius,
ellipticity, shear and the source's position, size and ellipticity follow by least squares (Branch, Coleman & Li 1999,
as scipy has it) from the two best of a grid of round lenses around the ring radius.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.optimize import least_squares
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.lensing import einstein_radius
from galdiff.simulate.lens_light import Galaxy, Source, blur_and_bin, pixel_grid, trace
from galdiff.simulate.lensing import caustics_functions

__all__ = ["PARAMETERS", "fit_sie"]

PARAMETERS = ("einstein_radius", "e1", "e2", "gamma1", "gamma2", "x", "y", "source_radius", "source_e1", "source_e2")
"""What is fitted, in order: lens, shear, then position, half-light radius and ellipticity of the source [arcsec]."""
Array = np.ndarray
_LENGTHS = ("einstein_radius", "x", "y", "source_radius")
_ANGLES = np.arange(8) * np.pi / 4
_LIMIT = {"e1": 0.5, "e2": 0.5, "gamma1": 0.25, "gamma2": 0.25, "source_e1": 0.6, "source_e2": 0.6}


def fit_sie(
    images: Any,
    *,
    pixel_scale: float,
    psf_fwhm: float,
    variance: Any | None = None,
    sersic_index: float = 1.0,
    oversampling: int = 2,
    evaluations: int = 40,
) -> xr.Dataset:
    """Fit lensed arcs, one after the other (about a second each).

    Parameters
    ----------
    images : array_like
        Pixel values ``(sample, band, y, x)``, square, without the light of the lens; bands are averaged.
    pixel_scale : float
        Side of a pixel [arcsec].
    psf_fwhm : float
        Full width at half maximum of the Gaussian PSF [arcsec].
    variance : array_like, optional
        Of the pixels of the mean band, broadcastable to ``(sample, y, x)``; by default that of the corners.
    sersic_index : float
        Of the source.
    oversampling : int
        Samples a pixel, an axis.
    evaluations : int
        Steps of a fit at most.

    Returns
    -------
    xarray.Dataset
        Along ``sample``: `PARAMETERS`, ``chi2`` (a degree of freedom) and ``flag``: the sum of 1 (no ring to start
        from; all else is NaN), 2 (not converged) and 4 (a parameter at its limit).

    Raises
    ------
    DataError
        For images that are not square or not finite, or a variance that is not positive.
    ResourceError
        Where caustics is not installed.
    """
    caustics_functions()
    rings = einstein_radius(images, pixel_scale=pixel_scale)
    x = np.asarray(images, dtype=np.float64).mean(axis=1)
    n, size = x.shape[0], x.shape[-1]
    sigma = np.broadcast_to(_corner_rms(x) if variance is None else np.sqrt(np.asarray(variance, float)), x.shape)
    if not (sigma > 0).all():
        raise DataError("the variance of the pixels is not positive", remedy="Give it as variance=")
    fine, coarse = (_model(size, pixel_scale, psf_fwhm, sersic_index, samples) for samples in (oversampling, 1))
    table = np.full((n, len(PARAMETERS) + 1), np.nan)
    flag = np.full(n, 1, dtype=np.int8)
    for i, ring in enumerate(rings["einstein_radius"].to_numpy()):
        if np.isfinite(ring):
            table[i], flag[i] = _fit(x[i], sigma[i], float(ring), pixel_scale, fine, coarse, evaluations)
    data: dict[str, Any] = {
        name: ("sample", column, {"units": "arcsec"} if name in _LENGTHS else {})
        for name, column in zip(PARAMETERS, table.T, strict=False)
    }
    return xr.Dataset(data | {"chi2": ("sample", table[:, -1]), "flag": ("sample", flag)})


def _corner_rms(x: Array) -> Array:
    grid = np.arange(x.shape[-1]) - (x.shape[-1] - 1) / 2
    sky = x[:, np.hypot(grid[:, None], grid) > x.shape[-1] / 2]
    return np.asarray(1.4826 * np.median(np.abs(sky - np.median(sky, axis=1, keepdims=True)), axis=1))[:, None, None]


Model = Callable[[Array, Array], Array]


def _model(size: int, scale: float, fwhm: float, index: float, samples: int) -> Model:
    """Return a function of parameters and of source positions ``(m, 2)`` that gives images ``(m, y, x)``."""
    x, y = pixel_grid(size, scale, samples)

    def light(p: Array, centers: Array) -> Array:
        galaxy = Galaxy(*(float(v) for v in p[:5]))
        source = Source(1.0, float(p[7]), index, float(p[8]), float(p[9]))
        seen: Tensor = trace(x, y, galaxy, source, torch.from_numpy(centers))
        return np.asarray(blur_and_bin(seen, fwhm / scale * samples, samples).numpy())

    return light


def _residual(template: Array, image: Array, sigma: Array) -> Array:
    """Return what the best amplitude and level leave, in standard deviations ``(pixels,)``."""
    basis = np.stack([template.ravel(), np.ones(template.size)], axis=1) / sigma.ravel()[:, None]
    data = (image / sigma).ravel()
    normal = basis.T @ basis
    # A template without light inside the stamp explains nothing.
    solution = np.linalg.solve(normal + 1e-12 * np.trace(normal) * np.eye(2), basis.T @ data)
    if solution[0] < 0:
        solution = np.array([0.0, basis[:, 1] @ data / normal[1, 1]])
    return np.asarray(basis @ solution - data)


def _fit(
    image: Array, sigma: Array, ring: float, scale: float, fine: Model, coarse: Model, evaluations: int
) -> tuple[Array, int]:
    half = image.shape[-1] * scale / 2
    reach = ring * np.array([(0.0, 0.0), *((r * np.cos(a), r * np.sin(a)) for r in (0.2, 0.45) for a in _ANGLES)])
    starts: list[tuple[float, int, Array]] = []
    for stretch, radius in itertools.product((0.85, 1.0, 1.15), (0.1, 0.25)):
        p = np.array([stretch * ring, 0.01, 0, 0, 0, 0, 0, radius * ring, 0.01, 0])
        for k, template in enumerate(coarse(p, reach)):
            cost = float(np.square(_residual(template, image, sigma)).sum())
            starts.append((cost, k, np.concatenate([p[:5], reach[k], p[7:]])))
    starts.sort(key=lambda one: one[:2])
    # One start may lead into a valley of its own: the second has its source elsewhere.
    chosen = [starts[0][2], next(p for _, k, p in starts if k != starts[0][1])]
    high = np.array([half, *(_LIMIT.get(name, ring) for name in PARAMETERS[1:])])
    low = -high
    low[0], low[7] = scale, scale / 10
    unit = np.array([0.05 * ring, 0.05, 0.05, 0.02, 0.02, 0.05 * ring, 0.05 * ring, 0.05 * ring, 0.1, 0.1])

    def residual(p: Array) -> Array:
        return _residual(fine(p, p[None, 5:7])[0], image, sigma)

    options: dict[str, Any] = {"bounds": (low, high), "x_scale": unit, "diff_step": 1e-4, "ftol": 1e-6, "xtol": 1e-6}
    fits = [
        least_squares(residual, np.clip(p, low + 1e-6, high - 1e-6), max_nfev=evaluations, **options) for p in chosen
    ]
    found = min(fits, key=lambda fit: fit.cost)
    chi2 = 2 * found.cost / (image.size - len(PARAMETERS) - 2)
    flag = 2 * (not found.success) + 4 * bool(np.any(found.active_mask))
    return np.append(found.x, chi2), flag

r"""What is left of an image after its axisymmetric profile: arms, bars, clumps, arcs, substructure.

The profile is the least-squares fit of a cubic spline in radius with a knot every pixel,

.. math:: R = I - B c, \qquad c = \arg\min_c \sum_i (I_i - \sum_j B_{ij} c_j)^2, \qquad B_{ij} = b_3(r_i - j),

with :math:`b_3` the cardinal B-spline. It is a projection: an axisymmetric image leaves nothing but the spline's error,
of fourth order in the pixel, the residual of a residual is itself, and what has no mean around the center passes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.metrics.arrays import as_square_images, as_valid
from galdiff.metrics.isophotes import Isophotes

__all__ = ["residual"]

_BATCH = 2  # what stays in the cache is four times as fast
_RANK = 1e-9  # of the largest eigenvalue: around the center there are fewer radii than splines


def residual(
    images: Any, *, center: Any = "stamp", axis_ratio: Any = None, angle: Any = 0.0, mask: Any = None
) -> np.ndarray | xr.DataArray:
    """Take off every image's axisymmetric profile.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square.
    center : {"stamp", "centroid"} or array_like
        As of `galdiff.metrics.radial_profile`.
    axis_ratio, angle : float or array_like, optional
        Of elliptical isophotes: minor over major axis, and the major axis from x towards y [rad].
    mask : array_like of bool, optional
        True where a pixel is valid; others have no say in the fit, and a residual of 0.

    Returns
    -------
    numpy.ndarray or xarray.DataArray
        float64, of the images' shape and unit; with the coordinates and attributes of a DataArray.

    Raises
    ------
    DataError
        For images that are not square or not finite, and options of another length.
    """
    valid = as_valid(mask)
    x = as_square_images(images, valid=valid)
    isophotes = Isophotes.of(x, center, axis_ratio, angle, valid)
    shared = _orthonormal(_basis(x, isophotes)) if valid is None and all(v is None for v in isophotes) else None
    parts = []
    for start in range(0, len(x), _BATCH):
        part = slice(start, start + _BATCH)
        use = None if valid is None else valid.to(x.device).expand_as(x)[part].flatten(2)[..., None].double()
        values = x[part].double().flatten(2)[..., None]
        basis = shared
        if basis is None:
            splines = _basis(x[part], isophotes.part(part))[:, None]
            basis = _orthonormal(splines if use is None else splines * use)
        rest = values - basis @ (basis.transpose(-1, -2) @ values)
        parts.append((rest if use is None else rest * use).reshape(x[part].shape).cpu().numpy())
    left = np.concatenate(parts)
    return images.copy(data=left) if isinstance(images, xr.DataArray) else left


def _basis(x: Tensor, isophotes: Isophotes) -> Tensor:
    """Return the splines' values at the pixels, ``(sample or 1, size * size, spline)``."""
    size = x.shape[-1]
    grid = torch.arange(size, dtype=torch.float64, device=x.device)
    center = grid.new_full((1, 2), (size - 1) / 2) if isophotes.center is None else isophotes.center
    dy, dx = grid[:, None] - center[:, :1, None], grid[None] - center[:, 1:, None]
    if isophotes.axis_ratio is not None and isophotes.angle is not None:
        cos, sin = (f(isophotes.angle)[:, None, None] for f in (torch.cos, torch.sin))
        dx, dy = dx * cos + dy * sin, (dy * cos - dx * sin) / isophotes.axis_ratio[:, None, None]
    radius = torch.hypot(dy, dx).flatten(1)
    first, last = math.floor(float(radius.min())) - 1, math.ceil(float(radius.max())) + 1
    knots = torch.arange(first, last + 1, dtype=torch.float64, device=x.device)
    u = (radius[..., None] - knots).abs()
    outer, inner = (2 - u).clamp_min(0), (1 - u).clamp_min(0)
    return (outer * outer * outer - 4 * (inner * inner * inner)) / 6


def _orthonormal(splines: Tensor) -> Tensor:
    """Return an orthonormal basis of what splines ``(…, pixel, spline)`` span, zeros in place of what is missing."""
    values, vectors = torch.linalg.eigh(splines.transpose(-1, -2) @ splines)
    scale = torch.where(values > _RANK * values[..., -1:], values.clamp_min(1e-300).rsqrt(), 0.0)
    return splines @ (vectors * scale[..., None, :])

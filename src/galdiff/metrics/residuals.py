r"""What is left of an image after its axisymmetric profile: arms, bars, clumps, arcs, substructure.

The profile is the least-squares fit of a cubic spline in radius with a knot every pixel,

.. math:: R = I - B c, \qquad c = \arg\min_c \sum_i (I_i - \sum_j B_{ij} c_j)^2, \qquad B_{ij} = b_3(r_i - j),

with :math:`b_3` the cardinal B-spline. It is a projection: an axisymmetric image leaves nothing but the spline's error,
of fourth order in the pixel, the residual of a residual is itself, and what has no mean around the center passes. Only
four splines reach a pixel, so that all sums over pixels are over four times as many terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.metrics.arrays import as_square_images, as_valid
from galdiff.metrics.isophotes import Isophotes

__all__ = ["residual"]

_BATCH = 2  # what stays in the cache is faster
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
    shared = _Splines.of(x, isophotes) if valid is None and all(v is None for v in isophotes) else None
    parts = []
    for start in range(0, len(x), _BATCH):
        part = slice(start, start + _BATCH)
        use = None if valid is None else valid.to(x.device).expand_as(x)[part].flatten(2).double()
        splines = _Splines.of(x[part], isophotes.part(part), use) if shared is None else shared
        values = x[part].double().flatten(2)
        rest = values - splines.fit(values)
        parts.append((rest if use is None else rest * use).reshape(x[part].shape).cpu().numpy())
    left = np.concatenate(parts)
    return images.copy(data=left) if isinstance(images, xr.DataArray) else left


@dataclass(frozen=True)
class _Splines:
    """Splines at the pixels, ``(sample or 1, band or 1, pixel)``.

    Attributes
    ----------
    first : Tensor
        Number of the first of the four that reach a pixel.
    values : tuple of Tensor
        What they are there, 0 where a pixel has no say.
    inverse : Tensor
        Of their products' sums over the pixels, ``(…, spline, spline)``, without what they cannot tell.
    """

    first: Tensor
    values: tuple[Tensor, ...]
    inverse: Tensor

    @classmethod
    def of(cls, x: Tensor, isophotes: Isophotes, use: Tensor | None = None) -> _Splines:
        """Take them at the pixels of images."""
        radius = _radius(x, isophotes)[:, None]
        cell = radius.floor()
        t = radius - cell
        first = (cell - cell.amin(dim=-1, keepdim=True)).long()
        count = int(first.max()) + 4
        cubes = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4, t**3)
        values = tuple(cube / 6 if use is None else cube / 6 * use for cube in cubes)
        products = values[0].new_zeros(*values[0].shape[:2], count, count)
        for a, b in combinations_with_replacement(range(4), 2):
            diagonal = _collected(values[a] * values[b], first + a, count)[..., : count - (b - a)]
            products += torch.diag_embed(diagonal, offset=b - a)
            if a != b:
                products += torch.diag_embed(diagonal, offset=a - b)
        found, vectors = torch.linalg.eigh(products)
        scale = torch.where(found > _RANK * found[..., -1:], 1 / found.clamp_min(1e-300), 0.0)
        return cls(first, values, vectors * scale[..., None, :] @ vectors.mT)

    def fit(self, images: Tensor) -> Tensor:
        """Return the profiles of images ``(sample, band, pixel)`` at their pixels."""
        count = self.inverse.shape[-1]
        parts = [_collected(value * images, self.first + k, count) for k, value in enumerate(self.values)]
        moments = torch.stack(parts).sum(dim=0)
        weights = (self.inverse @ moments[..., None])[..., 0]
        first = self.first.expand_as(images)
        return torch.stack([v * weights.gather(-1, first + k) for k, v in enumerate(self.values)]).sum(dim=0)


def _collected(terms: Tensor, places: Tensor, count: int) -> Tensor:
    """Sum terms ``(…, pixel)`` by their places, ``(…, count)``."""
    return terms.new_zeros(*terms.shape[:-1], count).scatter_add_(-1, places.expand_as(terms), terms)


def _radius(x: Tensor, isophotes: Isophotes) -> Tensor:
    """Return how far out every pixel is, ``(sample or 1, size * size)``."""
    size = x.shape[-1]
    grid = torch.arange(size, dtype=torch.float64, device=x.device)
    center = grid.new_full((1, 2), (size - 1) / 2) if isophotes.center is None else isophotes.center
    dy, dx = grid[:, None] - center[:, :1, None], grid[None] - center[:, 1:, None]
    if isophotes.axis_ratio is not None and isophotes.angle is not None:
        cos, sin = (f(isophotes.angle)[:, None, None] for f in (torch.cos, torch.sin))
        dx, dy = dx * cos + dy * sin, (dy * cos - dx * sin) / isophotes.axis_ratio[:, None, None]
    return torch.hypot(dy, dx).flatten(1)

r"""Azimuthally averaged radial profiles with exact overlap of pixels and annuli.

.. math:: I_j = \frac{\sum_i w_{ij} I_i}{\sum_i w_{ij}}

with :math:`w_{ij}` the area that pixel i and annulus j share. The weights of a stamp's size are computed once, and a
batch of images costs one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_images

__all__ = ["annulus_weights", "radial_profile"]


def _antiderivative(x: np.ndarray, r: float) -> np.ndarray:
    """Integral of sqrt(r^2 - x^2) from 0 to x, for |x| <= r."""
    x = np.clip(x, -r, r)
    return 0.5 * (x * np.sqrt(np.maximum(r * r - x * x, 0)) + r * r * np.arcsin(np.clip(x / r, -1, 1)))


def _quadrant_area(x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """Area of the circle of radius r within [0, x] x [0, y], for x, y >= 0."""
    x, y = np.minimum(x, r), np.minimum(y, r)
    # Left of the point where the circle sinks below y the strip is a rectangle, right of it the circle is its top.
    edge = np.minimum(np.sqrt(np.maximum(r * r - y * y, 0)), x)
    return edge * y + _antiderivative(x, r) - _antiderivative(edge, r)


def _circle_overlap(size: int, r: float) -> np.ndarray:
    """Area of every pixel of a centered stamp inside the circle, ``(size, size)``."""
    if r <= 0:
        return np.zeros((size, size))
    edges = np.arange(size + 1) - size / 2
    x, y = np.meshgrid(edges, edges)
    cumulative = np.sign(x) * np.sign(y) * _quadrant_area(np.abs(x), np.abs(y), r)
    return np.diff(np.diff(cumulative, axis=0), axis=1)


@lru_cache
def _weights(size: int, edges: tuple[float, ...]) -> Tensor:
    circles = np.stack([_circle_overlap(size, r).ravel() for r in edges])
    return torch.from_numpy(np.diff(circles, axis=0))


def annulus_weights(size: int, edges: Sequence[float]) -> Tensor:
    """Return shared areas of annuli and pixels, float64 ``(annulus, size * size)``, in square pixels."""
    return _weights(size, tuple(float(e) for e in edges))


def radial_profile(images: Any, edges: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return mean surface brightness in annuli around the stamps' centers.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square.
    edges : sequence of float, optional
        Ascending radii of the annuli's borders in pixels; by default 0, 1, … to half the side.

    Returns
    -------
    radius : numpy.ndarray
        Middle of every annulus in pixels, ``(annulus,)``.
    profile : numpy.ndarray
        float64 ``(sample, band, annulus)``, in the images' unit.

    Raises
    ------
    DataError
        For images that are not square and edges that do not ascend.
    """
    x = as_images(images)
    size = x.shape[-1]
    if x.shape[-2] != size:
        raise DataError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, not square")
    borders = np.arange(size // 2 + 1, dtype=float) if edges is None else np.asarray(edges, dtype=float)
    if len(borders) < 2 or (np.diff(borders) <= 0).any() or borders[0] < 0:
        raise DataError("edges do not ascend from 0 or above")
    weights = annulus_weights(size, borders.tolist()).to(x.device)
    area = weights.sum(dim=1)
    profile = x.double().flatten(2) @ weights.T / area
    return (borders[1:] + borders[:-1]) / 2, profile.cpu().numpy()

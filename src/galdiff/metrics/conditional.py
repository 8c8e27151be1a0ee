"""Distances of parts: by class, and in windows that slide over a label.

A distance of whole populations does not see samples of one class that look like another. Sliding over a scalar label is
Ding et al. 2021 (arXiv:2011.07466): evenly spaced windows, their mean and their standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.frechet import MINIMUM_PER_DIMENSION, frechet_distance
from galdiff.metrics.rows import as_pair

__all__ = ["class_distances", "sliding_distances"]

Distance = Callable[[Tensor, Tensor], float]


def class_distances(
    features_a: Any,
    labels_a: Any,
    features_b: Any,
    labels_b: Any,
    *,
    distance: Distance = frechet_distance,
    minimum: int | None = None,
) -> xr.Dataset:
    """Compare class by class.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite.
    labels_a, labels_b : array_like
        Class of every row, numbers or text.
    distance : callable
        Of two sets of features; without bias at small counts: `galdiff.metrics.squared_mmd`.
    minimum : int, optional
        Rows of each set below which a class is too few; 5 d by default, the rule of the Fréchet distance.

    Returns
    -------
    xarray.Dataset
        Along ``class``, of either set: ``distance`` (NaN where there are too few), ``count_a``, ``count_b``.

    Raises
    ------
    DataError
        For labels that are not one a row, are missing (NaN), or are text in one set and numbers in the other, and what
        the features' check refuses.
    """
    a, b = as_pair(features_a, features_b)
    one, other = _labels(labels_a, a, labels_b, b)
    classes = np.union1d(one, other)
    masks = [(one == c, other == c) for c in classes]
    found = _distances(a, b, masks, distance, minimum, "class")
    return found.assign_coords({"class": classes.astype(object) if classes.dtype.kind == "U" else classes})


def sliding_distances(
    features_a: Any,
    values_a: Any,
    features_b: Any,
    values_b: Any,
    *,
    windows: int = 20,
    width: float | None = None,
    span: tuple[float, float] | None = None,
    distance: Distance = frechet_distance,
    minimum: int | None = None,
) -> xr.Dataset:
    """Compare in windows over a scalar label.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite; a is the reference.
    values_a, values_b : array_like
        The label of every row, a number.
    windows : int
        How many; their centers are evenly spaced, from one end of the span to the other, within it.
    width : float, optional
        Of a window, which has both of its edges, in units of the label; by default such that neighbors overlap by half.
    span : pair of float, optional
        Ends of the labels that windows slide over; by default the range of the reference.
    distance : callable
        Of two sets of features.
    minimum : int, optional
        Rows of each set below which a window is too few; 5 d by default.

    Returns
    -------
    xarray.Dataset
        Along ``center``: ``distance`` (NaN where there are too few), ``count_a``, ``count_b``; attributes ``mean``,
        ``std`` (SFID and its spread, over the windows that have a number; NaN if none has) and ``width``.

    Raises
    ------
    DataError
        For labels that are not finite numbers, one a row, or all equal, and what the features' check refuses.
    """
    a, b = as_pair(features_a, features_b)
    one, other = _labels(values_a, a, values_b, b)
    if one.dtype.kind == "U":
        raise DataError("labels are not numbers", remedy="Compare class by class with class_distances")
    low, high = (float(one.min()), float(one.max())) if span is None else span
    if windows < 1 or not high > low:
        raise DataError(f"{windows} windows cannot slide from {low:g} to {high:g}")
    width = 2 * (high - low) / (windows + 1) if width is None else width
    centers = np.linspace(low + width / 2, high - width / 2, windows)
    # Rounding of a center must not put the ends of the range outside.
    half = width / 2 * (1 + 1e-9)
    masks = [(np.abs(one - c) <= half, np.abs(other - c) <= half) for c in centers]
    found = _distances(a, b, masks, distance, minimum, "center").assign_coords(center=centers)
    values = found["distance"].to_numpy()
    values = values[np.isfinite(values)]
    mean, std = (float(values.mean()), float(values.std())) if len(values) else (np.nan, np.nan)
    return found.assign_attrs(mean=mean, std=std, width=width)


def _labels(labels_a: Any, a: Tensor, labels_b: Any, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return one label a row for both sets: text, or finite numbers."""
    found = []
    for labels, features in ((labels_a, a), (labels_b, b)):
        values = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        values = values if values.dtype.kind in "biuf" else values.astype(str)
        if values.shape != (len(features),):
            raise DataError(f"labels have shape {values.shape} for {len(features)} rows of features")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError("labels are not finite", remedy="Drop the rows whose label is missing")
        found.append(values)
    if len({values.dtype.kind == "U" for values in found}) > 1:
        raise DataError("labels are text in one set and numbers in the other")
    return found[0], found[1]


def _distances(
    a: Tensor,
    b: Tensor,
    masks: list[tuple[np.ndarray, np.ndarray]],
    distance: Distance,
    minimum: int | None,
    dim: str,
) -> xr.Dataset:
    needed = max(2, MINIMUM_PER_DIMENSION * a.shape[1] if minimum is None else minimum)
    values = [
        distance(a[torch.from_numpy(p).to(a.device)], b[torch.from_numpy(q).to(b.device)])
        if min(p.sum(), q.sum()) >= needed
        else np.nan
        for p, q in masks
    ]
    counts = np.array([[p.sum(), q.sum()] for p, q in masks], dtype=np.int64).reshape(-1, 2)
    data = {
        "distance": (dim, np.array(values, dtype=np.float64)),
        "count_a": (dim, counts[:, 0]),
        "count_b": (dim, counts[:, 1]),
    }
    return xr.Dataset(data, attrs={"minimum": needed})

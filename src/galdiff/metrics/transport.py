r"""Distances that live on the values themselves: Wasserstein-1 and energy.

For one statistic with distribution functions F and G,

.. math:: W_1 = \int |F - G|\, dx, \qquad E^2 = 2 \int (F - G)^2\, dx;

jointly :math:`E^2 = 2 \langle |x - y| \rangle - \langle |x - x'| \rangle - \langle |y - y'| \rangle` over all pairs
(Székely & Rizzo 2013, *J. Stat. Plan. Inference* 143, 1249), which is the same for one statistic. Both are zero only
for equal distributions; their bias falls as the root of n, so a value is read beside that of two real sets of the same
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.rows import as_pair

__all__ = ["energy_distance", "sliced_wasserstein", "statistic_distances", "wasserstein_distance"]

_ROWS = 1024


def wasserstein_distance(features_a: Any, features_b: Any) -> np.ndarray:
    """Return the Wasserstein-1 distance of every statistic.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite.

    Returns
    -------
    numpy.ndarray
        float64 ``(d,)``, in the units of the statistics.

    Raises
    ------
    DataError
        For no rows, mismatched widths, or values that are not finite.
    """
    gap, step = _gaps(*as_pair(features_a, features_b))
    return (gap.abs() * step).sum(dim=0).cpu().numpy()


def statistic_distances(
    features_real: Any, features_generated: Any, *, names: Sequence[str] | None = None
) -> xr.Dataset:
    """Compare every statistic by itself.

    Parameters
    ----------
    features_real, features_generated : array_like
        ``(n, d)`` and ``(m, d)``, finite.
    names : sequence of str, optional
        Of the statistics; their numbers by default.

    Returns
    -------
    xarray.Dataset
        Along ``statistic``: ``wasserstein`` in its units, ``wasserstein_scaled`` over the real standard deviation (NaN
        for a statistic that is constant), ``energy``, and ``ks``, the largest difference of the distribution functions.

    Raises
    ------
    DataError
        For a wrong number of names, fewer than two real rows, mismatched widths, or values that are not finite.
    """
    real, generated = as_pair(features_real, features_generated)
    names = [str(i) for i in range(real.shape[1])] if names is None else list(names)
    if len(names) != real.shape[1] or len(real) < 2:
        raise DataError(f"{len(names)} names for {real.shape[1]} statistics of {len(real)} real rows")
    gap, step = _gaps(real, generated)
    distance, spread = (gap.abs() * step).sum(dim=0), real.std(dim=0)
    columns = {
        "wasserstein": distance,
        "wasserstein_scaled": torch.where(spread > 0, distance / spread, torch.nan),
        "energy": (2 * gap.square() * step).sum(dim=0).sqrt(),
        "ks": torch.where(step > 0, gap.abs(), 0.0).amax(dim=0),
    }
    data = {name: ("statistic", values.cpu().numpy()) for name, values in columns.items()}
    # Variable-length text: the fixed-width kind has no Zarr v3 specification.
    return xr.Dataset(data, coords={"statistic": np.asarray(names, dtype=object)})


def energy_distance(features_a: Any, features_b: Any) -> float:
    """Return the energy distance of the joint distributions, of whose columns the largest units decide.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite; standardised, if they have several units.

    Raises
    ------
    DataError
        For no rows, mismatched widths, or values that are not finite.

    Notes
    -----
    Time (n + m)^2 d, from differences, so that close pairs lose no digits.
    """
    a, b = as_pair(features_a, features_b)
    squared = 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b)
    return max(squared, 0.0) ** 0.5


def sliced_wasserstein(features_a: Any, features_b: Any, *, projections: int = 128, seed: int = 0) -> float:
    """Return the mean Wasserstein-1 distance over random directions: joint, and in n log n time.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite.
    projections : int
        Directions, uniform on the sphere.
    seed : int
        Of the directions.

    Raises
    ------
    DataError
        For no rows or directions, mismatched widths, or values that are not finite.
    """
    if projections < 1:
        raise DataError(f"{projections} projections, not 1 or more")
    a, b = as_pair(features_a, features_b)
    directions = np.random.default_rng(seed).normal(size=(a.shape[1], projections))
    unit = torch.from_numpy(directions / np.linalg.norm(directions, axis=0)).to(a.device)
    return float(wasserstein_distance(a @ unit, b @ unit).mean())


def _gaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return F - G after each of the pooled sorted values, and the step to the next, both ``(n + m - 1, d)``."""
    values, order = torch.cat([a, b]).sort(dim=0)
    # Whole numbers: the sum over equal sets is zero and not rounding.
    jump = torch.where(order < len(a), len(b), -len(a))
    return jump.cumsum(dim=0)[:-1].double() / (len(a) * len(b)), values.diff(dim=0)


def _mean_distance(a: Tensor, b: Tensor) -> float:
    exact = "donot_use_mm_for_euclid_dist"
    total = sum(float(torch.cdist(x, y, compute_mode=exact).sum()) for x in a.split(_ROWS) for y in b.split(_ROWS))
    return total / (len(a) * len(b))

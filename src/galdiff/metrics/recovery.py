r"""Recovered against asked-for parameters: slope, bias, scatter, and the null test.

The line is fitted by Huber's M-estimator (Huber 1964), which bends for no outlier; the bias is the median difference,
the scatter :math:`1.4826\,\mathrm{MAD}` of what the line leaves. Errors are of a bootstrap over objects. Where recovery
means anything, the slope of parameters that are dealt out again at random is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from galdiff.errors import DataError

__all__ = ["recovery"]

HUBER = 1.345
"""Residuals beyond so many standard deviations count less (95 % efficient for normal ones)."""
MINIMUM = 10
"""Pairs below which there is no answer."""
_STATISTICS = ("slope", "bias", "scatter")


def recovery(asked: Any, recovered: Any, *, seed: int = 0, draws: int = 200) -> xr.Dataset:
    """Compare parameters that were recovered with what was asked for.

    Parameters
    ----------
    asked, recovered : array_like
        ``(n,)``, in the same unit; pairs with a value that is not finite do not count.
    seed, draws : int
        Of the bootstrap and of the shuffles.

    Returns
    -------
    xarray.Dataset
        ``slope``, ``bias`` (median of recovered minus asked), ``scatter`` (about the line), each with ``_error``;
        ``null_slope``, the mean slope of shuffled parameters, and ``null_slope_error``, the standard deviation of one;
        ``n``, the pairs that count, and ``invalid``, the share of those that do not. NaN below ten pairs; no slope
        where one value was asked of all.

    Raises
    ------
    DataError
        For shapes that differ.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in (asked, recovered))
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(f"parameters of shapes {x.shape} and {y.shape} do not go together")
    good = np.isfinite(x) & np.isfinite(y)
    invalid = 1 - float(good.mean()) if len(good) else 0.0
    x, y = x[good], y[good]
    names = [*_STATISTICS, *(f"{name}_error" for name in _STATISTICS), "null_slope", "null_slope_error"]
    values = dict.fromkeys(names, np.nan)
    if len(x) >= MINIMUM:
        rng = np.random.default_rng(seed)
        pick = rng.integers(0, len(x), (draws, len(x)))
        found, drawn = _fit(x[None], y[None]), _fit(x[pick], y[pick])
        for name, value, many in zip(_STATISTICS, found, drawn, strict=True):
            values[name], values[f"{name}_error"] = float(value[0]), float(np.std(many))
        shuffled = _fit(rng.permuted(np.tile(x, (draws, 1)), axis=1), np.tile(y, (draws, 1)))[0]
        values["null_slope"], values["null_slope_error"] = float(np.mean(shuffled)), float(np.std(shuffled))
    return xr.Dataset({**values, "n": len(x), "invalid": invalid})


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, bias and scatter of every row of ``(rows, n)``, by reweighted least squares."""
    weight = np.ones_like(x)
    for _ in range(10):
        total = weight.sum(axis=1, keepdims=True)
        mean_x, mean_y = ((weight * v).sum(axis=1, keepdims=True) / total for v in (x, y))
        variance = (weight * (x - mean_x) ** 2).sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (weight * (x - mean_x) * (y - mean_y)).sum(axis=1, keepdims=True) / variance
        slope = np.where(variance > 1e-12 * np.maximum(mean_x**2, 1e-300) * total, slope, np.nan)
        residual = y - mean_y - np.nan_to_num(slope) * (x - mean_x)
        middle = np.median(residual, axis=1, keepdims=True)
        spread = 1.4826 * np.median(np.abs(residual - middle), axis=1, keepdims=True)
        weight = 1 / np.maximum(1, np.abs(residual) / np.maximum(HUBER * spread, 1e-300))
    return slope[:, 0], np.median(y - x, axis=1), spread[:, 0]

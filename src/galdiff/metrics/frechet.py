r"""The Fréchet distance between two sets of features, each described by mean and covariance.

.. math:: d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr} \Sigma_a + \operatorname{tr} \Sigma_b
          - 2 \operatorname{tr} (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}

(Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500). With factors :math:`\Sigma = L L^T` the last trace is the
sum of the singular values of :math:`L_a^T L_b`: no matrix root, which is slow and fails for singular covariances.

Its bias falls as d / n: it is not reported below five samples a dimension, and never without the distance of two real
sets of the same size. `frechet_infinity` takes the bias off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.moments import Moments
from galdiff.metrics.rows import as_pair

__all__ = [
    "MINIMUM_PER_DIMENSION",
    "FrechetFit",
    "Whitening",
    "fewest_to_extrapolate",
    "frechet_distance",
    "frechet_infinity",
]

MINIMUM_PER_DIMENSION = 5
"""Samples a feature dimension below which a distance is "too few" and not a number."""
_SMALL = 512  # Features, up to which singular values are cheap.
_SMALLEST_PART = 2  # Samples a dimension, down to which the bias is proportional to 1 / n within a few percent.
_RUNGS = 3  # that a line with an error takes


def frechet_distance(features_a: Any, features_b: Any) -> float:
    """Return the squared Fréchet distance.

    Parameters
    ----------
    features_a, features_b : array_like or Moments
        ``(n, d)`` and ``(m, d)``, finite; or their `Moments`.

    Returns
    -------
    float
        Computed in float64, with unbiased covariances; zero for equal sets, to rounding.

    Raises
    ------
    DataError
        For mismatched widths, values that are not finite, or fewer than two rows.
    """
    if not isinstance(features_a, Moments) and not isinstance(features_b, Moments):
        features_a, features_b = as_pair(features_a, features_b, minimum=2)
    a, b = (f if isinstance(f, Moments) else Moments.of(f) for f in (features_a, features_b))
    if a.mean.shape != b.mean.shape:
        raise DataError(f"features have shapes {(a.count, len(a.mean))} and {(b.count, len(b.mean))}")
    (mean_a, cov_a), (mean_b, cov_b) = a.compute(), (x.to(a.mean.device) for x in b.compute())
    (root_a, sound_a), (root_b, sound_b) = _factor(cov_a), _factor(cov_b)
    cross = root_a.T @ root_b
    # Squares lose half of the digits of what is close to zero, but cost a fifth of the time.
    square = sound_a and sound_b and len(cross) > _SMALL
    singular = torch.linalg.eigvalsh(cross @ cross.T).clamp_min(0).sqrt() if square else torch.linalg.svdvals(cross)
    trace = cov_a.trace() + cov_b.trace() - 2 * singular.sum()
    return float((mean_a - mean_b).square().sum() + trace)


def _factor(covariance: Tensor) -> tuple[Tensor, bool]:
    """Return L with L L^T the covariance, and whether it is well conditioned."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    pivots = root.diagonal().square()
    if not failed and pivots.min() > 1e-8 * pivots.max():
        return root, True
    values, vectors = torch.linalg.eigh(covariance)
    # What is rounding of a zero would be its root, half of the digits.
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
    return vectors * torch.where(values > rounding, values, 0.0).clamp_min(0).sqrt(), False


@dataclass(frozen=True)
class FrechetFit:
    """The distance that infinitely many samples would have, and the line that says so.

    Attributes
    ----------
    value : float
        The intercept; for two sets of one population it is zero within its error, of either sign.
    error : float
        Its standard error by the delete-a-group jackknife over rows; NaN if no groups were asked for.
    fit_error : float
        Standard error of the intercept from the scatter about the line alone: too small, since parts share rows.
    slope : float
        Bias of the whole sets: what the distance at full size is too large by.
    sizes, distances : numpy.ndarray
        Rows of a part (of set b), and the mean distance of parts of that size, ``(rung,)``.
    """

    value: float
    error: float
    fit_error: float
    slope: float
    sizes: np.ndarray
    distances: np.ndarray


def frechet_infinity(
    features_a: Any, features_b: Any, *, rungs: int = 8, fixed: bool = False, groups: int = 10, seed: int = 0
) -> FrechetFit:
    """Extrapolate the Fréchet distance to infinitely many samples (Chong & Forsyth 2020, arXiv:1911.07023).

    Rung k is the mean distance of k disjoint parts of n / k rows, so that every rung sees every row; the bias of a part
    is k times that of the whole, and a line through the rungs has the distance without bias at k = 0.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``; a is the reference.
    rungs : int
        Most rungs of the ladder; parts are not made smaller than 2 d rows.
    fixed : bool
        Keep the reference whole, as Chong & Forsyth do: right for one that is very large. Its own bias stays then.
    groups : int
        Groups of the jackknife, each of which costs another ladder; 0 for none.
    seed : int
        Of the parts.

    Raises
    ------
    DataError
        For fewer than 6 d rows, which give no three rungs, and what `frechet_distance` refuses.
    """
    a, b = as_pair(features_a, features_b, minimum=2)
    width = a.shape[1]
    rng = np.random.default_rng(seed)
    a, b = (x[torch.from_numpy(rng.permutation(len(x))).to(x.device)] for x in (a, b))
    fewest = len(b) if fixed else min(len(a), len(b))
    if groups == 1 or groups < 0 or rungs < _RUNGS:
        raise DataError(f"{rungs} rungs and {groups} groups: {_RUNGS} rungs, and no group or 2, are needed at least")
    # Every ladder of the jackknife has the same rungs.
    left = fewest - -(-fewest // groups) if groups else fewest
    rungs = min(rungs, left // _smallest_part(width))
    if rungs < _RUNGS:
        raise DataError(
            f"{fewest} rows of {width} features are too few to extrapolate from",
            remedy=f"Needed are {fewest_to_extrapolate(width, groups=groups)}",
        )
    distances = _ladder(a, b, rungs, fixed)
    value, slope, fit_error = _line(distances)
    error = float("nan")
    if groups:
        group_a, group_b = (torch.arange(len(x), device=x.device) % groups for x in (a, b))
        without = [_line(_ladder(a[group_a != g], b[group_b != g], rungs, fixed))[0] for g in range(groups)]
        error = float(np.sqrt((groups - 1) * np.var(without)))
    return FrechetFit(value, error, fit_error, slope, len(b) // np.arange(1, rungs + 1), distances)


def fewest_to_extrapolate(width: int, *, groups: int = 10) -> int:
    """Return how many rows of either set `frechet_infinity` needs of so many features."""
    rows = _RUNGS * _smallest_part(width)
    return rows + (-(-rows // (groups - 1)) if groups else 0)


def _smallest_part(width: int) -> int:
    return max(2, _SMALLEST_PART * width)


def _ladder(a: Tensor, b: Tensor, rungs: int, fixed: bool) -> np.ndarray:
    whole = Moments.of(a) if fixed else None
    means = []
    for k in range(1, rungs + 1):
        parts_a = [whole] * k if whole is not None else [Moments.of(p) for p in a[: len(a) // k * k].chunk(k)]
        parts_b = [Moments.of(part) for part in b[: len(b) // k * k].chunk(k)]
        means.append(np.mean([frechet_distance(*pair) for pair in zip(parts_a, parts_b, strict=True)]))
    return np.array(means)


def _line(distances: np.ndarray) -> tuple[float, float, float]:
    """Fit a line to rungs 1, 2, …; return its intercept, its slope and the standard error of the intercept."""
    k = np.arange(1, len(distances) + 1)
    spread = np.square(k - k.mean()).sum()
    slope = ((k - k.mean()) * distances).sum() / spread
    intercept = distances.mean() - slope * k.mean()
    variance = np.square(distances - intercept - slope * k).sum() / (len(k) - 2)
    return float(intercept), float(slope), float(np.sqrt(variance * (1 / len(k) + k.mean() ** 2 / spread)))


@dataclass(frozen=True)
class Whitening:
    """Standardises features by a reference set and clips outliers: one odd object must not carry a distance.

    Attributes
    ----------
    mean, std : numpy.ndarray
        Of the reference, ``(d,)``.
    clip : float
        In standard deviations.
    """

    mean: np.ndarray
    std: np.ndarray
    clip: float = 5.0

    @classmethod
    def fit(cls, features: np.ndarray, *, clip: float = 5.0) -> Whitening:
        """Measure a reference set: the training split, always."""
        return cls(features.mean(axis=0), np.maximum(features.std(axis=0), 1e-12), clip)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whiten and clip."""
        return np.clip((features - self.mean) / self.std, -self.clip, self.clip)

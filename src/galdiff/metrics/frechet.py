r"""The Fréchet distance between two sets of features, each described by mean and covariance.

.. math:: d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr} \Sigma_a + \operatorname{tr} \Sigma_b
          - 2 \operatorname{tr} (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}

(Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500). Its bias falls as d / n: it is not reported below five
samples a dimension, and never without the distance of two real sets of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from galdiff.errors import DataError

__all__ = ["MINIMUM_PER_DIMENSION", "Whitening", "frechet_distance"]

MINIMUM_PER_DIMENSION = 5
"""Samples a feature dimension below which a distance is "too few" and not a number."""


def frechet_distance(features_a: Any, features_b: Any) -> float:
    """Return the squared Fréchet distance.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite.

    Returns
    -------
    float
        Computed in float64, with unbiased covariances; zero for equal sets, to rounding.

    Raises
    ------
    DataError
        For mismatched widths, values that are not finite, or fewer than two rows.
    """
    a, b = (np.asarray(f, dtype=np.float64) for f in (features_a, features_b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(f"features have shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features are not finite")
    cov_a, cov_b = (np.atleast_2d(np.cov(f, rowvar=False)) for f in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ cov_b @ root)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + trace)


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

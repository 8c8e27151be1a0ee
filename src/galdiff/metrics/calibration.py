r"""How well scores rank, decide, and mean what they say.

The area under the ROC curve is the chance that a positive scores above a negative (Mann & Whitney 1947). The expected
calibration error is the mean gap between how sure a judge is and how often it is right,

.. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} |\overline{\mathrm{confidence}}_b - \overline{\mathrm{correct}}_b|,

over bins b of equal count (Naeini et al. 2015; adaptive bins: Nixon et al. 2019, arXiv:1904.01685). It is never zero:
a perfectly calibrated judge's is what chance leaves in the bins (`calibration_floor`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from galdiff.errors import DataError

__all__ = ["auc", "balanced_accuracy", "calibration_error", "calibration_floor"]


def auc(scores: Any, labels: Any) -> float:
    """Return the area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Parameters
    ----------
    scores, labels : array_like
        ``(n,)``; labels are true for positives.

    Returns
    -------
    float
        NaN where one of the two kinds is absent.
    """
    s, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    negatives = np.sort(s[~positive])
    below = np.searchsorted(negatives, s[positive], side="left")
    ties = np.searchsorted(negatives, s[positive], side="right") - below
    return float((below + ties / 2).sum() / (n_positive * n_negative))


def balanced_accuracy(predicted: Any, truth: Any, *, minimum: int = 10) -> float:
    """Return the mean over the classes of how many of each are found.

    Parameters
    ----------
    predicted, truth : array_like
        Classes ``(n,)``.
    minimum : int
        Classes with fewer objects do not count.

    Returns
    -------
    float
        NaN where no class has so many.
    """
    p, t = np.asarray(predicted), np.asarray(truth)
    found = [(p[t == c] == c).mean() for c in np.unique(t) if (t == c).sum() >= minimum]
    return float(np.mean(found)) if found else float("nan")


def calibration_error(probabilities: Any, labels: Any, *, bins: int = 15) -> float:
    """Return the expected calibration error of the most probable class.

    Parameters
    ----------
    probabilities : array_like
        ``(n, classes)``; rows sum to one.
    labels : array_like
        Classes ``(n,)``.
    bins : int
        Bins of equal count; never more than one for every ten objects.

    Raises
    ------
    DataError
        For shapes that do not go together, or no object.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise DataError(f"probabilities {p.shape} do not go with labels {y.shape}")
    return float(_gaps(p, (p.argmax(axis=1) == y)[None], bins)[0])


def calibration_floor(probabilities: Any, *, bins: int = 15, draws: int = 100, seed: int = 0) -> float:
    """Return what `calibration_error` is on average where the probabilities are exactly right.

    Parameters
    ----------
    probabilities : array_like
        ``(n, classes)``; rows sum to one.
    bins : int
        As in `calibration_error`.
    draws : int
        How often labels are drawn from the probabilities themselves (Bröcker & Smith 2007).
    seed : int
        Of the draws.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    drawn = np.random.default_rng(seed).random((draws, len(p))) < p.max(axis=1)
    return float(_gaps(p, drawn, bins).mean())


def _gaps(probabilities: np.ndarray, correct: np.ndarray, bins: int) -> np.ndarray:
    """Mean gap of confidence and correctness, for every row of ``correct`` ``(rows, n)``."""
    confidence, n = probabilities.max(axis=1, initial=0), len(probabilities)
    if not n:
        raise DataError("there is no object to be sure of")
    order = np.argsort(confidence, kind="stable")
    starts = np.unique(np.linspace(0, n, min(bins, max(1, n // 10)), endpoint=False).astype(int))
    excess = (confidence - correct)[:, order]
    return np.abs(np.add.reduceat(excess, starts, axis=1)).sum(axis=1) / n

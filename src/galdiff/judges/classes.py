"""Classes by a judge: whether what was asked for is there, and whether generated images would do for training.

A judge trained on real images alone is read on generated ones, whose labels are what was asked for. Every figure's
floor is the same judge on held-out real images: what it makes of the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from galdiff.errors import DataError
from galdiff.judges.classifier import Classifier
from galdiff.metrics.calibration import auc, balanced_accuracy, calibration_error, calibration_floor
from galdiff.metrics.figure import Figure
from galdiff.schema.conditions import Class

__all__ = ["class_figures", "transfer_figures"]

MINIMUM = 10
"""Objects of a class, on either side, below which its figures are "too few"."""
_TRANSFER = ("transfer_accuracy", "transfer_auc")
_DRAWS = 100
Statistic = Callable[[np.ndarray, np.ndarray], float]


def class_figures(
    generated: Any,
    asked: Any,
    real: Any,
    labels: Any,
    field: Class,
    *,
    frequency: Any = None,
    seed: int = 0,
    draws: int = 100,
) -> list[Figure]:
    """Measure how a frozen judge ranks, decides and is sure of generated images, beside real ones.

    Parameters
    ----------
    generated : array_like
        Probabilities of the classes of generated images ``(n, classes)`` by a judge that was trained on real ones.
    asked : array_like
        Classes that were asked for ``(n,)``.
    real, labels : array_like
        The same of held-out real images, with their own classes.
    field : Class
        The classes.
    frequency : array_like, optional
        How many images of each class the judge was trained on ``(classes,)``; by default the real ones given here. The
        best rule for classes that count alike divides it out.
    seed, draws : int
        Of the bootstrap over images.

    Returns
    -------
    list of Figure
        ``class_auc[<class>]`` (one against the rest), ``class_auc`` (their mean), ``class_accuracy`` (balanced; the
        probabilities over ``frequency``) and ``class_calibration_error``, whose note has what a calibrated judge would
        have.
    """
    p, a = _pair(generated, asked, field)
    q, t = _pair(real, labels, field)
    rng, n = np.random.default_rng(seed), min(len(p), len(q))
    counts = [int(min((a == c).sum(), (t == c).sum())) for c in range(len(field.classes))]
    enough = [c for c, count in enumerate(counts) if count >= MINIMUM]
    counted = np.bincount(t, minlength=len(field.classes)) if frequency is None else np.asarray(frequency)
    frequency = counted.clip(min=1)
    protocol = "judge of classes trained on the training split, one class against the rest"

    def measure(name: str, statistic: Statistic, count: int, protocol: str, note: str = "") -> Figure:
        if not count:
            return Figure.too_few(name, n, protocol, f"needs {MINIMUM} of a class")

        def error(x: np.ndarray, y: np.ndarray) -> float:
            picks = (rng.integers(0, len(x), len(x)) for _ in range(draws))
            return float(np.nanstd([statistic(x[rows], y[rows]) for rows in picks]))

        # Real images decide what the judge can tell: they are the floor, and no value is right by itself.
        value, floor = statistic(p, a), statistic(q, t)
        known: dict[str, Any] = {"note": note, "floor_error": error(q, t), "ideal": None}
        # However many draws, a spread is known no better than by as many objects.
        known["freedom"] = min(draws, count) - 1
        return Figure(name, value, error(p, a), floor, n, protocol, **known)

    figures = [
        measure(f"class_auc[{name}]", lambda x, y, c=c: auc(x[:, c], y == c), counts[c] * (c in enough), protocol)  # type: ignore[misc]
        for c, name in enumerate(field.classes)
    ]
    missing = len(field.classes) - len(enough)
    note = f"{missing} classes have fewer than {MINIMUM} objects" if missing else ""
    several = n if len(enough) > 1 else 0
    figures.append(measure("class_auc", lambda x, y: _macro(x, y, enough), several, f"{protocol}, mean", note))
    protocol = f"most probable class at equal frequencies, mean over classes with {MINIMUM} or more"
    figures.append(
        measure("class_accuracy", lambda x, y: balanced_accuracy((x / frequency).argmax(1), y), several, protocol, note)
    )
    protocol = "expected calibration error of the most probable class, 15 bins of equal count"
    note = f"a calibrated judge would have {calibration_floor(p, seed=seed):.3f}" if len(p) else ""
    figures.append(measure("class_calibration_error", calibration_error, several, protocol, note))
    return figures


def transfer_figures(
    generated: Any,
    asked: Any,
    train: Any,
    labels: Any,
    held_out: Any,
    truth: Any,
    field: Class,
    *,
    seed: int = 0,
    seen: int = 16_000,
) -> list[Figure]:
    """Train a judge on generated images, test it on real ones (Ravuri & Vinyals 2019, arXiv:1905.10887).

    Parameters
    ----------
    generated, train, held_out : array_like
        Stretched images ``(n, band, y, x)``: generated, of the training split, and held-out real ones.
    asked, labels, truth : array_like
        Their classes.
    field : Class
        The classes.
    seed, seen : int
        Of both judges (`Classifier.fit`).

    Returns
    -------
    list of Figure
        ``transfer_accuracy`` (balanced) and ``transfer_auc`` (mean over the classes), both on held-out real images; the
        floor is the mean of two judges, each trained on as many real images. Errors are of a bootstrap over the
        held-out images, and of how the two differ, which is one degree of freedom: those of the figure are Welch's
        (1947, *Biometrika* 34, 28).
    """
    y, t = np.asarray(labels), np.asarray(truth)
    n, classes = min(len(asked), len(y)), [c for c in range(len(field.classes)) if (t == c).sum() >= MINIMUM]
    protocol = f"judge trained on {n} generated images, tested on held-out real ones; floor: trained on as many real"
    if n < MINIMUM * len(field.classes) or len(classes) < 2:
        note = f"needs {MINIMUM} of a class"
        return [Figure.too_few(name, len(t), protocol, note) for name in _TRANSFER]
    rng = np.random.default_rng(seed)
    lessons = [(np.asarray(generated)[:n], np.asarray(asked)[:n])]
    lessons += [(np.asarray(train)[rows], y[rows]) for rows in (np.sort(rng.permutation(len(y))[:n]) for _ in range(2))]
    picks = [np.arange(len(t)), *(rng.integers(0, len(t), len(t)) for _ in range(_DRAWS))]
    found = []
    for number, (images, known) in enumerate(lessons):
        judge = Classifier(images.shape[1], len(field.classes))
        p = judge.fit(images, known, seed=seed + number, seen=seen, field=field).predict(held_out)
        chosen = (p / np.bincount(known, minlength=len(field.classes)).clip(min=1)).argmax(1)
        found.append([(balanced_accuracy(chosen[i], t[i]), _macro(p[i], t[i], classes)) for i in picks])
    (values, *reals) = np.array(found)
    floors = np.mean(reals, axis=0)
    # Two trainings that differ by chance: the half of their difference squared is the variance of one.
    trained = np.abs(reals[0][0] - reals[1][0]) / np.sqrt(2)
    drawn, drawn_floor = (np.nanstd(numbers[1:], axis=0) for numbers in (values, floors))
    error, floor_error = np.hypot(drawn, trained), np.hypot(drawn_floor, trained / np.sqrt(2))
    figures = []
    for k, name in enumerate(_TRANSFER):
        value, floor = float(values[0][k]), float(floors[0][k])
        more: dict[str, Any] = {"floor_error": float(floor_error[k]), "ideal": None}
        more["freedom"] = _welch({_DRAWS - 1: drawn[k] ** 2 + drawn_floor[k] ** 2, 1: 1.5 * trained[k] ** 2})
        figures.append(Figure(name, value, float(error[k]), floor, len(t), protocol, **more))
    return figures


def _welch(variances: Mapping[int, float]) -> int:
    """Return the degrees of freedom of a sum of variances, which are given by the freedom of each."""
    doubt = sum(variance**2 / freedom for freedom, variance in variances.items())
    most = max(variances)
    return round(sum(variances.values()) ** 2 / doubt) if doubt else most


def _macro(probabilities: np.ndarray, labels: np.ndarray, classes: list[int]) -> float:
    return float(np.mean([auc(probabilities[:, c], labels == c) for c in classes]))


def _pair(probabilities: Any, labels: Any, field: Class) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.shape != (len(y), len(field.classes)):
        raise DataError(f"probabilities {p.shape} do not go with {len(y)} labels of {len(field.classes)} classes")
    if len(y) and not 0 <= y.min() <= y.max() < len(field.classes):
        raise DataError(f"labels lie outside 0 to {len(field.classes) - 1}")
    return p, y

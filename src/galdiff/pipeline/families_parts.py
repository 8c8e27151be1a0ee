"""Families of parts: classes, and windows over a number, each compared with its own real objects.

Whole populations agree also where samples of one class look like another. Of every space, those features count that
`galdiff.metrics.SHAPE` names, or all; spaces too wide for any part are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics import PROTOCOL, SHAPE, FeatureSpace, Figure, frechet_distance, sliding_distances
from galdiff.metrics.frechet import MINIMUM_PER_DIMENSION
from galdiff.pipeline.sets import COMPARED, SETS, Evaluation, Labeled, Sets
from galdiff.schema.conditions import Class, Scalar, Votes

__all__ = ["classes", "sliding"]

_WINDOWS = 9
_WIDTH = 0.2  # of all real objects in a window, neighbors overlap by half
_NUMBERS = ("value", "error", "floor", "floor_error")
_SPARE = 1.4  # Objects of a window over those that it needs: a half of the real ones may have fewer.


def classes(sets: Sets) -> Evaluation:
    """Measure the Fréchet distance of every class, in the first field of classes."""
    field = next((f for f in sets.schema.fields if isinstance(f, Class)), None)
    if field is None:
        return Evaluation([])
    labels = {name: np.nan_to_num(part.numbers(field.name), nan=-1) for name, part in _labeled(sets).items()}
    members = [{name: np.flatnonzero(of == c) for name, of in labels.items()} for c in range(len(field.classes))]
    counts = [min(map(len, rows.values())) for rows in members]
    figures = []
    for space, features, needed in _spaces(sets, max(counts)):
        for name, rows, n in zip(field.classes, members, counts, strict=True):
            # As many of each: the distance of fewer is larger.
            values = {which: features[which][at[:n]] for which, at in rows.items()}
            title, protocol = f"class_FD[{name}]", f"{space.protocol}; of this class alone"
            if space.name != PROTOCOL:
                title = f"{title[:-1]} by {space.name}]"
            figures.append(sets.figure(title, frechet_distance, values, protocol, needed=needed))
    return Evaluation(figures)


def sliding(sets: Sets) -> Evaluation:
    """Measure the mean Fréchet distance in windows over a number, or over the fraction of the first answer in votes.

    The number is ranked among the real objects, so that windows hold as many of them each. The curves
    ``sliding_distance``, ``sliding_error``, ``sliding_floor`` and ``sliding_floor_error`` ``(slide, window)`` are those
    of the windows, ``sliding_center`` the numbers in their middle; NaN where there are too few.
    """
    figures, titles, curves = [], [], []
    for title, known in _numbers(sets):
        there = {which: np.flatnonzero(np.isfinite(numbers)) for which, numbers in known.items()}
        n = min(map(len, there.values()))
        ranked = np.sort(known["real"][there["real"][:n]])
        for space, features, needed in _spaces(sets, int(_WIDTH / _SPARE * n)):
            values = {
                which: np.column_stack([features[which][rows[:n]], _rank(ranked, known[which][rows[:n]])])
                for which, rows in there.items()
            }
            name = title if space.name == PROTOCOL else f"{title} by {space.name}"
            figure, windows = _slide(sets, f"sliding_FD[{name}]", values, space.protocol, needed)
            figures.append(figure)
            if figure.status == "ok":
                titles.append(name)
                middles = np.quantile(ranked, np.linspace(_WIDTH / 2, 1 - _WIDTH / 2, _WINDOWS))
                curves.append(np.concatenate([middles[None], windows]))
    if not titles:
        return Evaluation(figures)
    names = [f"sliding_{key}" for key in ("center", "distance", "error", "floor", "floor_error")]
    data: dict[str, Any] = {name: (("slide", "window"), x) for name, x in zip(names, np.stack(curves, 1), strict=True)}
    data["sliding_title"] = ("slide", np.array(titles, dtype=object))
    return Evaluation(figures, xr.Dataset(data))


def _slide(
    sets: Sets, name: str, values: dict[str, np.ndarray], protocol: str, needed: int
) -> tuple[Figure, np.ndarray]:
    """Return the mean over the windows that have enough, and value, error, floor and its error of each."""
    protocol = f"{protocol}; mean over windows of {_WIDTH:.0%} of the real objects each"
    rows = np.full((4, _WINDOWS), np.nan)
    n = len(values["real"])
    enough = np.full(_WINDOWS, n >= needed)
    for which in COMPARED if n >= needed else ():
        enough &= np.isfinite(_windows(values[which], values["real"], needed))
    if not enough.any():
        note = f"of {n} objects none of {_WINDOWS} windows has {needed}"
        return Figure.too_few(name, n, protocol, note, ideal=0.0), rows

    def measure(a: np.ndarray, b: np.ndarray) -> list[float]:
        distances = _windows(a, b, 2)[enough]
        return [float(distances.mean()), *distances.tolist()]

    names = [name, *(f"window {k}" for k in np.flatnonzero(enough))]
    mean, *each = sets.figures(names, measure, values, protocol, notes=[f"{enough.sum()} windows", *names[1:]])
    rows[:, enough] = np.array([[getattr(f, key) for f in each] for key in _NUMBERS], dtype=float)
    return mean, rows


def _labeled(sets: Sets) -> dict[str, Labeled]:
    return {name: Labeled(sets.images[name], sets.conditions[name]) for name in SETS}


def _spaces(sets: Sets, most: int) -> Iterator[tuple[FeatureSpace, dict[str, np.ndarray], int]]:
    """Yield the first space and those that so many are enough for, the features that count, and the objects needed."""
    for space in sets.spaces:
        width = len(SHAPE) if space.name == PROTOCOL else space.width
        needed = MINIMUM_PER_DIMENSION * width
        if space.name == PROTOCOL or most >= needed:
            yield space, {name: values[:, :width] for name, values in sets.features(space).items()}, needed


def _numbers(sets: Sets) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield what windows slide over, NaN where it is not known."""
    for field in sets.schema.fields:
        if isinstance(field, Scalar) and not field.angle:
            title = f"{field.name} [{field.unit}]" if field.unit else field.name
            yield title, {name: part.numbers(field.name) for name, part in _labeled(sets).items()}
        elif isinstance(field, Votes):
            yield field.tree.answers[0].alias, {which: _fraction(sets, which, field) for which in SETS}


def _fraction(sets: Sets, which: str, field: Votes) -> np.ndarray:
    """Return the share of the first question's votes that its first answer has."""
    known = sets.conditions[which]
    votes = known.values[field.name][:, field.tree.answer_slice(0)].double().numpy()
    total = np.where(known.masks[field.name][:, 0].numpy(), votes.sum(axis=1), 0)
    return np.divide(votes[:, 0], total, out=np.full(len(votes), np.nan), where=total > 0)


def _rank(among: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return which share of sorted numbers is smaller; of equal ones a half counts."""
    return (np.searchsorted(among, numbers, "left") + np.searchsorted(among, numbers, "right")) / (2 * len(among))


def _windows(a: np.ndarray, b: np.ndarray, minimum: int) -> np.ndarray:
    """Return the distance in every window of rows whose last column is the rank, NaN below a minimum."""
    sides = (b[:, :-1], b[:, -1], a[:, :-1], a[:, -1])
    found = sliding_distances(*sides, windows=_WINDOWS, width=_WIDTH, span=(0, 1), minimum=minimum)
    return found["distance"].to_numpy()

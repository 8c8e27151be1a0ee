"""Families over feature spaces: how far two clouds of points are from each other.

A distance has one figure that is judged. What estimates it another way, the Fréchet distance of infinitely many images
and the kernel distance by subsets, is shown beside it: it would be asked the same question twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics import (
    FEATURES,
    PROTOCOL,
    SHAPE,
    FeatureSpace,
    Figure,
    energy_distance,
    frechet_distance,
    frechet_infinity,
    kernel_distance,
    precision_recall,
    squared_mmd,
    wasserstein_distance,
)
from galdiff.metrics.frechet import MINIMUM_PER_DIMENSION, fewest_to_extrapolate
from galdiff.pipeline.sets import COMPARED, Evaluation, Sets, Statistic

__all__ = ["distributions", "energy", "extrapolated", "fidelity", "frechet", "kernel", "kernel_subsets"]

_PAIRS = 1000
"""Images of a set whose pairs are looked at: their cost is the square."""
_SUBSET = 1000
"""Images of a subset, as in published kernel distances, or a half of all where that is fewer."""
_RUNGS, _GROUPS = 6, 10  # of the extrapolation at most, which takes 231 distances
_NEIGHBOR = 5
_WIDE = 512
"""Features beyond which few runs hold out enough images."""
_MORE = "galdiff evaluate --limit takes so many of larger folders, without --train twice the real ones; KID takes fewer"


def frechet(sets: Sets) -> Evaluation:
    """Measure Fréchet distances in every feature space; of the physical ones without and with the sky."""
    figures = []
    for name, space, width, note in _clouds(sets):
        known: dict[str, Any] = {"needed": MINIMUM_PER_DIMENSION * width, "note": note}
        known["remedy"] = _MORE if width > _WIDE else ""
        figures.append(sets.figure(name, _first(width), sets.features(space), space.protocol, **known))
    return Evaluation(figures)


def extrapolated(sets: Sets) -> Evaluation:
    """Extrapolate Fréchet distances to infinitely many images (`galdiff.metrics.frechet_infinity`), as they are shown.

    The curves ``ladder_distances``, ``ladder_sizes`` and the line through them, ``ladder_value`` with ``ladder_error``
    and ``ladder_slope``, have an axis ``compared``: generated against real images, and other real ones against them.
    """
    figures, fits, groups = [], {}, min(_GROUPS, sets.draws)
    for name, space, width, note in _clouds(sets):
        title, n = name.replace("FD", "FD_infinity", 1), len(sets.images["real"])
        protocol = f"{space.protocol}; line in 1 / n through parts of all images, to none; jackknife of {groups}"
        needed = fewest_to_extrapolate(width, groups=groups)
        if n < needed:
            figures.append(Figure.too_few(title, n, protocol, needed=needed, ideal=0.0))
            continue
        rows = {which: values[:, :width] for which, values in sets.features(space).items()}
        options: dict[str, Any] = {"rungs": _RUNGS, "groups": groups, "seed": sets.seed}
        fit, floor = (frechet_infinity(rows["real"], rows[which], **options) for which in COMPARED)
        fits[name] = fit, floor
        told = f"bias of {fit.slope:.2g} at {n} images; {fit.fit_error:.1g} by the scatter about the line"
        known: dict[str, Any] = {"floor_error": floor.error, "freedom": groups - 1, "judged": False}
        known["note"] = "; ".join(filter(None, (told, note)))
        figures.append(Figure(title, fit.value, fit.error, floor.value, n, protocol, **known))
    if not fits:
        return Evaluation(figures)
    every = [fit for pair in fits.values() for fit in pair]
    shape = (len(fits), len(COMPARED))
    numbers = {key: [getattr(fit, key) for fit in every] for key in ("value", "error", "slope")}
    curves: dict[str, Any] = {
        f"ladder_{key}": (("ladder", "compared"), np.reshape(x, shape)) for key, x in numbers.items()
    }
    for key in ("sizes", "distances"):
        rungs = [
            np.pad(x := getattr(fit, key).astype(float), (0, _RUNGS - len(x)), constant_values=np.nan) for fit in every
        ]
        curves[f"ladder_{key}"] = (("ladder", "compared", "rung"), np.reshape(rungs, (*shape, _RUNGS)))
    curves["ladder_name"] = ("ladder", np.array(list(fits), dtype=object))
    return Evaluation(figures, xr.Dataset(curves))


def kernel(sets: Sets) -> Evaluation:
    """Measure kernel distances: the squared discrepancy of a cubic kernel, without bias and so of either sign."""
    protocol = f"squared MMD, kernel (x . y / d + 1)^3, all pairs of {_PAIRS} at most"
    return Evaluation(
        [
            sets.figure(f"KID[{space.name}]", squared_mmd, values, f"{space.protocol}; {protocol}")
            for space, values in _few(sets)
        ]
    )


def kernel_subsets(sets: Sets) -> Evaluation:
    """Measure kernel distances as they are published, as means over random subsets."""
    figures = []
    for space in sets.spaces:
        # Of halves the spread is the error of the whole, or somewhat more where both are of one population.
        values = {name: rows[: 2 * _SUBSET] for name, rows in sets.features(space).items()}
        n = len(values["real"])
        size, title = n // 2, f"KID_subsets[{space.name}]"
        protocol = f"{space.protocol}; squared MMD, kernel (x . y / d + 1)^3, {sets.draws} subsets of {size} of {n}"
        if n < sets.minimum:
            figures.append(Figure.too_few(title, n, protocol, needed=sets.minimum, ideal=0.0))
            continue
        drawn: dict[str, Any] = {"subsets": sets.draws, "subset_size": size}
        mean, floor = (kernel_distance(values["real"], values[which], **drawn) for which in COMPARED)
        known: dict[str, Any] = {"floor_error": floor.std, "freedom": sets.draws - 1, "judged": False}
        figures.append(Figure(title, mean.value, mean.std, floor.value, n, protocol, **known))
    return Evaluation(figures)


def energy(sets: Sets) -> Evaluation:
    """Measure energy distances of the joint distributions."""
    protocol = f"energy distance of the joint distribution, {_PAIRS} at most"
    return Evaluation(
        [
            sets.figure(f"energy[{space.name}]", energy_distance, values, f"{space.protocol}; {protocol}")
            for space, values in _few(sets)
        ]
    )


def fidelity(sets: Sets) -> Evaluation:
    """Measure precision, recall, density and coverage."""
    protocol = f"balls to neighbor {_NEIGHBOR}, {_PAIRS} at most"
    names = ("precision", "recall", "density", "coverage")
    figures = []
    for space, values in _few(sets):
        figures += sets.figures(
            [f"{name}[{space.name}]" for name in names],
            # The statistic has the real ones first; a double's nearest neighbor would be itself.
            lambda a, b: precision_recall(b, a, k=_NEIGHBOR),
            values,
            f"{space.protocol}; {protocol}",
            ideal=None,
            doubles=False,
        )
    return Evaluation(figures)


def distributions(sets: Sets) -> Evaluation:
    """Measure Wasserstein distances of every physical feature alone."""
    features = sets.measured(sets.spaces[0])
    spread = features["real"].std(axis=0).clip(1e-12)
    protocol = f"{PROTOCOL}, Wasserstein-1 over the real standard deviation"
    figures = []
    for column, feature in enumerate(FEATURES):
        one = {name: f[:, [column]] / spread[column] for name, f in features.items()}
        figures.append(sets.figure(f"W1_{feature}", _wasserstein, one, protocol))
    stacked = (("set", "sample", "feature"), np.stack(list(features.values())))
    return Evaluation(figures, xr.Dataset({"features": stacked}))


def _clouds(sets: Sets) -> Iterator[tuple[str, FeatureSpace, int, str]]:
    """Yield what Fréchet distances are of: a name, a space, how many of its features, and a note."""
    for space in sets.spaces:
        if space.name == PROTOCOL:
            yield "FD_shape", space, len(SHAPE), "without the sky features"
            yield "FD_all", space, len(FEATURES), "with sky noise, roughness and sky level"
        else:
            yield f"FD[{space.name}]", space, space.width, ""


def _few(sets: Sets) -> Iterator[tuple[FeatureSpace, dict[str, np.ndarray]]]:
    for space in sets.spaces:
        yield space, {name: values[:_PAIRS] for name, values in sets.features(space).items()}


def _first(width: int) -> Statistic:
    return lambda a, b: frechet_distance(a[:, :width], b[:, :width])


def _wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    return float(wasserstein_distance(a, b)[0])

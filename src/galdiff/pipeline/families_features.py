"""Families over feature spaces: how far two clouds of points are from each other."""

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
    energy_distance,
    frechet_distance,
    precision_recall,
    squared_mmd,
    wasserstein_distance,
)
from galdiff.metrics.frechet import MINIMUM_PER_DIMENSION
from galdiff.pipeline.sets import Evaluation, Sets, Statistic

__all__ = ["distributions", "energy", "fidelity", "frechet", "kernel"]

_PAIRS = 1000
"""Images of a set whose pairs are looked at: their cost is the square."""
_NEIGHBOR = 5
_WIDE = 512
"""Features beyond which few runs hold out enough images."""
_MORE = "galdiff evaluate --limit takes so many of larger folders, without --train twice the real ones; KID takes fewer"


def frechet(sets: Sets) -> Evaluation:
    """Measure Fréchet distances in every feature space; of the physical ones without and with the sky."""
    figures = []
    for space in sets.spaces:
        features = sets.features(space)
        wanted = [(f"FD[{space.name}]", space.width, "")]
        if space.name == PROTOCOL:
            wanted = [
                ("FD_shape", len(SHAPE), "without the sky features"),
                ("FD_all", len(FEATURES), "with sky noise, roughness and sky level"),
            ]
        for name, width, note in wanted:
            known: dict[str, Any] = {"needed": MINIMUM_PER_DIMENSION * width, "note": note}
            known["remedy"] = _MORE if width > _WIDE else ""
            figures.append(sets.figure(name, _first(width), features, space.protocol, **known))
    return Evaluation(figures)


def kernel(sets: Sets) -> Evaluation:
    """Measure kernel distances: the squared discrepancy of a cubic kernel, without bias and so of either sign."""
    protocol = f"squared MMD, kernel (x . y / d + 1)^3, all pairs of {_PAIRS} at most"
    return Evaluation(
        [
            sets.figure(f"KID[{space.name}]", squared_mmd, values, f"{space.protocol}; {protocol}")
            for space, values in _few(sets)
        ]
    )


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


def _few(sets: Sets) -> Iterator[tuple[FeatureSpace, dict[str, np.ndarray]]]:
    for space in sets.spaces:
        yield space, {name: values[:_PAIRS] for name, values in sets.features(space).items()}


def _first(width: int) -> Statistic:
    return lambda a, b: frechet_distance(a[:, :width], b[:, :width])


def _wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    return float(wasserstein_distance(a, b)[0])

"""Families of figures: each measures one thing of all sets.

A family is a function of `Sets` that returns an `Evaluation`; what is in `FAMILIES` is what an evaluation holds, in
the order in which the report shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics import (
    FEATURES,
    PROTOCOL,
    SHAPE,
    frechet_distance,
    high_frequency_power,
    power_spectrum,
    radial_profile,
)
from galdiff.metrics.frechet import MINIMUM_PER_DIMENSION
from galdiff.pipeline.sets import SETS, Evaluation, Sets, Statistic

__all__ = ["FAMILIES", "Family"]

Family = Callable[[Sets], Evaluation]
"""Measures one thing of all sets."""


def _frechet(sets: Sets) -> Evaluation:
    """Fréchet distances in every feature space; of the physical ones without and with the sky."""
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
            needed = MINIMUM_PER_DIMENSION * width
            figures.append(sets.figure(name, _first(width), features, space.protocol, needed=needed, note=note))
    return Evaluation(figures)


def _power(sets: Sets) -> Evaluation:
    """Power above half the Nyquist frequency: grain and resolution."""
    power = sets.map(lambda images: high_frequency_power(images).mean(axis=1, keepdims=True))
    protocol = "mean |FFT|^2 above half Nyquist, generated over real"
    figure = sets.figure("power_above_half_Nyquist", _ratio, power, protocol, ideal=1.0, note="1 is right")
    return Evaluation([figure])


def _profile(sets: Sets) -> Evaluation:
    return _curves(
        sets, "profile", "radius", "pixel", lambda images: _axis(radial_profile(images), "radius", "profile")
    )


def _spectrum(sets: Sets) -> Evaluation:
    def measure(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _axis(power_spectrum(images, window="hann"), "k", "power")

    return _curves(sets, "spectrum", "k", "rad / pixel", measure)


def _axis(measured: xr.Dataset, axis: str, curve: str) -> tuple[np.ndarray, np.ndarray]:
    return measured[axis].to_numpy(), measured[curve].to_numpy()


def _curves(sets: Sets, name: str, axis: str, unit: str, measure: Callable[[np.ndarray], Any]) -> Evaluation:
    """Difference of mean curves, with their means and the range of the middle 68 %."""
    measured = sets.map(measure)
    data = {which: curve for which, (_, curve) in measured.items()}
    flat = {which: curve.reshape(len(curve), -1) for which, curve in data.items()}
    protocol = f"rms fractional difference of the mean {name}, all bands"
    dims = ("set", "band", axis)
    curves: dict[str, Any] = {f"{name}_{axis}": (axis, measured["real"][0], {"units": unit})}
    curves[name] = (dims, np.stack([data[which].mean(axis=0) for which in SETS]))
    for label, q in (("low", 0.16), ("high", 0.84)):
        curves[f"{name}_{label}"] = (dims, np.stack([np.quantile(data[which], q, axis=0) for which in SETS]))
    return Evaluation([sets.figure(f"{name}_difference", _fractional, flat, protocol)], xr.Dataset(curves))


def _distributions(sets: Sets) -> Evaluation:
    """Wasserstein distances of every physical feature alone."""
    features = sets.measured(sets.spaces[0])
    spread = features["real"].std(axis=0).clip(1e-12)
    protocol = f"{PROTOCOL}, Wasserstein-1 over the real standard deviation"
    figures = []
    for column, feature in enumerate(FEATURES):
        one = {name: f[:, [column]] / spread[column] for name, f in features.items()}
        figures.append(sets.figure(f"W1_{feature}", _wasserstein, one, protocol))
    stacked = (("set", "sample", "feature"), np.stack([features[which] for which in SETS]))
    return Evaluation(figures, xr.Dataset({"features": stacked}))


FAMILIES: tuple[Family, ...] = (_frechet, _power, _profile, _spectrum, _distributions)
"""What an evaluation measures."""


def _first(width: int) -> Statistic:
    return lambda a, b: frechet_distance(a[:, :width], b[:, :width])


def _ratio(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.mean() / b.mean())


def _fractional(a: np.ndarray, b: np.ndarray) -> float:
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    scale = np.maximum(np.abs(mean_b), 1e-3 * np.abs(mean_b).max())
    return float(np.sqrt(np.mean(((mean_a - mean_b) / scale) ** 2)))


def _wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein-1 distance of two samples of the same size: sorted values are each other's partners."""
    return float(np.abs(np.sort(a[:, 0]) - np.sort(b[:, 0])).mean())

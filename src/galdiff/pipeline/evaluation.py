"""Figures: every statistic of generated against held-out real images, beside that of two real sets of the same size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics import (
    FEATURES,
    PROTOCOL,
    SHAPE,
    Whitening,
    frechet_distance,
    high_frequency_power,
    physical_features,
    power_spectrum,
    radial_profile,
)
from galdiff.metrics.figure import Figure
from galdiff.metrics.frechet import MINIMUM_PER_DIMENSION

__all__ = ["Evaluation", "Figure", "evaluate"]

_SETS = ("real", "generated", "floor")


@dataclass(frozen=True)
class Evaluation:
    """Figures, and the curves behind them as an xarray Dataset."""

    figures: list[Figure]
    curves: xr.Dataset


def evaluate(
    train: np.ndarray,
    held_out: np.ndarray,
    generated: np.ndarray,
    *,
    bands: tuple[str, ...],
    seed: int = 0,
    draws: int = 20,
    minimum: int = 50,
) -> Evaluation:
    """Compare generated with held-out real images.

    Parameters
    ----------
    train, held_out, generated : numpy.ndarray
        Pixel values ``(n, band, y, x)``.
    bands : tuple of str
        Names of the bands.
    seed : int
        Of the training subset for the floor and of the bootstrap.
    draws : int
        Bootstrap draws.
    minimum : int
        Images below which a mean curve is "too few".

    Returns
    -------
    Evaluation
        FD_shape and FD_all (whitened by the training split, clipped at 5 standard deviations), the power above half
        the Nyquist frequency, the radial profile and the power spectrum.
    """
    rng = np.random.default_rng(seed)
    n = min(len(held_out), len(generated), len(train))
    sample = train[rng.permutation(len(train))]
    sets = {"real": held_out[:n], "generated": generated[:n], "floor": sample[:n]}
    features = {name: physical_features(images) for name, images in sets.items()}
    whiten = Whitening.fit(physical_features(sample[:5000]))
    whitened = {name: whiten(f) for name, f in features.items()}
    protocol = f"{PROTOCOL}, whitened by the training split, clipped at 5 sigma"
    figures = []
    for name, width in (("FD_shape", len(SHAPE)), ("FD_all", len(FEATURES))):
        statistic = _frechet(width)
        note = "without the sky features" if width == len(SHAPE) else "with sky noise, roughness and sky level"
        needed = MINIMUM_PER_DIMENSION * width
        figures.append(_figure(name, statistic, whitened, protocol, needed, note, rng, draws))
    power = {name: high_frequency_power(images).mean(axis=1, keepdims=True) for name, images in sets.items()}
    protocol = "mean |FFT|^2 above half Nyquist, generated over real"
    figures.append(_figure("power_above_half_Nyquist", _ratio, power, protocol, minimum, "1 is right", rng, draws))
    curves: dict[str, Any] = {}
    radius, profiles = _curves(sets, lambda x: radial_profile(x)[:2])
    k, spectra = _curves(sets, lambda x: power_spectrum(x, window="hann")[:2])
    for name, axis, values, data, unit, coordinate in (
        ("profile", "radius", radius, profiles, "pixel", "profile_radius"),
        ("spectrum", "k", k, spectra, "rad / pixel", "spectrum_k"),
    ):
        flat = {which: curve.reshape(len(curve), -1) for which, curve in data.items()}
        protocol = f"rms fractional difference of the mean {name}, all bands"
        figures.append(_figure(f"{name}_difference", _fractional, flat, protocol, minimum, "", rng, draws))
        curves[coordinate] = (axis, values, {"units": unit})
        curves[name] = (("set", "band", axis), np.stack([data[which].mean(axis=0) for which in _SETS]))
        for label, q in (("low", 0.16), ("high", 0.84)):
            stacked = np.stack([np.quantile(data[which], q, axis=0) for which in _SETS])
            curves[f"{name}_{label}"] = (("set", "band", axis), stacked)
    spread = {name: f / features["real"].std(axis=0).clip(1e-12) for name, f in features.items()}
    for column, feature in enumerate(FEATURES):
        one = {name: f[:, [column]] for name, f in spread.items()}
        label = f"{PROTOCOL}, Wasserstein-1 over the real standard deviation"
        figures.append(_figure(f"W1_{feature}", _wasserstein, one, label, minimum, "", rng, draws))
    curves["features"] = (("set", "sample", "feature"), np.stack([features[which] for which in _SETS]))
    names = {"set": _SETS, "band": bands, "feature": FEATURES}
    # Variable-length text: the fixed-width kind has no Zarr v3 specification.
    coords = {axis: np.asarray(labels, dtype=object) for axis, labels in names.items()}
    return Evaluation(figures, xr.Dataset(curves, coords=coords))


Statistic = Callable[[np.ndarray, np.ndarray], float]


def _figure(
    name: str,
    statistic: Statistic,
    values: dict[str, np.ndarray],
    protocol: str,
    needed: int,
    note: str,
    rng: np.random.Generator,
    draws: int,
) -> Figure:
    n = len(values["real"])
    if n < needed:
        note = f"{n} images, {needed} needed"
        return Figure(name, None, None, None, n, protocol, status="too few", note=note)
    real, generated = values["real"], values["generated"]
    picks = [(rng.integers(0, n, n), rng.integers(0, n, n)) for _ in range(draws)]
    error = float(np.std([statistic(generated[i], real[j]) for i, j in picks]))
    return Figure(name, statistic(generated, real), error, statistic(values["floor"], real), n, protocol, note=note)


def _frechet(width: int) -> Statistic:
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


def _curves(
    sets: dict[str, np.ndarray], measure: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    axis, data = np.empty(0), {}
    for name, images in sets.items():
        axis, data[name] = measure(images)
    return axis, data

"""Families of curves: mean profiles and spectra, and whether whole sets of them differ by more than chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics import (
    Figure,
    arc_residual_spectrum,
    high_frequency_power,
    power_spectrum,
    radial_profile,
    two_sample_test,
)
from galdiff.pipeline.sets import SETS, Evaluation, Sets

__all__ = ["power", "profile", "residual_spectrum", "spectrum", "two_samples"]

_PERMUTATIONS = 1999
_AXES = {"profile": "radius", "spectrum": "k", "residual_spectrum": "k"}
_UNITS = {"radius": "pixel", "k": "rad / pixel"}


def power(sets: Sets) -> Evaluation:
    """Measure the power above half the Nyquist frequency: grain and resolution."""
    values = sets.map(lambda images: high_frequency_power(images).mean(axis=1, keepdims=True))
    protocol = "mean |FFT|^2 above half Nyquist, generated over real"
    figure = sets.figure("power_above_half_Nyquist", _ratio, values, protocol, ideal=1.0, note="1 is right")
    return Evaluation([figure])


def profile(sets: Sets) -> Evaluation:
    """Compare mean radial profiles."""
    return _curves(sets, "profile")


def spectrum(sets: Sets) -> Evaluation:
    """Compare mean power spectra."""
    return _curves(sets, "spectrum")


def residual_spectrum(sets: Sets) -> Evaluation:
    """Compare mean power spectra of what axisymmetric profiles leave: arms, bars, clumps, substructure of arcs."""
    return _curves(sets, "residual_spectrum")


def two_samples(sets: Sets) -> Evaluation:
    """Test whether profiles, spectra and physical features are of one distribution."""
    of = {name: _measured(sets, name) for name in ("profile", "spectrum")}
    values = {which: {name: _flat(of[name][which][1]) for name in of} for which in SETS}
    for which, features in sets.features(sets.spaces[0]).items():
        values[which]["features"] = features
    names, n = list(values["real"]), len(values["real"]["features"])
    protocol = f"smallest p of three tests by {_PERMUTATIONS} relabelings, corrected for all {3 * len(names)} by Holm"
    if n < sets.minimum:
        return Evaluation([Figure.too_few(f"p[{name}]", n, protocol, needed=sets.minimum) for name in names])
    found = two_sample_test(
        values["generated"], values["real"], permutations=_PERMUTATIONS, bootstrap=200, seed=sets.seed
    )
    note = "not a distance: below 0.01 the sets differ by more than chance, however little; above, so many do not tell"
    p = found["p_adjusted"].min("test")
    figures = [
        Figure(f"p[{name}]", float(p.sel(statistic=name)), None, None, n, protocol, note=note, ideal=None)
        for name in names
    ]
    z = {name: found["z"][found["bin_statistic"] == name].to_numpy() for name in of}
    curves = {f"{name}_z": (("band", _AXES[name]), z[name].reshape(of[name]["real"][1].shape[1:])) for name in of}
    return Evaluation(figures, xr.Dataset(curves))


def _measured(sets: Sets, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Axis and curves ``(sample, band, axis)`` of every set."""
    measure = {
        "profile": lambda images: _axis(radial_profile(images), "radius", "profile"),
        "spectrum": lambda images: _axis(power_spectrum(images, window="hann"), "k", "power"),
        "residual_spectrum": lambda images: _axis(arc_residual_spectrum(images), "k", "power"),
    }[name]
    return sets.once(name, measure)


def _axis(measured: xr.Dataset, axis: str, curve: str) -> tuple[np.ndarray, np.ndarray]:
    return measured[axis].to_numpy(), measured[curve].to_numpy()


def _curves(sets: Sets, name: str) -> Evaluation:
    """Difference of mean curves, with their means and the range of the middle 68 %."""
    measured, axis = _measured(sets, name), _AXES[name]
    data = {which: curve for which, (_, curve) in measured.items()}
    flat = {which: _flat(curve) for which, curve in data.items()}
    protocol = f"rms fractional difference of the mean {name.replace('_', ' ')}, all bands"
    dims = ("set", "band", axis)
    curves: dict[str, Any] = {f"{name}_{axis}": (axis, measured["real"][0], {"units": _UNITS[axis]})}
    curves[name] = (dims, np.stack([data[which].mean(axis=0) for which in SETS]))
    for label, q in (("low", 0.16), ("high", 0.84)):
        curves[f"{name}_{label}"] = (dims, np.stack([np.quantile(data[which], q, axis=0) for which in SETS]))
    return Evaluation([sets.figure(f"{name}_difference", _fractional, flat, protocol)], xr.Dataset(curves))


def _flat(curves: np.ndarray) -> np.ndarray:
    return curves.reshape(len(curves), -1)


def _ratio(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.mean() / b.mean())


def _fractional(a: np.ndarray, b: np.ndarray) -> float:
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    scale = np.maximum(np.abs(mean_b), 1e-3 * np.abs(mean_b).max())
    return float(np.sqrt(np.mean(((mean_a - mean_b) / scale) ** 2)))

"""Families of objects: the morphology of galaxies, the rings of lenses, and what cannot be measured of them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from galdiff.judges import fit_sie
from galdiff.metrics import Figure, einstein_radius, morphology, wasserstein_distance
from galdiff.pipeline.sets import SETS, Evaluation, Sets

__all__ = ["MORPHOLOGY", "ellipsoids", "rings", "shapes"]

MORPHOLOGY = (
    "gini",
    "m20",
    "concentration",
    "asymmetry",
    "smoothness",
    "sersic_index",
    "ellipticity",
    "petrosian_radius",
    "color",
)
"""Statistics of `galdiff.metrics.morphology` that are compared."""
_ELLIPSOID = {"einstein_radius": ("einstein_radius",), "ellipticity": ("e1", "e2"), "shear": ("gamma1", "gamma2")}
_FWHM = 2.0  # [pixel] of well-sampled images, where it is not known; the same for all sets
_MEASURED = 512
"""Images of a set that are measured: one takes five milliseconds."""


def shapes(sets: Sets) -> Evaluation:
    """Measure Wasserstein distances of morphology, and the share of objects that have none."""
    measured = {which: morphology(sets.images[which][:_MEASURED]) for which in SETS}
    protocol = f"morphology-1, {_MEASURED} at most"
    bad = {which: (m["flag"] == 2).to_numpy()[:, None].astype(float) for which, m in measured.items()}
    figures = [_share(sets, "flagged_fraction", bad, f"{protocol}, share of objects that cannot be measured")]
    table = {which: _table(m) for which, m in measured.items()}
    for column, name in enumerate(MORPHOLOGY):
        if name == "color" and len(sets.bands) < 2:
            continue
        values = {which: rows[:, column] for which, rows in table.items()}
        figures.append(_distance(sets, f"W1_morphology[{name}]", values, protocol))
    # As long as the other columns of a sample.
    more = len(sets.images["real"]) - len(table["real"])
    padded = [np.pad(table[which], ((0, more), (0, 0)), constant_values=np.nan) for which in SETS]
    return Evaluation(figures, xr.Dataset({"morphology": (("set", "sample", "statistic"), np.stack(padded))}))


def rings(sets: Sets) -> Evaluation:
    """Measure the radii of lensed rings, and how many have one; nothing of other images."""
    if not sets.lenses:
        return Evaluation([])
    measured = sets.map(einstein_radius)
    radius = {which: m["einstein_radius"].to_numpy() for which, m in measured.items()}
    found = {which: np.isfinite(values)[:, None].astype(float) for which, values in radius.items()}
    protocol = "maximum of the azimuthally averaged profile about the middle of the stamp [pixel]"
    figures = [
        _share(sets, "ring_found", found, f"{protocol}, share where it stands out"),
        _distance(sets, "W1_einstein_radius", radius, protocol),
    ]
    stacked = (("set", "sample"), np.stack([radius[which] for which in SETS]), {"units": "pixel"})
    return Evaluation(figures, xr.Dataset({"einstein_radius": stacked}))


def ellipsoids(sets: Sets) -> Evaluation:
    """Fit isothermal ellipsoids to some lenses (`galdiff.judges.fit_sie`); nothing of other images."""
    if not sets.lenses or not sets.ellipsoids:
        return Evaluation([])
    fits = {which: fit_sie(sets.images[which][: sets.ellipsoids], pixel_scale=1, psf_fwhm=_FWHM) for which in SETS}
    good = {which: (fit["flag"] == 0).to_numpy() for which, fit in fits.items()}
    protocol = f"singular isothermal ellipsoid with shear, PSF of {_FWHM:g} pixels, {sets.ellipsoids} at most"
    shares = {which: found[:, None].astype(float) for which, found in good.items()}
    figures = [_share(sets, "sie_fitted", shares, f"{protocol}, share of fits that converge within their limits")]
    for name, columns in _ELLIPSOID.items():
        size = {which: np.hypot.reduce([fit[c].to_numpy() for c in columns]) for which, fit in fits.items()}
        values = {which: np.where(good[which], x, np.nan) for which, x in size.items()}
        figures.append(_distance(sets, f"W1_sie[{name}]", values, protocol))
    return Evaluation(figures)


def _table(measured: xr.Dataset) -> np.ndarray:
    """Return ``(sample, statistic)``, NaN where a measurement is bad."""
    columns = [measured[name].where(measured["flag"] < 2) for name in MORPHOLOGY]
    sound = measured["sersic_flag"] < 2
    columns = [c.where(sound) if c.name == "sersic_index" else c for c in columns]
    return np.stack([c.to_numpy() for c in columns], axis=1)


def _share(sets: Sets, name: str, values: dict[str, np.ndarray], protocol: str) -> Figure:
    note = "the floor is the share of real images"
    return sets.figure(name, lambda a, b: float(a.mean()), values, protocol, ideal=None, note=note)


def _distance(sets: Sets, name: str, values: dict[str, np.ndarray], protocol: str) -> Figure:
    """Wasserstein distance of the measurements that there are."""
    kept = {which: column[np.isfinite(column), None] for which, column in values.items()}
    spread = max(float(kept["real"].std()), 1e-12) if len(kept["real"]) else 1.0
    scaled = {which: column / spread for which, column in kept.items()}
    protocol = f"{protocol}; Wasserstein-1 over the real standard deviation"
    return sets.figure(name, lambda a, b: float(wasserstein_distance(a, b)[0]), scaled, protocol)

"""Ellipsoids that are fitted to some of the lenses of an evaluation; that fits are right is tested with the judges."""

import numpy as np
import pytest
import xarray as xr

from galdiff.pipeline import families_objects
from galdiff.pipeline.families_objects import ellipsoids
from galdiff.pipeline.sets import Sets

COLUMNS = ("einstein_radius", "e1", "e2", "gamma1", "gamma2")


def fit(images, *, pixel_scale, psf_fwhm):
    """Read the parameters that the first pixels hold; a lens without light has no fit."""
    assert (len(images), pixel_scale) == (60, 1)
    values = images[:, 0, 0, : len(COLUMNS)].T
    data = {name: ("sample", column) for name, column in zip(COLUMNS, values, strict=True)}
    return xr.Dataset(data | {"flag": ("sample", (images.sum(axis=(1, 2, 3)) == 0).astype(int))})


def lenses(n, seed, *, radius=8.0, dark=0):
    images = np.zeros((n, 1, 16, 16))
    images[:, 0, 0, :5] = np.random.default_rng(seed).normal([radius, 0, 0, 0, 0], [1, 0.1, 0.1, 0.05, 0.05], (n, 5))
    images[:dark] = 0
    return images


def figures(monkeypatch, generated, **options):
    monkeypatch.setattr(families_objects, "fit_sie", fit)
    images = {"real": lenses(80, 0), "generated": generated, "floor": lenses(80, 1)}
    sets = Sets(images, (), ("flux",), **{"lenses": True, "ellipsoids": 60, **options})
    return {f.name: f for f in ellipsoids(sets).figures}


def test_lenses_of_one_population_pass_and_larger_ones_fail(monkeypatch):
    good = figures(monkeypatch, lenses(80, 2))
    assert {f.verdict(4.0) for f in good.values()} == {"pass"}
    assert good["sie_fitted"].value == 1
    large = figures(monkeypatch, lenses(80, 2, radius=11.0))
    assert large["W1_sie[einstein_radius]"].verdict(4.0) == "fail"
    assert large["W1_sie[shear]"].verdict(4.0) == "pass"


def test_what_cannot_be_fitted_is_counted_and_left_out(monkeypatch):
    found = figures(monkeypatch, lenses(80, 2, dark=9))
    assert found["sie_fitted"].value == pytest.approx(51 / 60)
    assert found["W1_sie[einstein_radius]"].n == 51


def test_other_images_are_not_fitted(monkeypatch):
    assert not figures(monkeypatch, lenses(80, 2), lenses=False)
    assert not figures(monkeypatch, lenses(80, 2), ellipsoids=0)

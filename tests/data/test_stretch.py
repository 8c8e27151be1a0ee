"""Stretches: invertible, monotone, the same on arrays and tensors."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from galdiff.data import Asinh, Linear, Sqrt, Stretch
from galdiff.errors import DataError

FITTED = [Linear(0.0, 1.0), Linear(-3.0, 700.0), Sqrt(1.0), Sqrt(2.5e4), Asinh([0.02, 0.3], [5.0, 80.0])]
FITTED += [Asinh([1e-13, 1e-12], [1e-10, 1e-9])]


def scale(stretch):
    return np.max(
        {Linear: lambda: stretch.high, Sqrt: lambda: stretch.scale, Asinh: lambda: stretch.high}[type(stretch)]()
    )


@pytest.mark.parametrize("stretch", FITTED, ids=lambda s: json.dumps(s.to_dict()))
class TestFitted:
    @given(values=arrays(np.float32, (2, 2, 3, 3), elements=st.floats(-0.5, 1.5, width=32)))
    def test_the_inverse_gives_pixel_values_back(self, stretch, values):
        pixels = values * np.float32(scale(stretch))
        stretched = stretch(pixels)
        assert stretched.dtype == np.float32
        np.testing.assert_allclose(stretch.inverse(stretched), pixels, rtol=1e-5, atol=1e-5 * scale(stretch))

    @given(values=arrays(np.float32, (1, 2, 4, 4), elements=st.floats(-1, 2, width=32)))
    def test_tensors_are_stretched_as_arrays_are(self, stretch, values):
        pixels = values * np.float32(scale(stretch))
        np.testing.assert_allclose(stretch(torch.from_numpy(pixels)).numpy(), stretch(pixels), rtol=1e-5, atol=1e-6)
        x = stretch(pixels)
        np.testing.assert_allclose(
            stretch.inverse(torch.from_numpy(x)).numpy(), stretch.inverse(x), rtol=1e-4, atol=1e-5 * scale(stretch)
        )

    def test_brighter_stays_brighter(self, stretch):
        pixels = np.linspace(-1, 2, 999, dtype=np.float32)[:, None, None, None] * scale(stretch)
        assert (np.diff(stretch(np.broadcast_to(pixels, (999, 2, 1, 1))), axis=0) > 0).all()

    def test_the_bright_end_is_one(self, stretch):
        top = np.asarray(getattr(stretch, "high", None) or stretch.scale, np.float32).reshape(1, -1, 1, 1)
        np.testing.assert_allclose(stretch(np.broadcast_to(top, (1, 2, 1, 1)).copy()), 1, atol=1e-6)

    def test_its_description_builds_it_again(self, stretch):
        again = Stretch.from_dict(json.loads(json.dumps(stretch.to_dict())))
        assert again.to_dict() == stretch.to_dict()
        assert type(again) is type(stretch)


@pytest.mark.parametrize("kind", ["linear", "sqrt", "asinh"])
class TestFit:
    def pixels(self):
        random = np.random.default_rng(0)
        light = random.exponential(50, (40, 2, 16, 16)) * (random.random((40, 2, 16, 16)) < 0.2)
        return (random.normal(0, 2, light.shape) + light).astype(np.float32)

    def test_it_brings_the_light_to_the_networks_range(self, kind):
        pixels = self.pixels()
        stretched = Stretch.from_dict({"kind": kind}).fit(pixels)(pixels)
        assert np.quantile(stretched, 0.999) == pytest.approx(1, abs=0.1)
        assert stretched.min() > -2

    def test_a_fitted_one_stays_as_it_is(self, kind):
        fitted = Stretch.from_dict({"kind": kind}).fit(self.pixels())
        assert fitted.fit(10 * self.pixels()).to_dict() == fitted.to_dict()

    def test_one_that_is_not_fitted_says_so(self, kind):
        with pytest.raises(DataError, match="not fitted"):
            Stretch.from_dict({"kind": kind})(self.pixels())

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, kind, bad):
        pixels = self.pixels()
        pixels[3, 1, 2, 2] = bad
        with np.errstate(invalid="ignore"), pytest.raises(DataError, match="not finite"):
            Stretch.from_dict({"kind": kind}).fit(pixels)


def test_an_image_of_nothing_has_no_linear_or_square_root_stretch():
    for kind in ("linear", "sqrt"):
        with pytest.raises(DataError):
            Stretch.from_dict({"kind": kind}).fit(np.zeros((3, 1, 8, 8), np.float32))
    dark = Stretch.from_dict({"kind": "asinh"}).fit(np.zeros((3, 1, 8, 8), np.float32))
    assert np.isfinite(dark(np.zeros((1, 1, 8, 8), np.float32))).all()


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(DataError, match="unknown stretch 'log'") as caught:
        Stretch.from_dict({"kind": "log"})
    assert "asinh" in caught.value.remedy

"""Stretches: invertible, monotone, the same on arrays and tensors."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from galdiff.data import Asinh, Linear, Log, Percentile, Sqrt, Stretch
from galdiff.errors import DataError

FITTED = [Linear(0.0, 1.0), Linear(-3.0, 700.0), Sqrt(1.0), Sqrt(2.5e4), Asinh([0.02, 0.3], [5.0, 80.0])]
FITTED += [Asinh([1e-13, 1e-12], [1e-10, 1e-9]), Percentile([-0.1, 3.0], [5.0, 90.0])]
KINDS = ["linear", "sqrt", "asinh", "log", "percentile"]


def scale(stretch):
    return np.max(stretch.scale if isinstance(stretch, Sqrt) else stretch.high)


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


@pytest.mark.parametrize("kind", KINDS)
class TestFit:
    def pixels(self):
        random = np.random.default_rng(0)
        light = random.exponential(50, (40, 2, 16, 16)) * (random.random((40, 2, 16, 16)) < 0.2)
        return (random.normal(0, 2, light.shape) + light).astype(np.float32)

    def test_it_brings_the_light_to_the_networks_range(self, kind):
        pixels = self.pixels()
        stretched = Stretch.from_dict({"kind": kind}).fit(pixels)(pixels)
        share = 0.995 if kind == "percentile" else 0.999
        assert np.quantile(stretched, share) == pytest.approx(1, abs=0.1)
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
    with pytest.raises(DataError, match="unknown stretch 'cube'") as caught:
        Stretch.from_dict({"kind": "cube"})
    assert all(kind in caught.value.remedy for kind in KINDS)


def softening(stretch):
    """Below this the law is absolute: the softening, or of linear stretches and the square root the range."""
    if isinstance(stretch, Sqrt):
        return np.array(stretch.scale)
    if isinstance(stretch, Linear):
        return np.array(max(abs(stretch.low), abs(stretch.high)))
    if isinstance(stretch, Percentile):
        return np.maximum(np.abs(stretch.low), np.abs(stretch.high))[:, None, None]
    return np.asarray(stretch.softening)[:, None, None]


class TestPrecision:
    """|x' - x| <= 1e-5 max(|x|, softening) in float32, at any scale and far beyond what was fitted."""

    @pytest.mark.parametrize("as_type", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
    @pytest.mark.parametrize("kind", KINDS)
    @given(
        exponents=st.tuples(st.floats(-11, 5), st.floats(-11, 5)),
        factor=st.floats(1e-9, 1e9),
        pedestal=st.sampled_from([0.0, 30.0]),
        seed=st.integers(0, 99),
    )
    def test_there_and_back(self, kind, as_type, exponents, factor, pedestal, seed):
        rng = np.random.default_rng(seed)
        unit = 10.0 ** np.array(exponents)[None, :, None, None]
        train = unit * (pedestal + rng.normal(0, 1, (4, 2, 12, 12)) + 30 * rng.exponential(1, (4, 2, 12, 12)) ** 3)
        stretch = Stretch.from_dict({"kind": kind}).fit(train.astype(np.float32))
        stretch = Stretch.from_dict(json.loads(json.dumps(stretch.to_dict())))
        new = np.concatenate([train, factor * train, np.zeros_like(train)]).astype(np.float32)
        if kind == "log":
            new = np.maximum(new, np.float32(-0.9) * softening(stretch).astype(np.float32))
        back = np.asarray(stretch.inverse(stretch(as_type(new))), dtype=np.float64)
        assert (np.abs(back - new) <= 1e-5 * np.maximum(np.abs(new), softening(stretch))).all()


class TestLog:
    def test_its_domain_is_said_and_held_to(self):
        stretch = Log([2.0, 30.0], [50.0, 900.0])
        edge = np.array([-1.999, -29.99], np.float32).reshape(1, 2, 1, 1)
        assert np.isfinite(stretch(edge)).all()
        for outside in (np.float32([-2.0, 0.0]), np.float32([0.0, -31.0])):
            pixels = outside.reshape(1, 2, 1, 1)
            for values in (pixels, torch.from_numpy(pixels)):
                with pytest.raises(DataError, match="defined above -2, -30, and the values reach"):
                    stretch(values)

    def test_what_it_was_fitted_on_is_in_its_domain(self):
        pixels = np.random.default_rng(3).normal(0, 1, (5, 2, 9, 9)).astype(np.float32)
        pixels[0, 1, 0, 0] = -40
        assert np.isfinite(Log().fit(pixels)(pixels)).all()

    def test_it_is_the_logarithm(self):
        x = np.geomspace(1e-3, 1e4, 50, dtype=np.float32)[None, None, None]
        expected = 2 * np.log(1 + x / 0.1) / np.log(1 + 100 / 0.1) - 1
        np.testing.assert_allclose(Log([0.1], [100.0])(x), expected, atol=1e-5)


class TestPercentile:
    def test_the_percentiles_map_to_the_ends_and_nothing_is_clipped(self):
        pixels = np.random.default_rng(4).normal([[[[0]], [[50]]]], 3, (9, 2, 20, 20)).astype(np.float32)
        x = Percentile(percentiles=(10, 90)).fit(pixels)(pixels)
        np.testing.assert_allclose(np.percentile(x, [10, 90], axis=(0, 2, 3)), [[-1, -1], [1, 1]], atol=1e-5)
        assert x.max() > 1.5

    @pytest.mark.parametrize("percentiles", [(50, 50), (90, 10), (-1, 99), (1, 101)])
    def test_percentiles_that_are_none(self, percentiles):
        with pytest.raises(DataError, match="not in order"):
            Percentile(percentiles=percentiles)

    def test_a_constant_band(self):
        pixels = np.random.default_rng(5).normal(size=(3, 2, 8, 8)).astype(np.float32)
        pixels[:, 1] = 4
        with pytest.raises(DataError, match="band 1 are constant"):
            Percentile().fit(pixels)

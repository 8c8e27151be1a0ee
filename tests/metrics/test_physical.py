"""Morphology against closed forms: disks and normals have known radii, axis ratios and symmetries."""

import numpy as np
import pytest
from scipy.optimize import brentq

from galdiff.errors import DataError
from galdiff.metrics import FEATURES, SHAPE, SKY, physical_features, physical_morphology

FINE = 5  # samples of a pixel along a side


def stamp(light, size=128, bands=1):
    """Average ``light(y, x)`` over every pixel of a stamp, centered: ``(1, band, y, x)``."""
    grid = (np.arange(size * FINE) + 0.5) / FINE - size / 2
    fine = light(grid[:, None], grid[None])
    image = fine.reshape(size, FINE, size, FINE).mean(axis=(1, 3))
    return np.repeat(image[None, None], bands, axis=1)


def disk(h, q=1.0, angle=0.0, **more):
    def light(y, x):
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        return np.exp(-np.hypot(u, v / q) / h)

    return stamp(light, **more)


def normal(sigma, q=1.0, angle=0.0, **more):
    def light(y, x):
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        return np.exp(-0.5 * (u * u + (v / q) ** 2) / sigma**2)

    return stamp(light, **more)


def measure(images):
    found = physical_morphology(images)
    assert (found["flag"] == 0).all()
    return {name: float(found[name][0]) for name in found}


class TestRadii:
    def test_exponential_disk(self):
        got = measure(disk(6.0))

        def radius(share):
            return 6.0 * brentq(lambda r: 1 - (1 + r) * np.exp(-r) - share, 0, 20)

        for name, share in (("r20", 0.2), ("r50", 0.5), ("r80", 0.8)):
            assert got[name] == pytest.approx(radius(share), rel=0.01)
        assert got["concentration"] == pytest.approx(5 * np.log10(radius(0.8) / radius(0.2)), abs=0.03)

    @pytest.mark.parametrize("sigma", [3.0, 8.0])
    def test_normal(self, sigma):
        got = measure(normal(sigma))
        # The curve of growth is interpolated linearly, pixel by pixel.
        assert got["r50"] == pytest.approx(sigma * np.sqrt(2 * np.log(2)), rel=0.02)
        # The region ends where the light is a fiftieth of the peak, and so holds all but a fiftieth.
        assert np.exp(got["flux"]) == pytest.approx(2 * np.pi * sigma**2 * 0.98, rel=0.02)

    def test_brighter_is_brighter_and_nothing_else(self):
        one, other = measure(disk(4.0)), measure(np.e * disk(4.0))
        assert other.pop("flux") - one.pop("flux") == pytest.approx(1.0, abs=1e-4)
        for name in SHAPE[1:]:
            assert other[name] == pytest.approx(one[name], abs=1e-4)


class TestShape:
    @pytest.mark.parametrize("q", [0.3, 0.6, 1.0])
    def test_axis_ratio_at_any_position_angle(self, q):
        ratios, ellipticities = zip(
            *(
                (m["axis_ratio"], m["ellipticity"])
                for a in (0.0, 0.4, np.pi / 4, 2.0)
                for m in [measure(normal(8, q, a))]
            ),
            strict=True,
        )
        assert ratios == pytest.approx([q] * 4, abs=0.02)
        assert ellipticities == pytest.approx([(1 - q**2) / (1 + q**2)] * 4, abs=0.02)

    def test_symmetric_light_has_no_asymmetry(self):
        assert measure(normal(6, 0.5, 0.7))["asymmetry"] == pytest.approx(0, abs=1e-5)

    def test_asymmetry_of_a_spot_without_a_partner(self):
        spot = 0.3 * stamp(lambda y, x: np.exp(-0.5 * ((x - 20) ** 2 + y**2) / 2**2))
        image = normal(6) + spot
        # Both the spot and its hole count, over twice the light.
        assert measure(image)["asymmetry"] == pytest.approx(spot.sum() / image.sum(), rel=0.02)

    def test_gini_of_one_pixel_and_of_a_flat_disk(self):
        point = np.zeros((1, 1, 65, 65))
        point[0, 0, 32, 32] = 1.0
        assert measure(point)["gini"] == pytest.approx(1.0, abs=1e-6)
        flat = stamp(lambda y, x: (np.hypot(y, x) < 20).astype(float))
        # All pixels would be equal but for a rim a pixel or two wide.
        assert measure(flat)["gini"] < 0.15
        assert measure(disk(4.0))["gini"] > measure(normal(4.0))["gini"] > measure(flat)["gini"]

    def test_m20_tells_a_concentrated_from_a_scattered_galaxy(self):
        spots = sum(
            stamp(lambda y, x, a=a: np.exp(-0.5 * ((x - 15 * np.cos(a)) ** 2 + (y - 15 * np.sin(a)) ** 2) / 2**2))
            for a in (0.1, 2.2, 4.3)
        )
        assert measure(disk(6.0) + spots)["m20"] > measure(disk(6.0))["m20"] + 0.5

    def test_color_is_the_log_ratio_of_first_and_last_band(self):
        image = np.concatenate([3 * disk(4), 2 * disk(4), disk(4)], axis=1)
        assert measure(image)["color"] == pytest.approx(np.log(3), abs=1e-4)
        assert measure(disk(4))["color"] == 0

    @pytest.mark.parametrize("size", [64, 65])
    def test_nothing_depends_on_orientation(self, size):
        rng = np.random.default_rng(0)
        image = disk(5, 0.5, 0.6, size=size) + 0.2 * np.roll(normal(2, size=size), (5, -9), (2, 3))
        image = image + rng.normal(0, 0.01, image.shape) + 0.05
        turned = [np.rot90(m, k, (2, 3)) for m in (image, image[..., ::-1]) for k in range(4)]
        features = physical_features(np.concatenate(turned))
        np.testing.assert_allclose(features, np.broadcast_to(features[0], features.shape), rtol=1e-3, atol=1e-4)


class TestSky:
    def test_level_and_noise(self):
        rng = np.random.default_rng(1)
        images = disk(4, size=64) + rng.normal(0.1, 0.02, (20, 1, 64, 64))
        found = physical_morphology(images)
        assert float(found["sky_level"].mean()) == pytest.approx(0.1, abs=2e-3)
        assert float(found["sky_noise"].mean()) == pytest.approx(0.02, rel=0.05)
        # Of nine pixels' mean, one is the pixel itself.
        assert float(found["roughness"].mean()) == pytest.approx(0.02 * np.sqrt(8 / 9), rel=0.05)

    @pytest.mark.parametrize("value", [0.0, 0.3])
    def test_constant_images_have_no_object(self, value):
        found = physical_morphology(np.full((2, 3, 32, 32), value))
        assert (found["flag"] == 1).all()
        assert all(np.isnan(found[name]).all() for name in SHAPE)
        assert np.isfinite(found["sky_level"]).all()

    def test_pure_noise_is_mostly_not_an_object_and_always_a_number(self):
        images = np.random.default_rng(2).normal(0, 1, (200, 1, 64, 64))
        assert float(physical_morphology(images)["flag"].mean()) > 0.5
        features = physical_features(images)
        assert features.shape == (200, len(FEATURES))
        assert np.isfinite(features).all()

    def test_names(self):
        assert FEATURES == SHAPE + SKY
        assert len(FEATURES) >= 10
        assert len(set(FEATURES)) == len(FEATURES)


@pytest.mark.parametrize("bad", [np.ones((32, 32)), np.ones((0, 1, 32, 32)), np.full((1, 1, 32, 32), np.nan)])
def test_bad_images(bad):
    with pytest.raises(DataError):
        physical_morphology(bad)


@pytest.mark.parametrize("size", [1, 3])
def test_images_without_corners(size):
    with pytest.raises(DataError, match="not of 4 or more a side"):
        physical_features(np.ones((2, 1, size, size)))


def test_images_that_are_not_square():
    with pytest.raises(DataError, match="not square"):
        physical_morphology(np.ones((1, 1, 32, 33)))

"""Rings of known radius, images that have none, and residuals that are known."""

import numpy as np
import pytest
import torch

from galdiff.errors import DataError
from galdiff.metrics import arc_residual_spectrum, einstein_radius, power_spectrum

SIZE = 64
AXIS = np.arange(SIZE) - (SIZE - 1) / 2


def ring(radius, *, width=2.5, y=0.0, x=0.0, noise=0.0, n=1, seed=0):
    """Draw Gaussian rings of the given radii [pixel]."""
    r = np.hypot(AXIS[:, None] - np.reshape(y, (-1, 1, 1)), AXIS - np.reshape(x, (-1, 1, 1)))
    light = np.exp(-0.5 * ((r - np.reshape(radius, (-1, 1, 1))) / width) ** 2)
    light = np.broadcast_to(light, (max(n, len(light)), SIZE, SIZE))
    return (light + noise * np.random.default_rng(seed).normal(size=light.shape))[:, None]


class TestRing:
    def test_radii_are_found_to_a_thirtieth_of_a_pixel(self):
        radius = np.linspace(8, 24, 33)
        found = einstein_radius(ring(radius), pixel_scale=0.05)
        np.testing.assert_allclose(found["einstein_radius"], 0.05 * radius, atol=0.05 / 30)
        assert not found["flag"].any()
        assert found["einstein_radius"].attrs["units"] == "arcsec"

    def test_brightness_along_the_ring_does_not_matter(self):
        angle = np.arctan2(AXIS[:, None], AXIS)
        found = einstein_radius(ring(15.0) * (1 + 0.9 * np.cos(angle)))
        assert float(found["einstein_radius"][0]) == pytest.approx(15, abs=0.05)

    def test_errors_are_what_the_noise_does(self):
        found = einstein_radius(ring(15.3, noise=0.3, n=300))
        assert not found["flag"].any()
        scatter = float(found["einstein_radius"].std())
        assert float(found["einstein_radius_error"].median()) == pytest.approx(scatter, rel=0.3)
        stated = einstein_radius(ring(15.3, noise=0.3, n=300), noise_rms=0.3)["einstein_radius_error"]
        assert float(stated.median()) == pytest.approx(scatter, rel=0.3)

    def test_a_ring_off_the_middle_needs_its_center(self):
        y, x = np.array([3.4, -2.0]), np.array([-1.7, 4.25])
        images = ring([12.0, 14.0], y=y, x=x)
        given = einstein_radius(images, center=np.stack([y, x], axis=1) + (SIZE - 1) / 2)
        centroid = einstein_radius(images, center="centroid")
        for found in (given, centroid):
            np.testing.assert_allclose(found["einstein_radius"], [12, 14], atol=0.1)
        assert np.abs(einstein_radius(images)["einstein_radius"] - [12, 14]).max() > 0.3

    @pytest.mark.parametrize("kind", ["sky", "constant", "galaxy", "ramp"])
    def test_what_has_no_ring_is_flagged_and_has_no_radius(self, kind):
        r = np.hypot(AXIS[:, None], AXIS)
        images = {
            "sky": np.random.default_rng(0).normal(size=(200, 1, SIZE, SIZE)),
            "constant": np.ones((2, 1, SIZE, SIZE)),
            "galaxy": np.exp(-r / 4)[None, None],
            "ramp": (r / SIZE)[None, None],
        }[kind]
        found = einstein_radius(images)
        assert float(found["flag"].mean()) > 0.98
        np.testing.assert_array_equal(np.isnan(found["einstein_radius"]), found["flag"] == 1)

    def test_kinds_of_arrays_and_wrong_ones(self):
        images = ring(12.0).astype(np.float32)
        a, b = einstein_radius(images), einstein_radius(torch.from_numpy(images))
        np.testing.assert_array_equal(a["einstein_radius"], b["einstein_radius"])
        with pytest.raises(DataError, match="Known: stamp"):
            einstein_radius(images, center="middle")
        with pytest.raises(DataError, match="centers"):
            einstein_radius(images, center=np.zeros((3, 2)))
        with pytest.raises(DataError, match="square"):
            einstein_radius(images[..., :-2])
        with pytest.raises(DataError, match="each of 1 images"):
            einstein_radius(images, noise_rms=[0.1, 0.1])
        with pytest.raises(DataError, match="pixel scale is 0"):
            einstein_radius(images, pixel_scale=0.0)


class TestResidual:
    def test_a_ring_leaves_next_to_nothing_and_a_clump_stays(self):
        smooth = ring(15.0)
        lumpy = smooth + 0.5 * np.exp(-0.5 * ((AXIS[:, None] - 15) ** 2 + AXIS**2) / 2)
        before = power_spectrum(smooth, window="hann")["power"].to_numpy()
        left = arc_residual_spectrum(smooth)["power"].to_numpy()
        clump = arc_residual_spectrum(lumpy)["power"].to_numpy()
        assert left.sum() < 1e-3 * before.sum()
        assert clump.sum() > 5 * left.sum()

    def test_noise_passes_but_for_what_is_taken_with_the_profile(self):
        noise = np.random.default_rng(0).normal(size=(20, 2, SIZE, SIZE))
        before = power_spectrum(noise, pixel_scale=0.1, window="hann")["power"].to_numpy()
        after = arc_residual_spectrum(noise, 0.1)["power"].to_numpy()
        np.testing.assert_allclose(after[..., 8:].mean((0, 1)), before[..., 8:].mean((0, 1)), rtol=0.06)

    def test_square_images_only(self):
        with pytest.raises(DataError, match="square"):
            arc_residual_spectrum(np.zeros((1, 1, 8, 9)))

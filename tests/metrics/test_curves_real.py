"""Curves of real images: photutils' numbers on JWST, rings of lenses, the light of arms and neighbors."""

import numpy as np
import pytest
from astropy.io import fits

from galdiff.metrics import flux_centroid, nearest_neighbours, power_spectrum, radial_profile, residual


def read(path):
    return fits.getdata(path).astype(np.float64)[None, None]


def test_jwst_with_its_noise_map(real_data):
    profiles = pytest.importorskip("photutils.profiles")
    folder = real_data("fits") / "jwst"
    image, noise = (read(folder / f"task_1a_structure_dataset_0_{name}.fits") for name in ("data", "noise_map"))
    found = radial_profile(image, center="centroid", error=noise, pixel_scale=0.05)
    center = flux_centroid(image)[0]
    oracle = profiles.RadialProfile(
        image[0, 0], center[::-1], np.arange(image.shape[-1] // 2 + 1), error=noise[0, 0], method="exact"
    )
    np.testing.assert_allclose(found["profile"][0, 0], oracle.profile, rtol=1e-6, atol=1e-9)
    # Photutils sums w sigma^2, which for shared pixels is more than the w^2 sigma^2 of a weighted mean.
    ratio = found["profile_error"][0, 0] / oracle.profile_error
    assert ((ratio > 0.7) & (ratio < 1)).all()
    assert np.abs(center - (image.shape[-1] - 1) / 2).max() < 2
    assert 3 < found["r50"].item() < 15


def test_a_lens_is_a_ring(real_data):
    for path in sorted(real_data("deeplense").glob("*/*.npy"))[:3]:
        image = np.load(path, allow_pickle=False).reshape(1, 1, 64, 64)
        found = radial_profile(image)
        ring = found["radius"][found["profile"].argmax("annulus").item()]
        assert 5 < ring < 20
        left = residual(image)
        power, rest = (power_spectrum(x, 0.05, window="hann")["power"][0, 0] for x in (image, left))
        assert rest[:4].sum() < 0.5 * power[:4].sum()


def test_a_turned_real_galaxy_is_found(real_data):
    files = sorted((real_data("fits") / "jwst").glob("task_*_data.fits"))
    images = np.concatenate([read(path)[..., :200, :200] for path in files])
    images = images[np.isfinite(images).all((1, 2, 3))]
    noise = 0.01 * np.random.default_rng(0).normal(size=images.shape)
    copies = np.roll(np.rot90(images, 1, (2, 3)), (1, -2), (2, 3)) + noise
    found = nearest_neighbours(copies, images)
    np.testing.assert_array_equal(found["index"][:, 0], np.arange(len(images)))
    np.testing.assert_array_equal(found["transform"][:, 0], 3)

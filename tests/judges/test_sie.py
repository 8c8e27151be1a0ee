"""Ellipsoids fitted to simulated arcs whose lenses are known."""

import numpy as np
import pytest
import torch

from galdiff.errors import DataError
from galdiff.judges import fit_sie
from galdiff.judges.sie import PARAMETERS
from galdiff.metrics import recovery
from galdiff.simulate.lens_light import Galaxy, Source, blur_and_bin, pixel_grid, trace

pytest.importorskip("caustics")
SIZE, SCALE, FWHM = 40, 0.12, 0.18


def arcs(n, seed, noise, oversampling=4):
    """Draw arcs of random lenses and sources, with the parameters in the order of the fit."""
    rng = np.random.default_rng(seed)
    x, y = pixel_grid(SIZE, SCALE, oversampling)
    truth = np.stack(
        [
            rng.uniform(0.9, 1.7, n),
            *rng.normal(0, 0.08, (2, n)),
            *rng.normal(0, 0.03, (2, n)),
            *rng.uniform(-0.25, 0.25, (2, n)),
            rng.uniform(0.15, 0.3, n),
            *rng.normal(0, 0.1, (2, n)),
        ],
        axis=1,
    )
    light = [
        blur_and_bin(
            trace(x, y, Galaxy(*p[:5]), Source(1.0, p[7], 1.0, p[8], p[9]), torch.from_numpy(p[None, 5:7])),
            FWHM / SCALE * oversampling,
            oversampling,
        )
        for p in truth
    ]
    images = torch.stack(light).numpy() * 7 + 3
    return images + noise * rng.normal(size=images.shape), truth


def test_every_parameter_of_a_lens_without_noise_comes_back():
    images, truth = arcs(1, 0, 0.0, oversampling=2)
    found = fit_sie(images, pixel_scale=SCALE, psf_fwhm=FWHM, variance=1e-6, oversampling=2)
    np.testing.assert_allclose([float(found[name][0]) for name in PARAMETERS], truth[0], atol=2e-4)
    assert int(found["flag"][0]) == 0


@pytest.mark.slow
def test_einstein_radii_are_recovered_within_the_noise():
    images, truth = arcs(12, 1, 0.1)
    found = fit_sie(images, pixel_scale=SCALE, psf_fwhm=FWHM, variance=0.1**2, oversampling=3)
    line = recovery(truth[:, 0], found["einstein_radius"])
    assert float(line["slope"]) == pytest.approx(1, abs=0.01)
    assert abs(float(line["bias"])) < 0.005
    assert float(line["scatter"]) < 0.01
    assert float(found["chi2"].median()) == pytest.approx(1, abs=0.15)


def test_what_is_no_lens_has_no_fit():
    noise = np.random.default_rng(0).normal(size=(2, 1, SIZE, SIZE))
    found = fit_sie(noise, pixel_scale=SCALE, psf_fwhm=FWHM)
    assert (found["flag"] == 1).all()
    assert all(np.isnan(found[name]).all() for name in (*PARAMETERS, "chi2"))
    with pytest.raises(DataError, match="variance"):
        fit_sie(noise, pixel_scale=SCALE, psf_fwhm=FWHM, variance=0.0)

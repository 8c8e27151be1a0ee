"""What a reconstruction keeps, against scikit-image and against changes that are known."""

import numpy as np
import pytest
from skimage import metrics as oracle

from galdiff.errors import DataError
from galdiff.metrics import bias_and_scatter, peak_signal_to_noise, reconstruction, structural_similarity

SIZE = 48


def galaxies(n=40, bands=3, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    scale, bright = rng.uniform(2, 4, (n, 1, 1, 1)), rng.uniform(0.3, 1.0, (n, 1, 1, 1))
    color = rng.uniform(0.5, 1.0, (n, bands, 1, 1))
    light = bright * color * np.exp(-np.hypot(x, y * 1.3) / scale)
    return light + 0.05 + noise * rng.normal(size=light.shape)


class TestAgainstScikitImage:
    @pytest.mark.parametrize("data_range", [1.0, None])
    def test_pixels_and_structure(self, data_range):
        real, decoded = galaxies(6, noise=0.05), galaxies(6, noise=0.02)
        span = data_range or real.max() - real.min()
        psnr, ssim = (f(real, decoded, data_range) for f in (peak_signal_to_noise, structural_similarity))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
        for i, (a, b) in enumerate(zip(real, decoded, strict=True)):
            assert psnr[i] == pytest.approx(oracle.peak_signal_noise_ratio(a, b, data_range=span), rel=1e-9)
            assert ssim[i] == pytest.approx(oracle.structural_similarity(a, b, data_range=span, **settings), rel=1e-9)

    def test_too_small_for_the_window(self):
        with pytest.raises(DataError, match="window of 11"):
            structural_similarity(np.zeros((1, 1, 10, 10)), np.zeros((1, 1, 10, 10)))


class TestKnownChanges:
    def test_the_same_image_differs_in_nothing(self):
        real = galaxies(noise=0.01)
        found = reconstruction(real, real)
        assert np.isinf(found["psnr"]).all()
        np.testing.assert_allclose(found["ssim"], 1)
        np.testing.assert_allclose(found["difference"], 0, atol=1e-12)
        np.testing.assert_array_equal(found["power_residual"], 0)
        np.testing.assert_array_equal(found["power_real"], found["power_decoded"])

    def test_fainter_light_is_a_flux_bias_and_nothing_else(self):
        real = galaxies()
        found = reconstruction(real, 0.9 * (real - 0.05) + 0.2)
        at = found["difference"].sel
        np.testing.assert_allclose(at(measure="flux"), -2.5 * np.log10(0.9), atol=1e-5)
        for other in ("color", "r50", "gini", "concentration"):
            np.testing.assert_allclose(at(measure=other), 0, atol=1e-4)
        assert found["unit"].sel(measure="flux") == "mag"

    def test_a_weaker_band_is_a_color_bias(self):
        real = galaxies()
        redder = 0.05 + (real - 0.05) * np.array([0.8, 1.0, 1.0])[:, None, None]
        found = reconstruction(real, redder)["difference"].sel(measure="color")
        np.testing.assert_allclose(found, -2.5 * np.log10(0.8), atol=1e-6)

    def test_a_blurred_image_is_larger_and_less_concentrated(self):
        real = galaxies()
        blurred = (np.roll(real, 2, -1) + np.roll(real, -2, -1) + np.roll(real, 2, -2) + np.roll(real, -2, -2)) / 4
        found = reconstruction(real, blurred)["bias"]
        assert (found.sel(measure="r50") > 0.05).all()
        assert (found.sel(measure="concentration") < 0).all()

    def test_a_bias_at_the_faint_end_is_seen_there(self):
        real = galaxies(80)
        flux = (real - 0.05).sum(axis=(1, 2, 3))
        faint = flux < np.median(flux)
        decoded = np.where(faint[:, None, None, None], 0.05 + 0.8 * (real - 0.05), real)
        found = reconstruction(real, decoded, zero_point=22.5)
        bias, magnitude = found["bias"].sel(measure="flux").to_numpy(), found["bin_magnitude"].to_numpy()
        assert len(bias) == 4
        assert (np.diff(magnitude) > 0).all()
        np.testing.assert_allclose(bias, np.where(np.arange(4) < 2, 0, -2.5 * np.log10(0.8)), atol=1e-3)
        assert magnitude.mean() - reconstruction(real, decoded)["bin_magnitude"].mean() == pytest.approx(22.5)

    def test_white_residuals_have_a_flat_spectrum(self):
        real = galaxies(60, 1)
        noise = np.random.default_rng(1).normal(0, 0.03, real.shape)
        residual = reconstruction(real, real + noise)["power_residual"].to_numpy()[0]
        np.testing.assert_allclose(residual[4:], 0.03**2, rtol=0.1)


def test_one_band_has_no_color_and_a_blank_no_measures():
    real = galaxies(3, 1)
    real[0] = 0.05
    found = reconstruction(real, real)
    assert "color" not in found["measure"]
    assert np.isnan(found["magnitude"][0])
    assert np.isnan(found["difference"].sel(measure="r50")[0])
    assert len(found["bin_magnitude"]) == 1
    assert np.isfinite(found["bias"]).all()


def test_nothing_but_blanks_is_no_figure():
    found = reconstruction(np.full((2, 1, 32, 32), 0.1), np.full((2, 1, 32, 32), 0.1))
    assert found.sizes["bin"] == 0


@pytest.mark.parametrize(("shape", "match"), [((2, 3, 32, 32), "pair"), ((3, 3, 32, 30), "pair")])
def test_what_does_not_pair_is_refused(shape, match):
    with pytest.raises(DataError, match=match):
        reconstruction(np.zeros((3, 3, 32, 32)), np.zeros(shape))


def test_scatter_is_the_deviation_of_normal_numbers():
    values = np.random.default_rng(0).normal(3.0, 2.0, (2, 20_000))
    values[0, :100] = np.nan
    values[1] = np.nan
    bias, scatter = bias_and_scatter(values)
    assert bias[0] == pytest.approx(3, abs=0.05)
    assert scatter[0] == pytest.approx(2, abs=0.05)
    assert np.isnan([bias[1], scatter[1]]).all()

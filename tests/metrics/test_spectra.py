"""Spectra against powerbox, Parseval's theorem and closed forms."""

import numpy as np
import pytest
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics import high_frequency_power, power_spectrum


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def direct(images, scale, borders):
    """The definition in a loop: every mode of the whole plane in turn."""
    n = images.shape[-1]
    k = 2 * np.pi * np.fft.fftfreq(n, scale)
    radius = np.hypot(k[:, None], k)
    power = np.abs(np.fft.fft2(images - images.mean((2, 3), keepdims=True))) ** 2 * scale**2 / n**2
    rings = [(radius >= a) & (radius < b) for a, b in zip(borders, borders[1:], strict=False)]
    return np.stack([power[..., ring].mean(-1) for ring in rings], axis=-1), [radius[ring].mean() for ring in rings]


@pytest.mark.parametrize(("n", "scale"), [(16, 1.0), (15, 0.396), (32, 2.0)])
def test_parseval(n, scale):
    # Frequencies in the corners of the Fourier plane are in no ring, so the images have none.
    f = np.fft.fftfreq(n, 1 / n)
    inside = np.floor(np.hypot(f[:, None], f) + 0.5) <= n // 2
    images = np.fft.ifft2(np.fft.fft2(noise(3, 2, n, n)) * inside).real + 7.0
    for bins in ("linear", "log"):
        found = power_spectrum(images, scale, bins=bins)
        assert found["modes"].sum() == inside.sum() - 1
        total = (found["power"] * found["modes"]).sum("ring") / (n * scale) ** 2
        np.testing.assert_allclose(total, images.var(axis=(2, 3)), rtol=1e-12)


@pytest.mark.parametrize("n", [15, 16])
def test_the_definition(n):
    images, scale = noise(3, 2, n, n) + 2, 0.3
    fundamental = 2 * np.pi / (n * scale)
    power, k = direct(images, scale, (np.arange(n // 2 + 1) + 0.5) * fundamental)
    found = power_spectrum(images, scale)
    np.testing.assert_allclose(found["power"], power, rtol=1e-12)
    np.testing.assert_allclose(found["k"], k, rtol=1e-12)
    assert found["k"].attrs["units"] == "rad / arcsec"
    np.testing.assert_allclose(found["power_error"], power * np.sqrt(2 / found["modes"].to_numpy()), rtol=1e-12)
    borders = [0.0, 2.3 * fundamental, 4.1 * fundamental]
    np.testing.assert_allclose(
        power_spectrum(images, scale, bins=borders)["power"][..., 1],
        direct(images, scale, borders)[0][..., 1],
        rtol=1e-12,
    )


def test_spectrum_is_powerbox_s():
    powerbox = pytest.importorskip("powerbox", minversion="1.0")  # which wants a newer numpy than the oldest
    images, scale, n = noise(2, 1, 32, 32), 0.4, 32
    borders = (np.arange(n // 2) + 0.5) * 2 * np.pi / (n * scale)
    found = power_spectrum(images, scale, bins=borders)
    for i in range(2):
        oracle = powerbox.get_power(images[i, 0] - images[i, 0].mean(), [n * scale] * 2, bins=borders)
        np.testing.assert_allclose(found["power"][i, 0], oracle.power, rtol=1e-9)
        np.testing.assert_allclose(found["k"], oracle.bin_avg, rtol=1e-9)
        np.testing.assert_array_equal(found["modes"], oracle.nsamples)


@pytest.mark.parametrize("m", [1, 3, 8])
def test_a_plane_wave_is_one_ring(m):
    n, scale, amplitude = 16, 0.5, 3.0
    wave = amplitude * np.cos(2 * np.pi * m * np.arange(n) / n)
    found = power_spectrum(np.broadcast_to(wave, (1, 1, n, n)).copy(), scale)
    expected = np.zeros(n // 2)
    # Two modes of half the amplitude each; at the Nyquist frequency they are the same one.
    expected[m - 1] = amplitude**2 * n**2 * scale**2 * (1 if m == n // 2 else 0.5) / found["modes"][m - 1]
    np.testing.assert_allclose(found["power"][0, 0], expected, atol=1e-9)
    assert found["k"][m - 1].item() == pytest.approx(2 * np.pi * m / (n * scale), abs=np.pi / (n * scale))


@pytest.mark.parametrize("window", [None, "hann", "tukey"])
def test_white_noise_is_flat(window):
    sigma, scale = 2.0, 0.396
    found = power_spectrum(sigma * noise(400, 1, 32, 32), scale, window=window)
    # A window correlates neighboring modes: fewer are independent.
    error = sigma**2 * scale**2 * np.sqrt((2 if window is None else 8) / (found["modes"] * 400))
    assert (np.abs(found["power"].mean(("sample", "band")) - sigma**2 * scale**2)[1:] < 5 * error[1:]).all()


@pytest.mark.parametrize("bins", ["linear", "log"])
@pytest.mark.parametrize("window", [None, "tukey", "hann"])
def test_the_error_is_the_scatter_of_white_noise(window, bins):
    draws = 3000
    found = power_spectrum(noise(draws, 1, 32, 32), window=window, bins=bins)
    scatter = (found["power"].std("sample") / found["power_error"].mean("sample"))[0].to_numpy()
    # The power of m independent modes has the kurtosis of a chi^2 of m, by which a standard deviation is uncertain; a
    # window leaks what the mean took into the first ring.
    independent = 2 * (found["power"][0, 0] / found["power_error"][0, 0]).to_numpy() ** 2
    error = np.sqrt((0.5 + 3 / independent) / draws + 2 / independent / draws)
    first = 0 if window is None else 1
    assert (np.abs(scatter - 1) < 4 * error)[first:].all(), (scatter - 1) / error


def test_the_covariance_is_numpy_s_and_of_one_image_nan():
    images = noise(50, 2, 16, 16)
    found = power_spectrum(images, covariance=True)
    for b in range(2):
        np.testing.assert_allclose(found["covariance"][b], np.cov(found["power"][:, b], rowvar=False), rtol=1e-10)
    assert np.isnan(power_spectrum(images[:1], covariance=True)["covariance"]).all()


class TestBetweenBands:
    def test_bands_that_are_multiples_are_coherent(self):
        image = noise(2, 1, 16, 16)
        found = power_spectrum(np.concatenate([image, -3 * image, 2 * image], axis=1), cross=True)
        assert found["pair"].to_numpy().tolist() == ["0-1", "0-2", "1-2"]
        expected = np.broadcast_to(np.array([-1, 1, -1])[:, None], (2, 3, 8))
        np.testing.assert_allclose(found["coherence"], expected, rtol=1e-12)
        np.testing.assert_allclose(found["cross_power"][:, 1], 2 * found["power"][:, 0], rtol=1e-12)

    def test_the_power_of_a_sum(self):
        """|A + B|^2 is |A|^2 + |B|^2 + 2 Re A B*."""
        images = noise(2, 2, 15, 15)
        found = power_spectrum(images, cross=True, window="hann")
        total = power_spectrum(images.sum(1, keepdims=True), window="hann")["power"][:, 0]
        np.testing.assert_allclose(found["power"].sum("band") + 2 * found["cross_power"][:, 0], total, rtol=1e-10)

    def test_independent_bands_are_not_coherent_and_names_are_kept(self):
        images = xr.DataArray(
            noise(50, 2, 32, 32), dims=("sample", "band", "y", "x"), coords={"band": ["g", "r"]}, attrs={"units": "Jy"}
        )
        found = power_spectrum(images, cross=True)
        assert found["pair"].to_numpy().tolist() == ["g-r"]
        assert found["power"].attrs["units"] == "(Jy)^2 pixel^2"
        assert np.abs(found["coherence"].mean("sample"))[..., 3:].max() < 0.1

    def test_without_power_there_is_no_coherence(self):
        assert np.isnan(power_spectrum(np.ones((1, 2, 8, 8)), cross=True)["coherence"]).all()


def test_logarithmic_rings():
    found = power_spectrum(noise(1, 1, 64, 64), bins="log")
    assert (found["modes"] > 0).all()
    assert (np.diff(found["k"]) > 0).all()
    assert found["modes"].sum() == power_spectrum(noise(1, 1, 64, 64))["modes"].sum()
    np.testing.assert_allclose(np.diff(np.log10(found["k"]))[4:], 0.125, atol=0.04)


def test_noise_is_taken_off():
    wave = np.cos(2 * np.pi * 3 * np.arange(32) / 32)
    sky = noise(600, 1, 32, 32)
    found = power_spectrum(wave + sky[:300], noise=sky[300:]).mean("sample")
    expected = power_spectrum(np.broadcast_to(wave, (1, 1, 32, 32)).copy())["power"][0, 0]
    np.testing.assert_allclose(found["power"][0, 3:], expected[3:], atol=0.05)
    np.testing.assert_allclose(found["noise_power"][0, 3:], 1, atol=0.05)
    with pytest.raises(DataError, match="stamps of shape"):
        power_spectrum(sky, noise=noise(1, 2, 32, 32))
    with pytest.raises(DataError, match="stamps of shape"):
        power_spectrum(sky, noise=noise(1, 1, 16, 16))


def test_batches_change_nothing():
    images = noise(100, 2, 16, 16)
    whole = power_spectrum(images, cross=True, window="tukey")
    for rows in (slice(0, 1), slice(17, 80)):
        part = power_spectrum(images[rows], cross=True, window="tukey")
        for name in ("power", "cross_power", "coherence"):
            np.testing.assert_allclose(part[name], whole[name][rows], rtol=1e-10)


def test_a_data_array_knows_its_scale():
    images = xr.DataArray(noise(1, 1, 8, 8), dims=("sample", "band", "y", "x"), attrs={"pixel_scale": 0.4})
    xr.testing.assert_allclose(power_spectrum(images), power_spectrum(images.to_numpy(), 0.4))
    assert power_spectrum(images).attrs["pixel_scale"] == 0.4
    assert power_spectrum(images.to_numpy())["k"].attrs["units"] == "rad / pixel"


def test_high_frequencies_of_noise_and_of_a_smooth_wave():
    assert high_frequency_power(3 * noise(300, 1, 32, 32)).mean() == pytest.approx(9.0, rel=0.02)
    wave = np.cos(2 * np.pi * 3 * np.arange(32) / 32)
    assert high_frequency_power(np.broadcast_to(wave, (1, 1, 32, 32)).copy()).max() < 1e-20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "boxcar"}, "Known: hann, tukey"),
        ({"bins": "square"}, "Known: linear, log"),
        ({"bins": [1.0]}, "ascend"),
        ({"bins": [2.0, 1.0]}, "ascend"),
        ({"pixel_scale": 0.0}, "pixel scale is 0"),
        ({"pixel_scale": np.nan}, "pixel scale is nan"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(DataError, match=message):
        power_spectrum(np.ones((1, 1, 8, 8)), **options)


def test_bad_images():
    for shape in [(8, 8), (0, 1, 8, 8), (1, 1, 8, 0)]:
        with pytest.raises(DataError, match="shape"):
            power_spectrum(np.ones(shape))
    for shape, message in [((1, 1, 8, 9), "not square"), ((1, 1, 1, 1), "one pixel")]:
        with pytest.raises(DataError, match=message):
            power_spectrum(np.ones(shape))
    images = np.ones((1, 1, 8, 8))
    images[0, 0, :2, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="2 pixel values are NaN or infinite"):
        power_spectrum(images)


def test_constant_images_have_no_power():
    np.testing.assert_array_equal(power_spectrum(np.full((1, 1, 8, 8), 3.0))["power"], 0)
    assert np.isnan(power_spectrum(np.ones((1, 1, 8, 8)), bins=[0, 0.1, 1.0])["power"][0, 0, 0])

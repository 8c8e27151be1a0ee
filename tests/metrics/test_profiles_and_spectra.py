"""Profiles against photutils, spectra against Parseval's theorem and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galdiff.errors import DataError
from galdiff.metrics import annulus_weights, high_frequency_power, power_spectrum, radial_profile


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("size", "edges"),
    [(16, None), (17, None), (21, [0.0, 0.3, 0.5, 2.25, 7.9, 10.5]), (12, [1.0, 3.5, 8.4])],
    ids=["even", "odd", "fractions", "beyond the stamp"],
)
def test_profile_is_that_of_exact_apertures(size, edges):
    aperture = pytest.importorskip("photutils.aperture")
    images = noise(3, 2, size, size) + 5
    radius, profile = radial_profile(images, edges)
    borders = np.arange(size // 2 + 1.0) if edges is None else np.asarray(edges)
    np.testing.assert_allclose(radius, (borders[1:] + borders[:-1]) / 2)
    center = ((size - 1) / 2,) * 2

    def circle(image, r):
        if r == 0:
            return 0.0
        [total], _ = aperture.CircularAperture(center, r).do_photometry(image, method="exact")
        return total

    for i, b in np.ndindex(3, 2):
        light = np.diff([circle(images[i, b], r) for r in borders])
        area = np.diff([circle(np.ones((size, size)), r) for r in borders])
        np.testing.assert_allclose(profile[i, b], light / area, rtol=1e-6)


@given(size=st.integers(1, 24), r=st.floats(0.01, 12))
def test_a_circle_inside_the_stamp_has_its_area(size, r):
    r = min(r, size / 2)
    assert annulus_weights(size, [0.0, r]).sum().item() == pytest.approx(np.pi * r * r, rel=1e-12)


def test_annuli_share_out_the_stamp():
    weights = annulus_weights(11, [0.0, 1.0, 2.7, 5.0, 8.0])
    np.testing.assert_allclose(weights.sum(0).reshape(11, 11), 1.0, atol=1e-12)
    assert (weights >= -1e-12).all()


def test_profile_of_a_constant_is_flat_and_of_a_half_turn_the_same():
    np.testing.assert_allclose(radial_profile(np.full((1, 1, 20, 20), 3.0))[1], 3.0, rtol=1e-12)
    images = noise(2, 1, 20, 20)
    np.testing.assert_allclose(radial_profile(images[..., ::-1, ::-1])[1], radial_profile(images)[1], rtol=1e-9)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2", "u1"])
def test_any_type_and_byte_order(dtype):
    images = np.random.default_rng(0).integers(0, 100, (2, 1, 8, 8)).astype(dtype)
    images.flags.writeable = False
    np.testing.assert_allclose(radial_profile(images)[1], radial_profile(images.astype(float))[1], rtol=1e-6)


@pytest.mark.parametrize("edges", [[0, 0], [3, 2], [1], [-1, 2]])
def test_edges_ascend(edges):
    with pytest.raises(DataError, match="ascend"):
        radial_profile(np.ones((1, 1, 8, 8)), edges)


@pytest.mark.parametrize(("n", "scale"), [(16, 1.0), (15, 0.396), (32, 2.0)])
def test_parseval(n, scale):
    # Frequencies in the corners of the Fourier plane are in no ring, so the images have none.
    f = np.fft.fftfreq(n, 1 / n)
    inside = np.floor(np.hypot(f[:, None], f) + 0.5) <= n // 2
    images = np.fft.ifft2(np.fft.fft2(noise(3, 2, n, n)) * inside).real + 7.0
    _, power, modes = power_spectrum(images, scale)
    assert modes.sum() == inside.sum() - 1
    np.testing.assert_allclose((power * modes).sum(-1) / (n * scale) ** 2, images.var(axis=(2, 3)), rtol=1e-12)


@pytest.mark.parametrize("m", [1, 3, 8])
def test_a_plane_wave_is_one_ring(m):
    n, scale, amplitude = 16, 0.5, 3.0
    wave = amplitude * np.cos(2 * np.pi * m * np.arange(n) / n)
    k, power, modes = power_spectrum(np.broadcast_to(wave, (1, 1, n, n)).copy(), scale)
    expected = np.zeros(n // 2)
    # Two modes of half the amplitude each; at the Nyquist frequency they are the same one.
    expected[m - 1] = amplitude**2 * n**2 * scale**2 * (1 if m == n // 2 else 0.5) / modes[m - 1]
    np.testing.assert_allclose(power[0, 0], expected, atol=1e-9)
    assert k[m - 1] == pytest.approx(2 * np.pi * m / (n * scale), abs=np.pi / (n * scale))


@pytest.mark.parametrize("window", [None, "hann"])
def test_white_noise_is_flat(window):
    sigma, scale = 2.0, 0.396
    _, power, modes = power_spectrum(sigma * noise(400, 1, 32, 32), scale, window=window)
    # A window correlates neighboring modes: fewer are independent.
    error = sigma**2 * scale**2 * np.sqrt((2 if window is None else 8) / (modes * 400))
    assert (np.abs(power.mean(axis=(0, 1)) - sigma**2 * scale**2)[1:] < 5 * error[1:]).all()


def test_high_frequencies_of_noise_and_of_a_smooth_wave():
    assert high_frequency_power(3 * noise(300, 1, 32, 32)).mean() == pytest.approx(9.0, rel=0.02)
    wave = np.cos(2 * np.pi * 3 * np.arange(32) / 32)
    assert high_frequency_power(np.broadcast_to(wave, (1, 1, 32, 32)).copy()).max() < 1e-20


def test_an_unknown_window():
    with pytest.raises(DataError, match="Known: hann"):
        power_spectrum(np.ones((1, 1, 8, 8)), window="tukey")


@pytest.mark.parametrize("measure", [radial_profile, power_spectrum])
class TestBadImages:
    def test_shapes(self, measure):
        for shape in [(8, 8), (0, 1, 8, 8), (1, 1, 8, 0)]:
            with pytest.raises(DataError, match="shape"):
                measure(np.ones(shape))
        with pytest.raises(DataError, match="not square"):
            measure(np.ones((1, 1, 8, 9)))

    def test_bad_values_are_counted(self, measure):
        images = np.ones((1, 1, 8, 8))
        images[0, 0, :2, 0] = np.nan, np.inf
        with pytest.raises(DataError, match="2 pixel values are NaN or infinite"):
            measure(images)

    def test_constant_images_are_no_exception(self, measure):
        assert np.isfinite(measure(np.zeros((1, 1, 8, 8)))[1]).all()

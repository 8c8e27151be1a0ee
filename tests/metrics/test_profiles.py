"""Profiles against photutils, closed forms and laws."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from galdiff.errors import DataError
from galdiff.metrics import (
    annulus_weights,
    flux_centroid,
    nearest_neighbours,
    overlap,
    power_spectrum,
    radial_profile,
    residual,
    stacked_profile,
)
from galdiff.metrics.isophotes import Isophotes
from galdiff.metrics.residuals import _Splines

CENTERS = np.array([[9.5, 9.5], [10.0, 9.0], [8.31, 11.77]])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def polar(size, center, axis_ratio=1.0, angle=0.0):
    """Elliptical radius and azimuth of the pixels."""
    y, x = np.mgrid[:size, :size] - np.reshape(center, (2, 1, 1))
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (y * np.cos(angle) - x * np.sin(angle)) / axis_ratio
    return np.hypot(u, v), np.arctan2(v, u)


def grown(image, center, borders, error=None, mask=None, axis_ratio=1.0, angle=0.0):
    """Light, its variance and area in photutils' exact apertures, by annulus."""
    aperture = pytest.importorskip("photutils.aperture")
    good = np.ones(image.shape, bool) if mask is None else mask

    def inside(values, r):
        if r == 0:
            return np.zeros(image.shape)
        shape = aperture.EllipticalAperture(center[::-1], r, r * axis_ratio, theta=angle)
        return shape.to_mask(method="exact").to_image(image.shape) * values

    weights = np.stack([inside(1.0, b) - inside(1.0, a) for a, b in zip(borders, borders[1:], strict=False)]) * good
    light = (weights * np.where(good, image, 0)).sum((1, 2))
    variance = None if error is None else (weights**2 * error**2).sum((1, 2))
    return light, variance, weights.sum((1, 2))


@pytest.mark.parametrize(
    ("size", "edges"),
    [(16, None), (17, None), (21, [0.0, 0.3, 0.5, 2.25, 7.9, 10.5]), (12, [1.0, 3.5, 8.4])],
    ids=["even", "odd", "fractions", "beyond the stamp"],
)
def test_profile_is_that_of_exact_apertures(size, edges):
    images = noise(3, 2, size, size) + 5
    found = radial_profile(images, edges)
    borders = np.arange(size // 2 + 1.0) if edges is None else np.asarray(edges)
    np.testing.assert_allclose(found["radius"], (borders[1:] + borders[:-1]) / 2)
    for i, b in np.ndindex(3, 2):
        light, _, area = grown(images[i, b], ((size - 1) / 2,) * 2, borders)
        np.testing.assert_allclose(found["profile"][i, b], light / area, rtol=1e-9)
        np.testing.assert_allclose(found["growth"][i, b], light.cumsum(), rtol=1e-9)
        np.testing.assert_allclose(found["area"][i], area, rtol=1e-9)


@pytest.mark.parametrize("center", ["stamp", CENTERS], ids=["stamp", "moved"])
@pytest.mark.parametrize("ellipse", [{}, {"axis_ratio": [1.0, 0.3, 0.8], "angle": [0.0, 2.5, -0.4]}], ids=["o", "0"])
def test_profile_and_error_are_those_of_photutils(center, ellipse):
    """With errors, masks, centers and ellipses, all of them exact."""
    profiles = pytest.importorskip("photutils.profiles")
    size, borders = 20, np.array([0.0, 0.4, 1.0, 2.0, 3.7, 6.0, 9.0])
    images, error = noise(3, 2, size, size) + 5, 1 + noise(3, 2, size, size, seed=1) ** 2
    mask = noise(3, 2, size, size, seed=2) > -1
    images[~mask] = np.nan
    found = radial_profile(images, borders, center=center, error=error, mask=mask, **ellipse)
    for i, b in np.ndindex(3, 2):
        at = CENTERS[0] if isinstance(center, str) else center[i]
        own = {name: values[i] for name, values in ellipse.items()}
        light, variance, area = grown(images[i, b], at, borders, error[i, b], mask[i, b], **own)
        np.testing.assert_allclose(found["profile"][i, b], light / area, rtol=1e-9)
        np.testing.assert_allclose(found["profile_error"][i, b], np.sqrt(variance) / area, rtol=1e-9)
        if not ellipse:
            oracle = profiles.RadialProfile(
                images[i, b], at[::-1], borders, error=error[i, b], mask=~mask[i, b], method="exact"
            )
            np.testing.assert_allclose(found["profile"][i, b], oracle.profile, rtol=1e-6)


@given(
    center=st.tuples(st.floats(-3, 22), st.floats(-3, 22)),
    edges=st.lists(st.floats(0, 25), min_size=2, max_size=8, unique=True),
    seed=st.integers(0, 99),
)
def test_two_ways_to_the_same_sums(center, edges, seed):
    """Summed by parts, and by areas of polygons: any center, off the stamp too, and any edges."""
    images, edges = noise(1, 1, 20, 20, seed=seed) + 3, np.sort(edges)
    if np.diff(edges).min() < 1e-3:
        return
    one = radial_profile(images, edges, center=[center])
    other = radial_profile(images, edges, center=[center], axis_ratio=1.0)
    np.testing.assert_allclose(one["area"], other["area"], atol=1e-8)
    light = (one["profile"] * one["area"]).fillna(0)
    np.testing.assert_allclose(light, (other["profile"] * other["area"]).fillna(0), atol=1e-7)


@given(size=st.integers(1, 24), r=st.floats(0.01, 12))
def test_a_circle_inside_the_stamp_has_its_area(size, r):
    r = min(r, size / 2)
    assert annulus_weights(size, [0.0, r]).sum().item() == pytest.approx(np.pi * r * r, rel=1e-12)


def test_annuli_share_out_the_stamp():
    weights = annulus_weights(11, [0.0, 1.0, 2.7, 5.0, 8.0])
    np.testing.assert_allclose(weights.sum(0).reshape(11, 11), 1.0, atol=1e-12)
    assert (weights >= -1e-12).all()


def test_weights_are_the_caller_s_own():
    image = noise(1, 1, 8, 8)
    before = radial_profile(image, [0, 1, 2])
    annulus_weights(8, [0, 1, 2]).mul_(2)
    xr.testing.assert_identical(radial_profile(image, [0, 1, 2]), before)


def test_large_stamps_keep_no_weights(monkeypatch):
    images, edges = noise(3, 2, 24, 24), [0.0, 1.5, 4.0, 9.0, 13.0]
    whole = radial_profile(images, edges, error=np.ones((1, 1, 1, 1)))
    monkeypatch.setattr(overlap, "_KEPT", 0)
    overlap._kept_weights.cache_clear()
    xr.testing.assert_allclose(radial_profile(images, edges, error=np.ones((1, 1, 1, 1))), whole, rtol=1e-12)
    assert overlap._kept_weights.cache_info().currsize == 0


def test_profile_of_a_constant_is_flat_and_of_a_half_turn_the_same():
    np.testing.assert_allclose(radial_profile(np.full((1, 1, 20, 20), 3.0))["profile"], 3.0, rtol=1e-12)
    images = noise(2, 1, 20, 20)
    turned = radial_profile(images[..., ::-1, ::-1])
    np.testing.assert_allclose(turned["profile"], radial_profile(images)["profile"], rtol=1e-9)


def test_an_even_disk_in_closed_form():
    found = radial_profile(np.full((1, 1, 20, 20), 2.0), [0, 3, 5, 10])
    np.testing.assert_allclose([found[name].item() for name in ("r20", "r50", "r80")], 10 * np.sqrt([0.2, 0.5, 0.8]))
    np.testing.assert_allclose(found["growth"][0, 0], 2 * np.pi * np.array([9, 25, 100]))
    np.testing.assert_allclose(found["log_slope"], 0, atol=1e-12)


def test_an_exponential_disk():
    """Half of its light within 1.678 scale lengths, and a slope of -r over the scale length."""
    size, scale = 161, 8.0
    r, _ = polar(size, (80, 80))
    found = radial_profile(np.exp(-r / scale)[None, None])
    assert found["r50"].item() == pytest.approx(1.67835 * scale, rel=5e-3)
    middle = slice(10, 60)
    slope = found["log_slope"][0, 0, middle]
    np.testing.assert_allclose(slope, -found["radius"][middle] / scale, rtol=0.02)


def test_masked_pixels_count_with_the_mean_of_their_annulus():
    r, _ = polar(21, (10, 10))
    image, mask = np.full((1, 1, 21, 21), 3.0), np.ones((1, 1, 21, 21), bool)
    mask[..., :10, :] = False
    whole, half = radial_profile(image), radial_profile(np.where(mask, image, np.nan), mask=mask)
    np.testing.assert_allclose(half["growth"], whole["growth"])
    np.testing.assert_allclose(half["r50"], whole["r50"])
    mask[..., r < 3] = False
    np.testing.assert_array_equal(np.isnan(radial_profile(image, [0, 1, 8], mask=mask)["profile"]), [[[True, False]]])


def test_batches_and_other_images_change_nothing():
    images = noise(300, 1, 16, 16) + 1
    options = {"center": 7.5 + noise(300, 2, seed=1), "axis_ratio": np.linspace(0.3, 1, 300)}
    for names in ((), ("center",), ("center", "axis_ratio")):
        chosen = {name: options[name] for name in names}
        whole = radial_profile(images, **chosen)["profile"]
        for rows in (slice(0, 1), slice(17, 150), slice(290, 300)):
            part = radial_profile(images[rows], **{name: value[rows] for name, value in chosen.items()})["profile"]
            np.testing.assert_allclose(part, whole[rows], rtol=1e-10)
        left = residual(images[:20], **{name: value[:20] for name, value in chosen.items()})
        right = residual(images[:7], **{name: value[:7] for name, value in chosen.items()})
        np.testing.assert_allclose(right, left[:7], atol=1e-10)


def test_tensors_arrays_and_data_arrays():
    images = noise(2, 2, 8, 8)
    attrs = {"units": "nmgy", "pixel_scale": 0.4}
    labeled = xr.DataArray(images, dims=("sample", "band", "y", "x"), coords={"band": ["g", "r"]}, attrs=attrs)
    plain, found = radial_profile(torch.from_numpy(images)), radial_profile(labeled)
    np.testing.assert_array_equal(plain["profile"], found["profile"])
    assert found["profile"].attrs["units"] == "nmgy"
    assert found["band"].to_numpy().tolist() == ["g", "r"]
    np.testing.assert_allclose(found["radius_arcsec"], 0.4 * found["radius"])
    assert "radius_arcsec" not in plain.coords


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2", "u1"])
def test_any_type_and_byte_order(dtype):
    images = np.random.default_rng(0).integers(0, 100, (2, 1, 8, 8)).astype(dtype)
    images.flags.writeable = False
    expected = radial_profile(images.astype(float))["profile"]
    np.testing.assert_allclose(radial_profile(images)["profile"], expected, rtol=1e-6)


class TestCentroid:
    def test_of_an_object_away_from_the_middle_beside_a_neighbor(self):
        centers = np.array([[33.0, 29.5], [30.3, 34.2]])
        images = np.stack([10 * np.exp(-polar(64, c)[0] / 3) for c in centers])[:, None]
        images += 5 * np.exp(-polar(64, (8, 58))[0] / 2) + 0.05 * noise(2, 1, 64, 64) + 3.0
        np.testing.assert_allclose(flux_centroid(images), centers, atol=0.1)
        np.testing.assert_array_equal(radial_profile(images, center="centroid")["center"], flux_centroid(images))

    def test_is_the_stamp_s_center_without_light(self):
        np.testing.assert_array_equal(flux_centroid(np.zeros((1, 1, 8, 8))), [[3.5, 3.5]])
        np.testing.assert_array_equal(flux_centroid(np.ones((1, 1, 1, 1))), [[0, 0]])

    def test_masked_pixels_have_no_say(self):
        image = np.exp(-polar(32, (15.5, 15.5))[0] / 2)[None, None]
        spoiled, mask = image.copy(), np.ones(image.shape, bool)
        spoiled[..., 12, 19], mask[..., 12, 19] = np.nan, False
        np.testing.assert_allclose(flux_centroid(spoiled, mask=mask), [[15.5, 15.5]], atol=0.05)


class TestStack:
    def test_objects_of_one_shape_and_any_size_and_flux_are_one(self):
        sizes, r = np.array([2.0, 2.5, 3.0]), polar(97, (48, 48))[0]
        images = np.array([1, 30, 7])[:, None, None] * np.exp(-0.5 * (r / sizes[:, None, None]) ** 2)
        stack = stacked_profile(images[:, None], np.linspace(0, 2.5, 6))
        # A Gaussian's half-light radius is sqrt(2 ln 2) sigma, and half its light 1 - exp(-r50^2 / 2 sigma^2).
        x = np.linspace(0, 2.5, 6)
        light = np.diff(1 - np.exp2(-(x**2))) / np.diff(x**2) / 0.5
        np.testing.assert_allclose(stack["stack"][0], light, rtol=0.03)
        tilted = stacked_profile(images[:, None], np.linspace(0, 2.5, 6), axis_ratio=0.5, center="centroid")
        assert (tilted["count"] == 3).all()
        np.testing.assert_allclose(stack["r50"], np.sqrt(2 * np.log(2)) * sizes, rtol=0.03)
        assert (stack["stack_error"] < 0.02).all()
        assert (stack["count"] == 3).all()

    def test_what_leaves_the_stamp_and_what_has_no_light_is_left_out(self):
        images = np.stack([np.ones((1, 20, 20)), np.zeros((1, 20, 20))])
        stack = stacked_profile(images, [0, 1, 1.3, 3])
        np.testing.assert_array_equal(stack["count"], [[1, 1, 0]])
        assert np.isnan(stack["r50"][1])
        np.testing.assert_allclose(stack["stack"][0, :2], 1)
        assert np.isnan(stack["stack"][0, 2])
        assert np.isnan(stack["stack_error"]).all()


class TestResidual:
    @pytest.mark.parametrize("ellipse", [{}, {"axis_ratio": 0.6, "angle": 0.7}], ids=["circle", "ellipse"])
    def test_an_axisymmetric_image_leaves_nothing_and_its_arms_stay(self, ellipse):
        center = (23.5, 23.5)
        r, phi = polar(48, center, **ellipse)
        smooth = 10 * np.exp(-r / 6)
        arms = np.exp(-(((r - 10) / 3) ** 2)) * np.cos(2 * phi + r / 3)
        assert np.abs(residual(smooth[None, None], **ellipse)).max() < 2e-3 * smooth.max()
        left = residual((smooth + arms)[None, None], **ellipse)
        assert np.abs(left[0, 0] - arms)[r > 4].max() < 0.05
        np.testing.assert_allclose(residual(left, **ellipse), left, atol=1e-10)

    @pytest.mark.parametrize("masked", [False, True])
    def test_it_is_what_least_squares_leave(self, masked):
        images, center = noise(2, 2, 15, 15), np.array([[7.3, 6.8], [5.0, 8.4]])
        use = noise(2, 2, 15, 15, seed=1) > -1 if masked else np.ones(images.shape, bool)
        got = residual(images, center=center, mask=use if masked else None)
        for image, at, mask, left in zip(images, center, use, got, strict=True):
            r = np.hypot(*(np.mgrid[:15, :15] - at[:, None, None])).ravel()
            u = np.abs(r[:, None] - np.arange(-1, np.ceil(r.max()) + 2))
            splines = (np.maximum(2 - u, 0) ** 3 - 4 * np.maximum(1 - u, 0) ** 3) / 6
            for pixels, valid, rest in zip(image, mask, left, strict=True):
                chosen = splines * valid.reshape(-1, 1)
                fit = chosen @ np.linalg.lstsq(chosen, (pixels * valid).ravel(), rcond=10**-4.5)[0]
                np.testing.assert_allclose(rest.ravel(), (pixels * valid).ravel() - fit, atol=1e-9)

    def test_memory_is_that_of_the_pixels(self):
        """Of a stamp of 424 pixels a side all splines at all pixels would be 430 MB."""
        images = torch.from_numpy(noise(1, 1, 424, 424))
        splines = _Splines.of(images, Isophotes(None, None, None))
        assert sum(part.nbytes for part in (splines.first, *splines.values, splines.inverse)) < 6 * images.nbytes
        assert splines.fit(images.flatten(2)).shape == (1, 1, 424**2)

    def test_it_has_no_mean_at_any_radius(self):
        profile = radial_profile(residual(noise(1, 1, 33, 33) + 4), [3, 6, 9, 12, 15])["profile"]
        assert np.abs(profile).max() < 0.05

    def test_around_a_center_far_away(self):
        """Where circles are nearly straight, a gradient along them is taken off and one across is not."""
        gradient = np.tile(np.arange(16.0), (16, 1))[None, None]
        assert np.abs(residual(gradient, center=[[7.5, -1e6]])).max() < 1e-3
        across = residual(gradient, center=[[-1e6, 7.5]])
        np.testing.assert_allclose(across, gradient - 7.5, atol=1e-3)

    def test_a_data_array_keeps_its_labels(self):
        images = xr.DataArray(noise(1, 2, 8, 8), dims=("sample", "band", "y", "x"), attrs={"pixel_scale": 0.4})
        left = residual(images)
        assert left.attrs == images.attrs
        np.testing.assert_array_equal(left, residual(images.to_numpy()))

    def test_invalid_pixels_have_no_say(self):
        images, mask = np.exp(-polar(32, (15, 16))[0] / 4)[None, None], noise(1, 1, 32, 32) > -1
        spoiled = np.where(mask, images, np.inf)
        left = residual(spoiled, center=[[15, 16]], mask=mask)
        assert np.abs(left).max() < 2e-3
        assert (left[~mask] == 0).all()


@pytest.mark.parametrize("edges", [[0, 0], [3, 2], [1], [-1, 2], [0, np.nan]])
def test_edges_ascend(edges):
    with pytest.raises(DataError, match="ascend"):
        radial_profile(np.ones((1, 1, 8, 8)), edges)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"center": "middle"}, "Known: stamp, centroid"),
        ({"center": [[1.0, 2.0]]}, "for 2 images"),
        ({"center": np.full((2, 2), np.nan)}, "finite"),
        ({"axis_ratio": 1.5}, "above 1"),
        ({"axis_ratio": [0.5, 0.0]}, "positive"),
        ({"axis_ratio": [0.5] * 3}, "each of 2 images"),
        ({"axis_ratio": 0.5, "angle": [0.0] * 3}, "angles of shape"),
        ({"scale": [1.0, np.inf]}, "scale of shape"),
        ({"pixel_scale": -1.0}, "pixel scale is -1"),
        ({"error": np.ones((3, 1, 8, 8))}, "error map has shape"),
        ({"error": np.full((1, 1, 8, 8), -1.0)}, "below 0"),
        ({"mask": np.ones((2, 3, 8, 8), bool)}, "mask has shape"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(DataError, match=message):
        radial_profile(np.ones((2, 1, 8, 8)), **options)


@pytest.mark.parametrize("measure", [radial_profile, flux_centroid, residual, stacked_profile])
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

    def test_large_values_are_not_bad(self, measure):
        measure(np.full((1, 1, 8, 8), 3e38, np.float32))


def test_an_image_without_light_has_a_profile_and_no_radii():
    found = radial_profile(np.zeros((1, 1, 8, 8)))
    assert np.isfinite(found["profile"]).all()
    assert np.isnan(found["r50"]).all()
    assert np.isnan(found["log_slope"]).all()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_curves():
    images = torch.from_numpy(noise(20, 2, 32, 32) + 3)
    options = {"center": 15.5 + noise(20, 2, seed=1)}
    for chosen in ({}, options, options | {"axis_ratio": 0.5, "angle": 0.3, "error": torch.ones(1, 1, 1, 1)}):
        one, other = (radial_profile(x, **chosen) for x in (images, images.cuda()))
        xr.testing.assert_allclose(one, other, rtol=1e-10)
    one, other = (power_spectrum(x, cross=True, window="hann") for x in (images, images.cuda()))
    xr.testing.assert_allclose(one, other, rtol=1e-8)
    one, other = (nearest_neighbours(x[:5], images.numpy(), k=3) for x in (images, images.cuda()))
    xr.testing.assert_allclose(one, other)
    np.testing.assert_allclose(residual(images.cuda()), residual(images), atol=1e-10)

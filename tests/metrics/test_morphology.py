"""Morphology against closed forms, laws and the golden galaxy that statmorph measured."""

import numpy as np
import pytest
import torch
from astropy.modeling.models import Sersic2D
from scipy import ndimage

from galdiff.errors import DataError
from galdiff.metrics import flagged_fraction, morphology, segment
from galdiff.metrics.morphology import PROBLEMS, STATISTICS

PLACE = ("center_x", "center_y", "orientation")
PIXELS = ("petrosian_radius", "petrosian_radius_elliptical", "r20", "r50", "r80", "r50_elliptical", "sersic_radius")


def sersic(size=96, radius=8.0, n=1.0, q=0.7, angle=0.4, center=None, amplitude=1.0):
    y0, x0 = center or ((size - 1) / 2 + 0.2, (size - 1) / 2 - 0.3)
    y, x = np.mgrid[:size, :size]
    return Sersic2D(amplitude, radius, n, x0, y0, ellip=1 - q, theta=angle)(x, y)


def lopsided(size=96, noise=0.02, seed=0, **more):
    """A disk with a bright knot off its center, and sky noise."""
    knot = sersic(size, 2.0, 0.7, 1.0, 0.0, (size / 2 + 5, size / 2 + 7), 2.0)
    rng = np.random.default_rng(seed)
    return (sersic(size, **more) + knot + rng.normal(0, noise, (size, size)))[None, None]


def values(measured, i=0, without=()):
    return {name: float(measured[name][i]) for name in STATISTICS if name not in without}


def golden():
    y, x = np.mgrid[:128, :128]
    image = Sersic2D(1, 10, 1.5, 63.5, 63.5, ellip=0.4, theta=0.5)(x, y)
    image = image + np.random.default_rng(1).normal(0, 0.01, image.shape)
    labels, _ = ndimage.label(ndimage.gaussian_filter(image, 2) > 0.03)
    return image[None, None], (labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1)[None]


def test_golden_galaxy():
    image, segmentation = golden()
    found = morphology(image, segmentation=segmentation, gain=1000, subtract_sky=False)
    expected = {
        "gini": (0.534332, 0.002),  # statmorph rejects one pixel of the nucleus as an outlier
        "m20": (-1.951617, 0.004),
        "concentration": (3.187057, 0.003),
        "asymmetry": (-0.00239, 0.003),
        "smoothness": (0.0236, 0.01),  # its square of four pixels lies to one side, along this galaxy's major axis
        "petrosian_radius_elliptical": (22.175158, 0.005),
        "r50": (7.358737, 0.003),
        "sersic_index": (1.490399, 0.001),
    }
    for name, (value, tolerance) in expected.items():
        assert float(found[name][0]) == pytest.approx(value, abs=tolerance), name
    assert int(found["flag"][0]) == int(found["sersic_flag"][0]) == 0


class TestLaws:
    def test_nothing_depends_on_how_a_stamp_is_turned(self):
        image = lopsided()
        turned = np.concatenate([np.rot90(m, k, (2, 3)) for m in (image, image[..., ::-1]) for k in range(4)])
        found = morphology(turned)
        for name in STATISTICS:
            if name not in PLACE:
                np.testing.assert_allclose(found[name], found[name][0], rtol=2e-5, atol=2e-5, err_msg=name)

    def test_place_and_angle_turn_with_the_stamp(self):
        image = lopsided()
        one, other = (values(morphology(i)) for i in (image, np.rot90(image, 1, (2, 3))))
        assert other["center_x"] == pytest.approx(one["center_y"], abs=1e-4)
        assert other["center_y"] == pytest.approx(95 - one["center_x"], abs=1e-4)
        assert abs(other["orientation"] - one["orientation"]) == pytest.approx(np.pi / 2, abs=1e-4)

    @pytest.mark.parametrize("factor", [1e-11, 1e5])
    def test_units_do_not_matter(self, factor):
        image = lopsided()
        one, other = (values(morphology(i)) for i in (image, factor * image))
        assert other.pop("flux") == pytest.approx(factor * one.pop("flux"), rel=1e-5)
        assert other == pytest.approx(one, rel=1e-5, abs=1e-5, nan_ok=True)

    def test_moved_by_whole_pixels(self):
        # Without noise and with a wide margin there is nothing else in the stamp.
        image = np.where(sersic(129, 6.0, 0.8) > 1e-3, sersic(129, 6.0, 0.8), 0.0)[None, None]
        segmentation = image[:, 0] > 0.05
        one, other = (
            values(morphology(np.roll(image, s, (2, 3)), segmentation=np.roll(segmentation, s, (1, 2))), without=PLACE)
            for s in ((0, 0), (7, -5))
        )
        assert other == pytest.approx(one, rel=1e-4, abs=1e-4, nan_ok=True)

    def test_batches_do_not_matter(self):
        images = np.concatenate([lopsided(64, seed=s, n=0.6 + 0.03 * s) for s in range(70)]).astype(np.float32)
        together = morphology(images)
        for i in (0, 63, 64, 69):
            alone = values(morphology(images[i : i + 1]))
            assert alone == pytest.approx(values(together, i), rel=1e-6, abs=1e-6, nan_ok=True)

    def test_sky_level_does_not_matter(self):
        one, other = (values(morphology(lopsided() + level)) for level in (0.0, 3.0))
        assert other == pytest.approx(one, rel=1e-5, abs=1e-5, nan_ok=True)

    def test_noise_is_corrected_for(self):
        clean = values(morphology(lopsided(noise=1e-4)))
        noisy = morphology(np.concatenate([lopsided(noise=0.03, seed=s) for s in range(20)]))
        assert (noisy["flag"] < 2).all()
        # Too much is taken off where light and noise overlap (Sazonova et al. 2024) and where noise is interpolated.
        for name, within in (("asymmetry", 0.05), ("rms_asymmetry2", 0.02), ("concentration", 0.05), ("gini", 0.03)):
            assert float(noisy[name].mean()) == pytest.approx(clean[name], abs=within), name
        assert float(noisy["r50"].mean()) == pytest.approx(clean["r50"], rel=0.02)

    def test_pixel_scale_is_of_radii_alone(self):
        image = lopsided()
        one, other = morphology(image), morphology(image, pixel_scale=0.4)
        for name in STATISTICS:
            assert float(other[name][0]) == pytest.approx(
                float(one[name][0]) * (0.4 if name in PIXELS else 1.0), rel=1e-12, nan_ok=True
            )
        assert other["r50"].attrs["units"] != one["r50"].attrs["units"]


class TestValues:
    def test_symmetric_light_has_no_asymmetry_and_a_knot_has(self):
        assert values(morphology(sersic()[None, None]))["asymmetry"] == pytest.approx(0, abs=0.01)
        assert values(morphology(lopsided(noise=1e-3)))["asymmetry"] > 0.05

    @pytest.mark.parametrize("q", [0.3, 0.6, 1.0])
    @pytest.mark.parametrize("angle", [-1.2, 0.0, 0.5])
    def test_ellipse(self, q, angle):
        y, x = np.mgrid[:97, :97] - 48.0
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        image = np.exp(-0.5 * (u**2 + (v / q) ** 2) / 8**2)[None, None]
        found = values(morphology(image, segmentation=image[:, 0] > 1e-3))
        assert found["ellipticity"] == pytest.approx(1 - q, abs=2e-3)
        assert found["sersic_ellipticity"] == pytest.approx(1 - q, abs=1e-4)
        assert found["sersic_index"] == pytest.approx(0.5, abs=1e-4)  # a normal is a Sérsic profile
        if q < 1:
            assert found["orientation"] == pytest.approx(angle, abs=2e-3)

    def test_normal_has_its_petrosian_and_half_light_radii(self):
        sigma = 7.0
        y, x = np.mgrid[:129, :129] - 64.0
        found = values(morphology(np.exp(-0.5 * (y**2 + x**2) / sigma**2)[None, None]))
        r = np.linspace(1, 40, 40000)
        eta = np.exp(-0.5 * (r / sigma) ** 2) / (2 * (sigma / r) ** 2 * (1 - np.exp(-0.5 * (r / sigma) ** 2)))
        petrosian = r[np.argmax(eta < 0.2)]
        assert found["petrosian_radius"] == pytest.approx(petrosian, rel=2e-3)
        assert found["petrosian_radius_elliptical"] == pytest.approx(petrosian, rel=2e-3)
        total = 1 - np.exp(-0.5 * (1.5 * petrosian / sigma) ** 2)
        for name, share in (("r20", 0.2), ("r50", 0.5), ("r80", 0.8)):
            assert found[name] == pytest.approx(sigma * np.sqrt(-2 * np.log(1 - share * total)), rel=2e-3)
        assert found["concentration"] == pytest.approx(5 * np.log10(found["r80"] / found["r20"]), abs=1e-9)
        assert found["flux"] == pytest.approx(2 * np.pi * sigma**2, rel=1e-3)

    def test_statistics_of_gini_and_m20(self):
        found = values(morphology(lopsided()))
        assert found["gini_m20_bulge"] == pytest.approx(-0.693 * found["m20"] + 4.95 * found["gini"] - 3.96)
        assert found["gini_m20_merger"] == pytest.approx(0.139 * found["m20"] + 0.990 * found["gini"] - 0.327)

    def test_two_nuclei_have_a_higher_m20(self):
        pair = sersic(radius=5, q=1.0, center=(48, 38)) + sersic(radius=5, q=1.0, center=(48, 58))
        single = values(morphology(sersic(q=1.0)[None, None]))
        double = values(morphology(pair[None, None], segmentation=(pair > 0.1)[None]))
        assert double["m20"] > single["m20"] + 0.5
        assert double["gini_m20_merger"] > single["gini_m20_merger"]

    def test_color_is_of_the_first_and_last_band(self):
        images = np.concatenate([sersic()[None, None] * f for f in (1.0, 5.0, 2.0)], axis=1)
        assert values(morphology(images))["color"] == pytest.approx(2.5 * np.log10(2.0), abs=1e-6)
        assert np.isnan(values(morphology(images[:, :1]))["color"])

    def test_others_are_masked(self):
        alone = sersic(128, 8.0)
        star = sersic(128, 1.5, 0.5, 1.0, 0.0, (86, 58), 2.0)
        noise = np.random.default_rng(3).normal(0, 0.05, (128, 128))
        images = np.stack([alone + noise, alone + star + noise])[:, None]
        labels = segment(images)
        assert (labels[1, 86, 58] == 2) & ~(labels[0] == 2).any()
        one, other = (values(morphology(images), i) for i in range(2))
        for name in ("gini", "m20", "concentration", "asymmetry", "r50", "sersic_index", "petrosian_radius"):
            assert other[name] == pytest.approx(one[name], rel=0.03, abs=0.01), name
        # With the star left in there is more light within two Petrosian radii.
        assert other["flux"] == pytest.approx(one["flux"], rel=0.02)
        assert values(morphology(images, segmentation=labels == 1), 1)["flux"] > 1.05 * one["flux"]


class TestFlags:
    def test_ring_has_no_object_at_its_center(self):
        y, x = np.mgrid[:64, :64] - 31.5
        ring = np.exp(-0.5 * ((np.hypot(y, x) - 18) / 2) ** 2) + np.random.default_rng(0).normal(0, 0.01, (64, 64))
        found = morphology(ring[None, None])
        assert found["flag"].item() == 2
        assert found["problems"].item() == 1 << list(PROBLEMS).index("no_object")
        # Nor does it have one when it is said to be the object.
        found = morphology(ring[None, None], segmentation=(ring > 0.3)[None])
        assert found["flag"].item() == 2
        assert found["problems"].item() & 1 << list(PROBLEMS).index("nothing_at_the_center")

    @pytest.mark.parametrize("value", [0.0, 0.3])
    def test_constant_images(self, value):
        found = morphology(np.full((3, 2, 32, 32), value))
        assert (found["flag"] == 2).all()
        assert all(np.isnan(found[name]).all() for name in STATISTICS)
        assert flagged_fraction(found) == 1.0

    def test_pixels_that_are_not_finite_are_masked(self):
        image = sersic(128)[None, None]
        broken = image.copy()
        broken[0, 0, 20:24, 90:94] = np.nan
        one, other = values(morphology(image)), values(morphology(broken))
        assert other == pytest.approx(one, rel=0.02, abs=0.01, nan_ok=True)
        found = morphology(np.concatenate([image, np.full_like(image, np.nan)]))
        assert found["flag"].to_numpy().tolist() == [0, 2]
        assert flagged_fraction(found) == 0.5

    def test_bad_has_no_number_and_good_has_all(self):
        rng = np.random.default_rng(5)
        images = np.concatenate([rng.normal(0, 1, (30, 1, 64, 64)), lopsided(64, radius=5.0)])
        found = morphology(images)
        bad = found["flag"].to_numpy() == 2
        assert 0.5 < flagged_fraction(found) < 1
        assert flagged_fraction(found, level=1) >= flagged_fraction(found)
        for name in STATISTICS:
            assert np.isnan(found[name][bad]).all()
        assert all(np.isfinite(values(found, 30, without=("color",))[name]) for name in STATISTICS if name != "color")

    def test_a_bad_row_has_no_ellipse_and_leaves_the_others_alone(self):
        radius = np.hypot(*(np.mgrid[:64, :64] - 31.5))
        segmentation = np.repeat((radius < 20).astype(int)[None], 8, axis=0)
        images = np.exp(-radius / 4) + np.random.default_rng(0).normal(0, 0.01, (8, 1, 64, 64))
        spoiled = images.copy()
        spoiled[3] -= 0.035
        whole, found = (morphology(x, segmentation=segmentation, subtract_sky=False) for x in (images, spoiled))
        assert found["flag"].to_numpy().tolist() == [0, 0, 0, 2, 0, 0, 0, 0]
        assert found["problems"][3].item() & 1 << list(PROBLEMS).index("no_ellipse")
        for name in STATISTICS:
            assert np.isnan(found[name][3])
            np.testing.assert_array_equal(np.delete(found[name], 3), np.delete(whole[name], 3), err_msg=name)

    @pytest.mark.parametrize("size", [4, 8, 64])
    def test_noise_has_no_ellipse(self, size):
        noise = np.random.default_rng(1).normal(0, 1, (64, 1, size, size))
        inside = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) < size / 3
        for segmentation in (None, np.repeat(inside[None], 64, axis=0)):
            found = morphology(noise, segmentation=segmentation)
            assert flagged_fraction(found) > 0.5
            assert np.isnan(found["ellipticity"][found["flag"] == 2]).all()

    def test_light_that_goes_on_beyond_the_stamp_is_suspect(self):
        assert morphology(sersic(64, 14.0, 1.0, 1.0)[None, None])["flag"].item() >= 1

    def test_flags_say_what_they_mean(self):
        found = morphology(lopsided())
        assert found["flag"].attrs["flag_meanings"] == "good suspect bad"
        assert found["problems"].attrs["flag_meanings"].split() == list(PROBLEMS)
        assert len(found["problems"].attrs["flag_masks"]) == len(PROBLEMS)


class TestInput:
    @pytest.mark.parametrize("bad", [np.ones((32, 32)), np.ones((0, 1, 32, 32))])
    def test_no_images(self, bad):
        with pytest.raises(DataError, match="shape"):
            morphology(bad)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 3), (1, 64), (3, 64)])
    @pytest.mark.parametrize("measure", [morphology, segment])
    def test_stamps_without_corners(self, measure, shape):
        with pytest.raises(DataError, match="not of 4 or more a side"):
            measure(np.ones((2, 1, *shape)))

    def test_segmentation_of_another_shape(self):
        with pytest.raises(DataError, match="segmentation has shape"):
            morphology(lopsided(), segmentation=np.ones((2, 96, 96), int))

    @pytest.mark.parametrize("option", ["psf_fwhm", "gain", "pixel_scale"])
    def test_options_that_are_not_positive(self, option):
        with pytest.raises(DataError, match=option):
            morphology(lopsided(), **{option: 0.0})

    def test_stamps_need_not_be_square(self):
        image = lopsided(96, noise=1e-3)
        one, other = (values(morphology(i), without=PLACE) for i in (image, image[..., 10:86, :]))
        for name in ("gini", "m20", "concentration", "r50", "sersic_index"):
            assert other[name] == pytest.approx(one[name], rel=0.02), name

    def test_tensors_and_arrays_of_any_byte_order(self):
        image = lopsided().astype(np.float32)
        one = values(morphology(image))
        for same in (torch.from_numpy(image), image.astype(">f4"), image[..., ::-1, :][..., ::-1, :]):
            assert values(morphology(same)) == pytest.approx(one, rel=1e-12, nan_ok=True)

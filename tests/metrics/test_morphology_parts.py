"""Parts of the morphology against independent implementations: scipy, scikit-image, photutils, astropy."""

import numpy as np
import pytest
import torch
from astropy.modeling.models import Sersic2D
from photutils.aperture import CircularAperture, EllipticalAperture
from scipy import ndimage
from scipy.special import gammaincinv
from skimage.transform import rotate

from galdiff.metrics import sersic
from galdiff.metrics.asymmetry import _HalfTurn, half_turn
from galdiff.metrics.gini import gini_m20, smooth
from galdiff.metrics.growth import Growth
from galdiff.metrics.segmentation import _mean_of_nine, grow, segment, sky
from galdiff.metrics.sersic import _at_best_amplitude, _Model, fit_sersic, sersic_b
from galdiff.metrics.smoothness import clumps

RNG = np.random.default_rng(0)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestSegmentation:
    def test_sky_of_noise_with_stars_in_a_corner(self):
        images = RNG.normal(0.1, 0.02, (50, 64, 64))
        images[:, :5, :5] = 10.0
        level, noise = sky(torch.from_numpy(images))
        assert float(level.mean()) == pytest.approx(0.1, abs=2e-3)
        assert float(noise.mean()) == pytest.approx(0.02, rel=0.05)

    def test_grow_is_the_labelled_component_of_the_seed(self):
        mask = RNG.random((20, 40, 30)) < 0.45
        seeds = np.zeros_like(mask)
        seeds[:, 20, 15] = True
        region = grow(torch.from_numpy(mask), torch.from_numpy(seeds)).numpy()
        for m, r in zip(mask, region, strict=True):
            labels, _ = ndimage.label(m, np.ones((3, 3)))
            assert np.array_equal(r, (labels == labels[20, 15]) & m[20, 15])

    @pytest.mark.parametrize("n", [1, 7, 8, 9])
    def test_however_many_grow_together(self, n):
        mask, seeds = (torch.from_numpy(RNG.random((n, 11, 13)) < share) for share in (0.5, 0.1))
        together = grow(mask, seeds)
        assert together.shape == mask.shape
        assert torch.equal(together, torch.cat([grow(m[None], s[None]) for m, s in zip(mask, seeds, strict=True)]))

    def test_a_limit_is_so_many_steps(self):
        mask = torch.ones(1, 21, 21, dtype=torch.bool)
        seed = torch.zeros_like(mask)
        seed[0, 10, 10] = True
        assert [int(grow(mask, seed, limit=k).sum()) for k in (0, 1, 5)] == [1, 9, 121]

    def test_the_mean_of_a_pixel_and_its_neighbors_has_fewer_at_the_border(self):
        light = torch.from_numpy(RNG.random((2, 6, 5)))
        sums, counts = (
            ndimage.convolve(part, np.ones((1, 3, 3)), mode="constant") for part in (light, np.ones((2, 6, 5)))
        )
        np.testing.assert_allclose(_mean_of_nine(light), sums / counts, rtol=1e-14)

    def test_correlated_noise_is_not_light(self):
        noise = ndimage.gaussian_filter(RNG.normal(size=(40, 1, 64, 64)), (0, 0, 1.2, 1.2))
        assert float((segment(noise) == 1).any(dim=2).any(dim=1).float().mean()) < 0.3


class TestGrowth:
    LIGHT = RNG.normal(1.0, 0.3, (2, 64, 64))
    CENTER = tensor([31.3, 33.8], [28.0, 30.5])

    def curve(self, *ellipse):
        light = torch.from_numpy(self.LIGHT)
        return Growth.about(light, torch.ones_like(light, dtype=torch.bool), self.CENTER, *ellipse)

    @pytest.mark.parametrize("radius", [1.5, 4.0, 11.3, 24.0])
    def test_circles_are_those_of_photutils(self, radius):
        got = self.curve().within(tensor(radius, radius))
        for i, (y, x) in enumerate(self.CENTER.tolist()):
            expected = CircularAperture((x, y), radius).do_photometry(self.LIGHT[i], method="exact")[0][0]
            assert float(got[i]) == pytest.approx(expected, rel=0.02 / radius)

    @pytest.mark.parametrize("radius", [4.0, 11.3, 24.0])
    def test_ellipses_are_those_of_photutils(self, radius):
        got = self.curve(tensor(0.5, 0.2), tensor(0.4, -1.0)).within(tensor(radius, radius))
        for i, ((y, x), q, angle) in enumerate(zip(self.CENTER.tolist(), (0.5, 0.8), (0.4, -1.0), strict=True)):
            ellipse = EllipticalAperture((x, y), radius, q * radius, theta=angle)
            expected = ellipse.do_photometry(self.LIGHT[i], method="exact")[0][0]
            assert float(got[i]) == pytest.approx(expected, rel=0.06 / radius)

    def test_all_light_counts_once(self):
        assert self.curve().within(tensor(90, 90)).numpy() == pytest.approx(self.LIGHT.sum(axis=(1, 2)), rel=1e-6)

    def test_shares_and_areas_are_inverse(self):
        curve = self.curve()
        radius = curve.containing(0.3, tensor(20, 20))
        np.testing.assert_allclose(curve.within(radius), 0.3 * curve.within(tensor(20, 20)), rtol=1e-9)
        np.testing.assert_allclose(curve.measured(tensor(20, 20)), np.pi * 400, rtol=1e-3)

    def test_flat_light_has_no_petrosian_radius(self):
        assert torch.isnan(self.curve().petrosian()).all()


class TestHalfTurn:
    @pytest.mark.parametrize("center", [(15.5, 19.5), (16.0, 18.0), (14.3, 21.85)])
    def test_it_is_that_of_scikit_image(self, center):
        image = RNG.random((32, 40))
        expected = rotate(image, 180, center=center[::-1], order=1)
        got = half_turn(torch.from_numpy(image)[None], tensor(center))[0].numpy()
        # At the very border scikit-image mixes the last pixel with what lies outside.
        inside = (slice(1, -1), slice(1, -1))
        reached = half_turn(torch.ones(1, 32, 40, dtype=torch.float64), tensor(center))[0].numpy() == 1
        np.testing.assert_allclose(got[inside][reached[inside]], expected[inside][reached[inside]], atol=1e-9)

    def test_about_the_middle_it_is_a_flip(self):
        image = torch.from_numpy(RNG.random((1, 9, 12)))
        assert torch.equal(half_turn(image, tensor([4.0, 5.5])), image.flip(1, 2))


class TestSearch:
    @pytest.mark.parametrize("by", [1, 2, 4])
    def test_whole_pixels_are_windows_of_a_larger_turn(self, by):
        """A center a step away moves the turned image by twice that."""
        image, center = torch.from_numpy(RNG.random((2, 20, 24))), tensor([9.3, 11.8], [10.1, 12.0])
        wide = _HalfTurn(image, tensor(6.0).amax())(center, by)
        for y, x in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            part = wide[:, by * (1 - y) : 20 + by * (1 - y), by * (1 - x) : 24 + by * (1 - x)]
            np.testing.assert_allclose(part, half_turn(image, center + by / 2 * tensor(y, x)), atol=1e-14)

    @pytest.mark.parametrize("step", [0.25, 0.1, 0.04])
    def test_parts_of_pixels_are_turns_about_each_center(self, step):
        image, center = torch.from_numpy(RNG.random((2, 20, 24))), tensor([9.3, 11.8], [10.47, 12.03])
        turned = _HalfTurn(image, tensor(6.0).amax()).at_steps(center, step)
        for part, way in zip(turned, ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)), strict=True):
            np.testing.assert_allclose(part, half_turn(image, center + step * tensor(*way)), atol=1e-14)


class TestFilters:
    def test_smooth_is_the_gaussian_filter_of_scipy(self):
        images, sigma = RNG.random((3, 40, 50)), (0.7, 2.0, 5.3)
        got = smooth(torch.from_numpy(images), tensor(*sigma)).numpy()
        for image, s, g in zip(images, sigma, got, strict=True):
            np.testing.assert_allclose(g, ndimage.gaussian_filter(image, s, mode="constant"), atol=1e-12)

    @pytest.mark.parametrize("width", [1, 3, 5])
    def test_clumps_over_odd_squares(self, width):
        image = RNG.random((30, 40))
        expected = np.maximum(image - ndimage.uniform_filter(image, width), 0)
        np.testing.assert_allclose(clumps(torch.from_numpy(image)[None], tensor(width))[0], expected, atol=1e-12)

    def test_clumps_over_even_squares_are_the_mean_of_four_placements(self):
        image = RNG.random((30, 40))
        places = [ndimage.uniform_filter(image, 4, origin=(i, j)) for i in (0, -1) for j in (0, -1)]
        expected = np.mean([np.maximum(image - place, 0) for place in places], axis=0)
        np.testing.assert_allclose(clumps(torch.from_numpy(image)[None], tensor(4))[0], expected, atol=1e-12)


class TestGiniAndM20:
    def test_gini_is_the_mean_difference_of_pixels(self):
        light = RNG.normal(0.5, 1.0, (2, 12, 13))
        region = RNG.random((2, 12, 13)) < 0.4
        got = gini_m20(torch.from_numpy(light), torch.from_numpy(region))[0]
        for x, r, g in zip(np.abs(light), region, got, strict=True):
            x = x[r]
            expected = np.abs(x[:, None] - x).sum() / (2 * x.mean() * len(x) * (len(x) - 1))
            assert float(g) == pytest.approx(expected, rel=1e-12)

    def test_m20_pixel_by_pixel(self):
        light = RNG.gamma(1.0, 1.0, (12, 13)) - 0.1
        region = torch.from_numpy(RNG.random((12, 13)) < 0.6)
        y, x = np.nonzero(region.numpy())
        flux = light[y, x]
        moment = flux * ((y - (flux @ y) / flux.sum()) ** 2 + (x - (flux @ x) / flux.sum()) ** 2)
        order = np.argsort(-flux)
        bright = order[np.concatenate([[0], np.cumsum(flux[order])[:-1]]) <= 0.2 * flux.sum()]
        got = gini_m20(torch.from_numpy(light)[None], region[None])[1]
        assert float(got) == pytest.approx(np.log10(moment[bright].sum() / moment.sum()), rel=1e-12)

    def test_nothing_is_no_number(self):
        for value in gini_m20(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)):
            assert torch.isnan(value).all()


class TestSersic:
    def test_b_is_the_median_of_the_incomplete_gamma_function(self):
        n = np.geomspace(0.1, 10, 50)
        np.testing.assert_allclose(sersic_b(torch.from_numpy(n)), gammaincinv(2 * n, 0.5), rtol=1e-10)

    def fit(self, images, weight=None, n=1.5, **more):
        light = torch.from_numpy(images)
        ones = torch.ones(len(light), dtype=torch.float64)
        weight = torch.ones_like(light) if weight is None else weight
        middle = tensor([(s - 1) / 2 for s in images.shape[1:]]).expand(len(light), -1)
        guess = {"radius": 7 * ones, "ellipticity": 0.2 * ones, "orientation": 0 * ones, "index": n * ones}
        return fit_sersic(light, weight, center=middle, **guess, **more)

    def test_true_profiles_are_found_to_a_thousandth(self):
        y, x = np.mgrid[:80, :72]
        truth = [
            (n, r, e, t) for n in (0.5, 1.0, 2.5, 4.0) for r, e, t in ((5, 0.1, 0.3), (9, 0.5, -1.1), (7, 0.8, 1.5))
        ]
        images = np.stack([Sersic2D(3.0, r, n, 36.2, 39.6, ellip=e, theta=t)(x, y) for n, r, e, t in truth])
        fit = self.fit(images)
        assert fit.converged.all()
        assert not fit.bounded.any()
        got = np.stack([fit.index, fit.radius, fit.ellipticity, fit.orientation], axis=1)
        np.testing.assert_allclose(got[:, :3], np.array(truth)[:, :3], rtol=1e-3)
        assert (np.abs(np.sin(got[:, 3] - np.array(truth)[:, 3])) < 2e-3).all()
        np.testing.assert_allclose(fit.center, np.tile([39.6, 36.2], (len(truth), 1)), atol=2e-3)
        np.testing.assert_allclose(fit.amplitude, 3.0, rtol=1e-3)

    def test_products_at_the_best_amplitude_are_the_models(self):
        y, x = np.mgrid[:48, :40]
        image = Sersic2D(0.3, 6, 1.2, 19.7, 23.2, ellip=0.3, theta=0.5)(x, y) + RNG.normal(0, 0.02, (48, 40))
        model = _Model(torch.from_numpy(image[None]), torch.ones(1, 48, 40, dtype=torch.float64), None)
        start = tensor([0.1, np.log(1.5), 0.15, 0.01, 0.18, 23.0, 20.0])
        parameters, products = _at_best_amplitude(start, model(start))
        np.testing.assert_allclose(products, model(parameters), rtol=1e-9, atol=1e-9 * float(products[0, 7, 7]))
        assert float(products[0, 0, 7]) == pytest.approx(0, abs=1e-9)

    def test_a_step_that_promises_nothing_is_not_looked_at(self, monkeypatch):
        y, x = np.mgrid[:64, :64]
        images = np.stack([Sersic2D(1.0, 6, n, 31.7, 31.2, ellip=0.3, theta=0.5)(x, y) for n in (0.8, 1.3, 2.0)])
        images += RNG.normal(0, 0.05, images.shape)
        evaluated = []
        call = _Model.__call__
        monkeypatch.setattr(_Model, "__call__", lambda self, p: evaluated.append(len(p)) or call(self, p))
        quick = self.fit(images)
        count = sum(evaluated)
        monkeypatch.setattr(sersic, "_TRUSTED", 0.0)
        thorough = self.fit(images)
        assert quick.converged.all()
        assert count <= sum(evaluated) - count - len(images)
        np.testing.assert_allclose(quick.index, thorough.index, rtol=1e-3)

    def test_the_psf_is_taken_off(self):
        y, x = np.mgrid[:64, :64]
        sharp = np.stack([Sersic2D(1.0, 6, n, 31.7, 31.2, ellip=0.3, theta=0.5)(x, y) for n in (1.0, 2.5)])
        blurred = ndimage.gaussian_filter(sharp, (0, 1.7, 1.7), mode="constant")
        np.testing.assert_allclose(self.fit(blurred, psf_sigma=1.7).index, [1.0, 2.5], rtol=5e-3)
        assert (self.fit(blurred).index < torch.tensor([0.9, 1.8])).all()

    def test_pixels_without_weight_do_not_count(self):
        y, x = np.mgrid[:64, :64]
        image = Sersic2D(1.0, 6, 1.3, 31.7, 31.2, ellip=0.3, theta=0.5)(x, y)[None]
        weight = torch.ones(1, 64, 64, dtype=torch.float64)
        image[0, 40:50, 40:50], weight[0, 40:50, 40:50] = 100.0, 0.0
        assert float(self.fit(image, weight).index) == pytest.approx(1.3, rel=1e-3)

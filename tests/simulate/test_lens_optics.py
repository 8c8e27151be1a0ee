"""The optics of simulated lenses, against closed forms written out here and, where it is installed, lenstronomy."""

import math
import sys

import numpy as np
import pytest
import torch

from galdiff.errors import ResourceError
from galdiff.simulate.lens_light import Galaxy, Source, blur_and_bin, pixel_grid, trace
from galdiff.simulate.lensing import axis_ratio, caustics_functions, distances, restated
from galdiff.simulate.substructure import PointMasses, TruncatedHalos, VortexLine

CENTERED = torch.zeros(1, 2, dtype=torch.float64)


def column(*values):
    return torch.tensor([values], dtype=torch.float64)


class TestGeometry:
    def test_distances_are_integrals_of_the_expansion(self):
        z = np.linspace(0, 1, 200_001)
        comoving = np.concatenate([[0], np.cumsum(1 / np.sqrt(0.3 * (1 + (z[1:] + z[:-1]) / 2) ** 3 + 0.7))])
        comoving *= 299_792.458 / 70 / 200_000
        near, far = comoving[100_000], comoving[-1]
        d, wrong = distances(), distances(compat=True)
        assert [d.lens, d.source, d.between] == pytest.approx([near / 1.5, far / 2, (far - near) / 2], rel=1e-6)
        assert [wrong.lens, wrong.source] == pytest.approx([near * 1.5, far * 2], rel=1e-6)
        assert wrong.between == pytest.approx(far * 2 - near * 1.5, rel=1e-6)

    def test_the_einstein_radius_of_a_galaxy(self):
        # 4 G M / c^2 of the sun is 5.907 km; a megaparsec is 3.0857e19 km.
        d = distances()
        theta = math.sqrt(5.9065e12 / 3.08568e19 * d.between / d.lens / d.source) * 206_264.8
        assert d.einstein_radius(1e12) == pytest.approx(theta, rel=1e-4)
        assert d.einstein_radius(4e12) == pytest.approx(2 * theta, rel=1e-4)
        assert distances(compat=True).einstein_radius(1e12) / theta == pytest.approx(0.770, abs=0.001)

    def test_what_is_stated_for_a_farther_source_is_weakened(self):
        assert restated() == pytest.approx(0.63428, abs=1e-5)

    @pytest.mark.parametrize(("e1", "e2"), [(0.1, 0.0), (-0.1, 0.1), (0.0, -0.3), (0.0, 0.0)])
    def test_ellipticities_and_axis_ratios(self, e1, e2):
        q, angle = axis_ratio(e1, e2)
        e = (1 - q) / (1 + q)
        assert (e * math.cos(2 * angle), e * math.sin(2 * angle)) == pytest.approx((e1, e2))

    def test_without_caustics_the_error_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "caustics.func", None)
        with pytest.raises(ResourceError, match=r"galdiff\[lenses\]"):
            caustics_functions()


class TestGalaxy:
    @pytest.mark.parametrize(("e1", "e2"), [(0.1, 0.0), (-0.05, 0.2)])
    def test_the_deflection_of_an_ellipsoid_is_that_of_kormann_1994(self, e1, e2):
        """Equation 27a there, with the axis ratio f and the angle from the minor axis, where its x axis is."""
        f, angle = axis_ratio(e1, e2)
        x, y = (t.numpy() for t in pixel_grid(20, 0.2))
        minor, major = -x * np.sin(angle) + y * np.cos(angle), x * np.cos(angle) + y * np.sin(angle)
        phi, rest = np.arctan2(major, minor), math.sqrt(1 - f**2)
        along_minor = math.sqrt(f) / rest * np.arcsinh(rest / f * np.cos(phi))
        along_major = math.sqrt(f) / rest * np.arcsin(rest * np.sin(phi))
        expected = 1.3 * np.stack(
            [
                along_major * np.cos(angle) - along_minor * np.sin(angle),
                along_major * np.sin(angle) + along_minor * np.cos(angle),
            ]
        )
        got = torch.stack(Galaxy(1.3, e1, e2, gamma1=0).deflection(*pixel_grid(20, 0.2))).numpy()
        np.testing.assert_allclose(got, expected, atol=1e-7)

    def test_a_sphere_bends_by_its_einstein_radius_everywhere(self):
        x, y = pixel_grid(15, 0.3)  # a ray goes through the center
        ax, ay = Galaxy(1.2, e1=0, gamma1=0).deflection(x, y)
        away = torch.hypot(x, y) > 0
        np.testing.assert_allclose(torch.hypot(ax, ay)[away], 1.2, rtol=1e-5)
        assert (ax[~away], ay[~away]) == (0, 0)

    def test_the_shear_stretches_one_axis_and_squeezes_the_other(self):
        x, y = pixel_grid(8, 0.3)
        with_shear = torch.stack(Galaxy(1.2, gamma1=0.05, gamma2=0.02).deflection(x, y))
        without = torch.stack(Galaxy(1.2, gamma1=0).deflection(x, y))
        expected = torch.stack([0.05 * x + 0.02 * y, 0.02 * x - 0.05 * y])
        np.testing.assert_allclose(with_shear - without, expected, atol=1e-12)


class TestSubstructure:
    def test_points_bend_by_the_square_of_their_radius_over_the_distance(self):
        points = PointMasses(column(0.3, -1.0), column(0.2, 0.1), column(0.1, 0.0))
        x, y = pixel_grid(10, 0.31)
        ax, ay = points.deflection(x, y)
        dx, dy = x - 0.3, y - 0.2
        np.testing.assert_allclose(ax[0], 0.01 * dx / (dx**2 + dy**2), rtol=1e-6)
        np.testing.assert_allclose(ay[0], 0.01 * dy / (dx**2 + dy**2), rtol=1e-6)

    @pytest.mark.parametrize("half_length", [0.03, 0.5, 3.0])
    def test_a_line_is_the_limit_of_many_points(self, half_length):
        line = VortexLine(column(0.3)[0], column(half_length)[0], column(0.7)[0])
        x, y = pixel_grid(12, 0.29)
        far_off = (y * math.cos(0.7) - x * math.sin(0.7)).abs() > 0.05
        exact = torch.stack(line.deflection(x, y))[:, 0, far_off]
        errors = []
        for count in (50, 100, 400):
            approximation = torch.stack(line.points(count).deflection(x, y))[:, 0, far_off]
            errors.append((approximation - exact).abs().max())
        assert errors[0] > 1.5 * errors[1] > 4 * errors[2]
        assert errors[2] < 0.02 * exact.abs().max()

    def test_a_line_has_the_mass_of_its_points_and_is_none_from_afar(self):
        line = VortexLine(column(0.3)[0], column(0.5)[0], column(1.1)[0])
        assert (line.points().radius ** 2).sum().item() == pytest.approx(0.09)
        x = torch.tensor([[40.0, 0.0]], dtype=torch.float64)
        ax, _ = line.deflection(x, torch.tensor([[0.0, 40.0]], dtype=torch.float64))
        assert ax[0, 0, 0].item() == pytest.approx(0.09 / 40, rel=1e-3)

    def test_a_halo_from_afar_is_a_point_of_its_mass_and_bends_less_within(self):
        d = distances()
        halo = TruncatedHalos(column(0.0), column(0.0), column(1e9), d)
        x = torch.tensor([[0.01, 0.3, 200.0]], dtype=torch.float64)
        ax, ay = halo.deflection(x, torch.zeros_like(x))
        share = ax[0, 0] * x[0] / d.einstein_radius(1e9) ** 2
        assert share[2].item() == pytest.approx(1, abs=0.02)
        assert 0 < share[0] < share[1] < share[2]
        assert ay.abs().max() < 1e-12

    def test_a_halo_of_no_mass_does_nothing(self):
        halo = TruncatedHalos(column(0.1), column(0.0), column(0.0), distances())
        assert torch.stack(halo.deflection(*pixel_grid(6, 0.5))).abs().max() == 0


class TestLight:
    @pytest.mark.parametrize("source", [Source(), Source(n=2.5, e1=0.2, e2=0), Source(compat=True)])
    def test_the_flux_of_a_source_is_the_sum_over_its_image(self, source):
        x, y = pixel_grid(800, 0.02)
        assert (source.brightness(x, y).sum() * 0.02**2).item() == pytest.approx(source.flux(), rel=5e-3)
        assert source.with_flux(7.0).flux() == pytest.approx(7.0)

    def test_half_of_the_light_is_within_the_half_light_radius(self):
        x, y = pixel_grid(800, 0.005)
        source = Source(e1=0, e2=0)
        light = source.brightness(x, y)
        assert (light[torch.hypot(x, y) < 0.25].sum() / light.sum()).item() == pytest.approx(0.5, abs=2e-3)

    def test_a_centered_source_behind_a_sphere_is_a_ring_of_the_einstein_radius(self):
        x, y = pixel_grid(200, 0.02, 2)
        light = trace(x, y, Galaxy(1.2, e1=0, gamma1=0), Source(e1=0, e2=0, radius=0.05), CENTERED)[0]
        r = torch.hypot(x, y)
        # caustics takes a millionth from an axis ratio of one.
        np.testing.assert_allclose(light, light.T, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(light, light.flip(0), rtol=1e-4, atol=1e-9)
        brightest = r[light > 0.9 * light.max()]
        assert brightest.mean().item() == pytest.approx(1.2, abs=0.002)
        assert brightest.std().item() < 0.01

    def test_magnification_by_a_sphere(self):
        """A source at b < R is magnified 2 R / b, beyond by 1 + R / b (Narayan & Bartelmann 1996); small sources."""
        x, y = pixel_grid(1500, 0.004)
        source = Source(radius=0.02, e1=0, e2=0)
        for b, expected in ((0.4, 2 * 0.8 / 0.4), (1.1, 1 + 0.8 / 1.1)):
            light = trace(x, y, Galaxy(0.8, e1=0, gamma1=0), source, column(b, 0.0))
            assert (light.sum() * 0.004**2 / source.flux()).item() == pytest.approx(expected, rel=0.01)

    def test_surface_brightness_is_conserved(self):
        x, y = pixel_grid(300, 0.02)
        source = Source()
        light = trace(x, y, Galaxy(1.2), source, column(0.1, -0.05))
        peak = source.amplitude * math.exp(float(caustics_functions().k_sersic(1.0)))
        assert 0.9 * peak < light.max() <= peak

    def test_no_deflection_shows_the_source_itself(self):
        x, y = pixel_grid(64, 0.05)
        seen = trace(x, y, Galaxy(1.2), Source(), column(0.2, 0.3), strength=0.0)[0]
        np.testing.assert_array_equal(seen, Source().brightness(x - 0.2, y - 0.3))

    def test_an_aligned_lens_is_symmetric_about_its_axes(self):
        x, y = pixel_grid(60, 0.08)
        round_source = Source(e1=0, e2=0)
        light = trace(x, y, Galaxy(1.2), round_source, CENTERED)[0]
        np.testing.assert_allclose(light, light.flip(0), rtol=1e-6)
        np.testing.assert_allclose(light, light.flip(1), rtol=1e-6)
        assert (light - light.T).abs().max() > 0.1 * light.max()

    def test_any_lens_turned_by_half_is_that_of_the_turned_source(self):
        x, y = pixel_grid(60, 0.08)
        light = trace(x, y, Galaxy(1.2), Source(), torch.cat([column(0.2, 0.1), column(-0.2, -0.1)]))
        np.testing.assert_allclose(light[0], light[1].flip(0, 1), rtol=1e-6)

    def test_substructure_changes_the_picture_near_it_first(self):
        x, y = pixel_grid(60, 0.08)
        point = PointMasses(column(1.2), column(0.3), column(0.05))
        plain, bent = (trace(x, y, Galaxy(1.2), Source(), column(0.1, 0.0), substructure=s)[0] for s in (None, point))
        change, distance = (bent - plain).abs(), torch.hypot(x - 1.2, y - 0.3)
        assert change[distance < 0.3].mean() > 20 * change[distance > 1.5].mean()


class TestPointSpread:
    def test_it_keeps_the_light_and_has_the_width_asked_for(self):
        light = torch.zeros(2, 60, 60, dtype=torch.float64)
        light[:, 30, 30] = 1
        seen = blur_and_bin(light, 6.0)
        np.testing.assert_allclose(seen.sum((1, 2)), 1)
        assert (seen[0, 30, 33] / seen[0, 30, 30]).item() == pytest.approx(0.5)
        np.testing.assert_allclose(seen[0], seen[0].T, atol=1e-15)

    @pytest.mark.parametrize("size", [32, 33])
    def test_pixels_are_the_means_of_their_samples(self, size):
        light = torch.rand(1, 3 * size, 3 * size, dtype=torch.float64)
        sharp = blur_and_bin(light, 1e-3, 3)
        expected = light.reshape(1, size, 3, size, 3).mean((2, 4))
        np.testing.assert_allclose(sharp, expected, atol=1e-12)


class TestAgainstLenstronomy:
    def test_deflections_and_light_are_the_same(self):
        lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", reason="lenstronomy is not installed")
        light_model = pytest.importorskip("lenstronomy.LightModel.light_model")
        x, y = pixel_grid(32, 0.2)
        shape = {"theta_E": 1.3, "e1": 0.1, "e2": -0.23, "center_x": 0, "center_y": 0}
        lens = lens_model.LensModel(["SIE", "SHEAR"])
        expected = lens.alpha(x.numpy(), y.numpy(), [shape, {"gamma1": 0.05, "gamma2": 0.03}])
        got = Galaxy(1.3, 0.1, -0.23, 0.05, 0.03).deflection(x, y)
        np.testing.assert_allclose(np.stack(got), np.stack(expected), atol=1e-7)
        sersic = {"amp": 20, "R_sersic": 0.25, "n_sersic": 1, "e1": -0.1, "e2": 0.1, "center_x": 0, "center_y": 0}
        brightness = light_model.LightModel(["SERSIC_ELLIPSE"]).surface_brightness(x.numpy(), y.numpy(), [sersic])
        np.testing.assert_allclose(Source(20.0, compat=True).brightness(x, y), brightness, rtol=1e-9)

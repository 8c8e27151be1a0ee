"""Simulated lenses: what is drawn, what the telescopes see, and seeds."""

import numpy as np
import pytest
import torch
from scipy import stats

from galdiff.errors import DataError
from galdiff.simulate.lenses import CLASSES, draw_lenses, simulate_lenses
from galdiff.simulate.substructure import draw_subhalos, draw_vortex
from galdiff.simulate.telescopes import TELESCOPES, Telescope

MANY = torch.arange(2000)


class TestPopulation:
    @pytest.mark.parametrize(("compat", "slope"), [(False, -1.9), (True, -0.9)])
    def test_subhalo_masses_follow_the_slope(self, compat, slope):
        mass = draw_subhalos(MANY, seed=3, compat=compat)[2]
        low, high = 1e6 ** (1 + slope), 1e10 ** (1 + slope)
        values = mass[mass > 0].numpy()
        assert values.min() > 0.999e6
        assert values.max() < 1.001e10
        assert stats.kstest(values, lambda m: (m ** (1 + slope) - low) / (high - low)).pvalue > 0.01

    def test_subhalos_are_25_on_average_or_always(self):
        number = (draw_subhalos(MANY, seed=3)[2] > 0).sum(1).double()
        assert number.mean().item() == pytest.approx(25, abs=4 * 5 / 2000**0.5)
        assert number.var().item() == pytest.approx(25, rel=0.15)
        assert ((draw_subhalos(MANY, seed=3, compat=True)[2] > 0).sum(1) == 25).all()

    def test_subhalos_lie_where_the_recipe_has_them(self):
        x, y, mass = draw_subhalos(MANY, seed=3)
        r, angle = (t[mass > 0].numpy() for t in (torch.hypot(x, y), torch.atan2(y, x)))
        assert stats.kstest(r, stats.uniform(0.25, 1.75).cdf).pvalue > 0.01
        assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01

    def test_vortices_are_as_long_as_the_wave_of_their_axion(self):
        mass, half_length, angle = draw_vortex(MANY, seed=3)
        np.testing.assert_allclose(half_length, 0.06 / (2 * mass) * 1e-22)
        assert stats.kstest(mass.log10(), stats.uniform(-24, 2).cdf).pvalue > 0.01
        assert stats.kstest(angle, stats.uniform(0, 2 * np.pi).cdf).pvalue > 0.01

    def test_the_table_has_what_was_drawn(self):
        truth = draw_lenses(900, seed=5)
        assert (truth["class"] == [CLASSES[i % 3] for i in range(900)]).all()
        cold, axion = (truth["class"] == name for name in ("cdm", "axion"))
        assert ((truth["subhalos"] > 0) == cold).all()
        assert (truth["axion_mass"].notna() == axion).all()
        assert stats.kstest(truth["source_x"], stats.uniform(-0.35, 0.7).cdf).pvalue > 0.01
        assert stats.kstest(np.log10(truth["exposure"]), stats.uniform(3, 0.5).cdf).pvalue > 0.01
        np.testing.assert_allclose(truth["sky"], (0.01 * truth["exposure"]) ** 2)


class TestSeeds:
    @pytest.mark.parametrize("options", [{"model": "II"}, {"model": "II", "subhalo": "nfw"}, {"compat": True}])
    def test_a_lens_is_the_same_in_any_batch(self, options):
        images, truth = simulate_lenses(9, seed=7, **options)
        later, truth_later = simulate_lenses(4, seed=7, start=4, **options)
        np.testing.assert_array_equal(later, images[4:8])
        assert truth_later.equals(truth[4:8].reset_index(drop=True))

    def test_other_seeds_give_other_lenses(self):
        assert not np.array_equal(simulate_lenses(1, seed=7)[0], simulate_lenses(1, seed=8)[0])

    def test_no_lenses_are_none(self):
        images, truth = simulate_lenses(0, seed=7)
        assert images.shape == (0, 150, 150)
        assert len(truth) == 0

    @pytest.mark.gpu
    def test_a_gpu_makes_the_same_lenses(self):
        here, there = (simulate_lenses(6, seed=7, model="II", device=device)[0] for device in ("cpu", "cuda"))
        # The last bit of a mean may tip a count.
        assert (np.abs(here - there) > 1e-9).mean() < 1e-3


class TestImages:
    @pytest.mark.parametrize(("model", "dtype"), [("I", np.int64), ("II", np.float64), ("III", np.float64)])
    def test_images_are_finite_and_of_the_size_and_type(self, model, dtype):
        images, _ = simulate_lenses(3, seed=1, model=model)
        assert images.dtype == dtype
        assert images.shape == (3, *2 * (TELESCOPES[model].size,))
        assert np.isfinite(images).all()

    def test_the_sky_of_model_i_has_its_mean_and_variance(self):
        images, truth = simulate_lenses(6, seed=1)
        corners = images[:, :15, :15].reshape(6, -1)
        np.testing.assert_allclose(corners.mean(1), truth["sky"], rtol=0.02)
        np.testing.assert_allclose(corners.var(1), truth["sky"], rtol=0.35)

    def test_the_sky_of_a_telescope_is_subtracted_and_its_noise_is_that_of_sky_and_readout(self):
        images, truth = simulate_lenses(6, seed=1, model="II")
        corners = np.concatenate([images[:, :8, :8].ravel(), images[:, -8:, -8:].ravel()])
        expected = np.sqrt(truth["sky"][0] + 4 * 4.2**2) / 2264
        assert abs(corners.mean()) < 0.3 * expected
        assert corners.std() == pytest.approx(expected, rel=0.1)

    def test_counts_vary_as_much_as_they_are_many(self):
        telescope = Telescope(4, 0.05, 0.087, 1)
        light = torch.tensor([0.003, 0.03, 0.3], dtype=torch.float64).repeat(4000, 1)[:, None]
        counts = telescope.observe(light, torch.full((4000,), 1000.0), seed=0, index=torch.arange(4000)).double()
        expected = torch.tensor([103.0, 130.0, 400.0])
        np.testing.assert_allclose(counts.mean(0)[0], expected, rtol=0.01)
        np.testing.assert_allclose(counts.var(0)[0], expected, rtol=0.1)

    def test_the_light_of_a_lens_is_its_magnified_source(self):
        """The same lens by both telescopes with magnitudes, in electrons a second of a star of magnitude 20."""
        seen = [simulate_lenses(1, seed=2, model=m)[0].sum() / TELESCOPES[m].rate(20.0) for m in ("II", "III")]
        assert seen[0] == pytest.approx(seen[1], rel=0.02)
        assert 3 < seen[0] < 40

    def test_finer_sampling_changes_little(self, monkeypatch):
        coarse = simulate_lenses(3, seed=2, model="II")[0]
        finer = Telescope(**(vars(TELESCOPES["II"]) | {"oversampling": 8}))
        monkeypatch.setitem(TELESCOPES, "II", finer)
        assert np.abs(simulate_lenses(3, seed=2, model="II")[0] - coarse).max() < 0.02 * coarse.max()

    def test_model_ii_of_the_authors_has_no_noise(self):
        images, _ = simulate_lenses(3, seed=2, model="II", compat=True)
        assert (images >= 0).all()
        assert images[:, 0].max() < 1e-3 * images.max()


@pytest.mark.parametrize(
    ("n", "options", "words"),
    [
        (-1, {}, "cannot be simulated"),
        (3, {"start": -1}, "cannot be simulated"),
        (3, {"model": "V"}, "Use I, II, III"),
        (3, {"subhalo": "cloud"}, "Use point or nfw"),
        (3, {"model": "III", "compat": True}, "Leave compat out"),
        (3, {"subhalo": "nfw", "compat": True}, "Leave compat out"),
    ],
)
def test_what_cannot_be_is_refused(n, options, words):
    with pytest.raises(DataError, match=words):
        draw_lenses(n, seed=0, **options)

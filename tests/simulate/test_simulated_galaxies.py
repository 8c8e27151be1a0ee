"""Simulated cutouts and their truth: reproducible, balanced, and different where they should be."""

import numpy as np
import pytest

from galdiff.errors import DataError
from galdiff.simulate.galaxies import simulate_galaxies
from galdiff.simulate.population import Galaxy, draw_population


@pytest.fixture(scope="module")
def sample():
    return simulate_galaxies(400, seed=11)


@pytest.fixture(scope="module")
def population():
    return draw_population(np.arange(8000), seed=5)


def test_a_galaxy_depends_on_its_seed_and_index_alone(sample):
    images, truth = sample
    part, part_truth = simulate_galaxies(70, seed=11, start=101, workers=1)
    np.testing.assert_array_equal(part, images[101:171])
    assert part_truth.equals(truth.iloc[101:171])
    other, _ = simulate_galaxies(2, seed=12)
    assert np.abs(other - images[:2]).max() > 0.1


def test_images_are_float32_display_units(sample):
    images, truth = sample
    assert images.shape == (400, 3, 64, 64)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1 + 1e-6
    assert len(truth) == 400


def test_the_sky_is_dark_and_the_galaxy_bright(sample):
    images, _ = sample
    corners = np.concatenate([images[..., :8, :8], images[..., -8:, -8:]], axis=-1)
    assert 2 / 255 < np.median(corners) < 8 / 255
    assert np.median(images[..., 28:36, 28:36]) > 0.25


def test_kinds_and_features_are_balanced(population):
    share = population["kind"].value_counts(normalize=True)
    assert share["elliptical"] == pytest.approx(0.25, abs=0.02)
    assert share["edge_on"] == pytest.approx(0.20, abs=0.02)
    disks = population[population["kind"] == "disk"]
    assert disks["has_spiral"].mean() == pytest.approx(0.6, abs=0.03)
    assert disks["has_bar"].mean() == pytest.approx(0.4, abs=0.03)
    spirals = disks[disks["has_spiral"]]
    assert abs(spirals["handedness"].mean()) < 4 / np.sqrt(len(spirals))
    assert set(spirals["n_arms"]) == {2, 3, 4}


def test_truth_is_consistent(population):
    disks = population[population["kind"] != "elliptical"]
    assert (disks["axis_ratio"] >= np.cos(np.radians(disks["inclination"])) - 1e-9).all()
    assert (population.loc[population["edge_on"], "axis_ratio"] < 0.25).all()
    assert (population.loc[population["kind"] == "disk", "axis_ratio"] > 0.49).all()
    shares = population["bulge_fraction"] + population["bar_fraction"]
    assert ((shares > 0) & (shares <= 1)).all()
    without = population[~population["has_spiral"]]
    assert not without[["n_arms", "pitch", "handedness", "arm_contrast"]].to_numpy().any()
    assert (population[["flux", "r_half", "psf_fwhm", "noise", "bulge_axis_ratio"]] > 0).all(axis=None)


def test_size_changes_the_pixel_scale_and_nothing_else(population):
    double = draw_population(np.arange(50), seed=5, size=128)
    assert (double["kind"] == population["kind"][:50]).all()
    assert double["r_half"].to_numpy() == pytest.approx(2 * population["r_half"][:50].to_numpy())
    images, _ = simulate_galaxies(12, seed=5, size=128)
    small, _ = simulate_galaxies(12, seed=5)
    binned = images.reshape(12, 3, 64, 2, 64, 2).mean(axis=(3, 5))
    assert np.abs(binned - small)[..., 24:40, 24:40].mean() < 0.02


def test_azimuthal_power_tells_spirals_from_smooth_disks(sample):
    images, truth = sample
    y, x = np.mgrid[:64, :64] - 31.5
    scores = []
    for image, g in zip(images, (Galaxy(**row) for row in truth.to_dict("records")), strict=True):
        dx, dy, angle = x - g.x, -y - g.y, np.radians(g.position_angle)
        u, v = np.cos(angle) * dx + np.sin(angle) * dy, (np.cos(angle) * dy - np.sin(angle) * dx) / g.axis_ratio
        ring, theta = (np.hypot(u, v) > 0.8 * g.r_half) & (np.hypot(u, v) < 1.8 * g.r_half), np.arctan2(v, u)
        light, theta = image.mean(0)[ring], theta[ring]
        scores.append(max(abs((light * np.exp(1j * m * theta)).sum()) for m in (2, 3, 4)) / light.sum())
    face_on = ((truth["kind"] == "disk") & ~truth["has_bar"]).to_numpy()
    spiral, score = truth["has_spiral"].to_numpy()[face_on], np.array(scores)[face_on]
    area_under_curve = (score[spiral][:, None] > score[~spiral][None, :]).mean()
    assert area_under_curve > 0.9


@pytest.mark.parametrize("wrong", [{"size": 63}, {"size": 8}, {"n": -1}, {"start": -1}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(DataError, match="cannot be simulated"):
        simulate_galaxies(**({"n": 2, "seed": 0} | wrong))

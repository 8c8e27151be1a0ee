"""Figures: the same images give the floor, others are far from it, and a few are too few."""

import numpy as np
import pytest

from galdiff.metrics import FEATURES, FeatureSpace, judge
from galdiff.pipeline.evaluation import evaluate


def galaxies(n, seed, *, size=32, radius=3.0, sky=0.02):
    rng = np.random.default_rng(seed)
    grid = np.arange(size) - (size - 1) / 2
    y, x = grid[:, None], grid[None]
    images = []
    for _ in range(n):
        q, a, h = rng.uniform(0.3, 1), rng.uniform(0, np.pi), radius * rng.uniform(0.7, 1.4)
        u, v = np.cos(a) * x + np.sin(a) * y, np.cos(a) * y - np.sin(a) * x
        light = np.exp(-np.hypot(u, v / q) / h)
        images.append(light[None] * rng.uniform(0.4, 0.9, (2, 1, 1)) + rng.normal(0.05, sky, (2, size, size)))
    return np.stack(images).astype(np.float32)


def figures(generated, n=300):
    train, real = galaxies(400, 0), galaxies(n, 1)
    result = evaluate(train, real, generated, bands=("g", "r"), draws=5)
    return {f.name: f for f in result.figures}, result.curves


@pytest.fixture(scope="module")
def same():
    return figures(galaxies(300, 2))


def test_the_same_population_is_as_far_as_the_floor(same):
    for name in ("FD_shape", "FD_all", "profile_difference", "spectrum_difference"):
        figure = same[0][name]
        assert figure.status == "ok"
        assert figure.n == 300
        assert 0 < figure.value < 4 * figure.floor + 2 * figure.error
    assert same[0]["power_above_half_Nyquist"].value == pytest.approx(1.0, abs=0.05)


def test_another_population_is_farther(same):
    other, _ = figures(galaxies(300, 2, radius=5.0))
    for name in ("FD_shape", "profile_difference", "W1_r50"):
        assert other[name].value > 3 * same[0][name].value


def test_noise_of_the_sky_moves_the_sky_features_alone(same):
    other, _ = figures(galaxies(300, 2, sky=0.03))
    assert other["W1_sky_noise"].value > 5 * same[0]["W1_sky_noise"].value
    # The share of noise in the power is squared: (0.03 / 0.02)^2 at most.
    assert 1.2 < other["power_above_half_Nyquist"].value < 2.3
    assert other["FD_all"].value > 3 * other["FD_shape"].value


class Brightness(FeatureSpace):
    name, width, protocol = "brightness", 1, "mean"

    def fit(self, images, unit, *, source="real images"):
        pass

    def measure(self, images):
        return images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None]


def test_another_family_of_figures_changes_no_other(same):
    result = evaluate(
        galaxies(400, 0), galaxies(300, 1), galaxies(300, 2), bands=("g", "r"), draws=5, features=[Brightness()]
    )
    found = {f.name: f for f in result.figures}
    own = {name: found.pop(name) for name in list(found) if name.endswith("[brightness]")}
    names = {"FD", "FD_infinity", "KID", "KID_subsets", "energy", "precision", "recall", "density", "coverage"}
    assert {name.split("[")[0] for name in own} == names
    assert {figure.status for figure in own.values()} == {"ok"}
    assert found == same[0]


def test_floors_have_error_bars_and_real_images_pass(same):
    for name, figure in same[0].items():
        if name == "flagged_fraction":
            assert figure.floor_error is not None
        elif name.startswith("p["):
            assert (figure.floor_error, figure.ideal) == (None, None)
            assert figure.value > 0.01
        else:
            assert figure.floor_error > 0
    assert "fail" not in judge(list(same[0].values()))


def test_curves_have_bands_and_sets(same):
    curves = same[1]
    assert curves["profile"].dims == ("set", "band", "radius")
    assert curves["set"].values.tolist() == ["real", "generated", "floor"]
    assert (curves["profile_low"] <= curves["profile_high"]).all()
    assert curves.sizes["feature"] == len(FEATURES)


@pytest.mark.parametrize(
    ("n", "few"),
    [
        (34, {"FD_shape", "FD_all", "FD_infinity_shape", "FD_infinity_all"}),
        (49, {"FD_all", "FD_infinity_shape", "FD_infinity_all"}),
    ],
)
def test_too_few_is_not_a_number(n, few):
    found, _ = figures(galaxies(n, 2))
    for name, figure in found.items():
        if name in few or not name.startswith("FD"):
            assert (figure.status, figure.value, figure.error, figure.floor) == ("too few", None, None, None)
            # Of some objects a statistic has no value.
            assert f"{n} images" in figure.note or (name.startswith("W1_morphology") and figure.n < n)
        else:
            assert figure.status == "ok"
            assert np.isfinite(figure.value)


def arcs(n, seed, radius):
    rng = np.random.default_rng(seed)
    grid = np.arange(32) - 15.5
    r = radius + rng.normal(0, 0.5, (n, 1, 1))
    images = np.exp(-((np.hypot(grid[:, None], grid) - r) ** 2) / 4) + rng.normal(0, 0.02, (n, 32, 32))
    return images[:, None].astype(np.float32)


def test_rings_of_lenses_are_measured_and_of_nothing_else(same):
    assert "W1_einstein_radius" not in same[0]
    found = {}
    for radius in (8.0, 9.0):
        result = evaluate(arcs(80, 0, 8.0), arcs(80, 1, 8.0), arcs(80, 2, radius), bands=("g",), draws=5, lenses=True)
        found[radius] = {f.name: f for f in result.figures}
        assert found[radius]["ring_found"].value == 1
        assert result.curves["einstein_radius"].dims == ("set", "sample")
    # A pixel over the half of one, or so, that rings scatter by.
    assert 1.5 < found[9.0]["W1_einstein_radius"].value < 3
    assert found[8.0]["W1_einstein_radius"].verdict(4.0) == "pass"
    # Galaxies' morphology says nothing of them.
    assert found[8.0]["flagged_fraction"].value > 0.9

"""Two-sample tests: exact under the null, powerful against small differences, corrected for the family."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics import adjusted_p, two_sample_test
from galdiff.metrics.two_sample import TESTS


def population(rng, n, *, size=0.0, noise=1.0):
    """Curves with strong correlations between bins, and heavy tails, as those of galaxies."""
    hidden = rng.normal(size=(n, 3)) + [size, 0, 0]
    radius, k = np.arange(12), np.arange(8)
    profile = np.exp(0.3 * hidden[:, :1] - radius / 4) * (1 + 0.05 * noise * rng.normal(size=(n, 12)))
    spectrum = np.exp(0.5 * hidden[:, 1:2] + 0.2 * rng.normal(size=(n, 8))) / (1 + k) ** 2
    return {"profile": profile, "spectrum": spectrum, "morphology": np.c_[hidden, rng.standard_t(3, size=(n, 2))]}


@pytest.fixture(scope="module")
def null():
    rng = np.random.default_rng(7)
    options = {"permutations": 1499, "energy_rows": 40, "bootstrap": 10}
    draws = [two_sample_test(population(rng, 60), population(rng, 45), seed=i, **options) for i in range(100)]
    return draws


def test_real_against_real_passes_in_95_of_100_draws(null):
    assert sum(draw.attrs["passes"] for draw in null) >= 95


def test_p_values_are_uniform_where_nothing_differs(null):
    p = np.stack([draw["p"].values for draw in null])
    assert p.shape == (100, 3, 3)
    uniform = [scipy.stats.kstest(p[:, i, j], "uniform").pvalue for i in range(3) for j in range(3)]
    assert min(uniform) > 0.01 / len(uniform)
    bins = np.stack([draw["p_bin"].values for draw in null])
    # Corrected for the bins of a statistic: few below alpha, though there are many bins.
    assert (bins[:, :12].min(axis=1) < 0.05).mean() < 0.15


def test_z_of_bins_is_standard_normal_where_nothing_differs():
    rng = np.random.default_rng(1)
    options = {"permutations": 299, "energy_rows": 10, "bootstrap": 300}
    z = [
        two_sample_test(rng.normal(size=(100, 3)), rng.normal(size=(80, 3)), seed=i, **options)["z"].values
        for i in range(60)
    ]
    assert np.std(z) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("changes", "statistic", "test"),
    [
        ({"size": 0.35}, "profile", "max_z"),
        ({"size": 0.35}, "morphology", "hotelling"),
        ({"noise": 2.0}, "profile", "energy"),
    ],
)
def test_small_differences_are_found_where_they_are(changes, statistic, test):
    rng = np.random.default_rng(2)
    found = two_sample_test(population(rng, 400), population(rng, 400, **changes), permutations=999, energy_rows=400)
    assert not found.attrs["passes"]
    assert found["differs"].sel(statistic=statistic, test=test)
    assert not found["differs"].sel(statistic="spectrum").any()


def test_hotelling_sees_what_the_largest_z_does_not():
    """A shift against the correlation of the bins: small in each, impossible together."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=(2, 300, 1)) * 3
    a, b = common + 0.3 * rng.normal(size=(2, 300, 6))
    found = two_sample_test(a, b + 0.15 * np.array([1, -1, 1, -1, 1, -1]), permutations=999)
    assert found["p"].sel(statistic="statistic", test="hotelling") == 0.001
    assert found["p"].sel(statistic="statistic", test="max_z") > 0.05


def test_more_bins_than_images():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(30, 80)), rng.normal(size=(30, 80)) + 0.5
    found = two_sample_test(a, b, permutations=999)
    assert found["differs"].sel(test="hotelling").all()


def test_error_and_covariance_are_those_of_the_difference_of_means():
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(4, 4))
    a, b = rng.normal(size=(200, 4)) @ mix + 1e6, rng.normal(size=(300, 4)) @ mix + 1e6
    found = two_sample_test(a, b, bootstrap=4000, permutations=299)
    exact = np.cov(a, rowvar=False) / 200 + np.cov(b, rowvar=False) / 300
    np.testing.assert_allclose(found["covariance"], exact, atol=0.1 * exact.max())
    np.testing.assert_allclose(found["error"], np.sqrt(exact.diagonal()), rtol=0.06)
    np.testing.assert_allclose(found["difference"], a.mean(0) - b.mean(0), atol=1e-8)
    np.testing.assert_allclose(found["z"], found["difference"] / found["error"])


def test_permutations_by_hand():
    """All three statistics of one bin of six images, over all twenty relabelings."""
    from itertools import combinations

    x = np.array([0.1, 0.7, 0.4, 2.0, 1.5, 2.2])
    found = two_sample_test(x[:3, None], x[3:, None], permutations=20_000, alpha=0.2, energy_rows=3)
    gaps = [abs(x[list(c)].mean() - np.delete(x, c).mean()) for c in combinations(range(6), 3)]
    energy = [scipy.stats.energy_distance(x[list(c)], np.delete(x, c)) for c in combinations(range(6), 3)]
    for test, values in zip(TESTS, (gaps, gaps, energy), strict=True):
        expected = np.mean(np.array(values) >= values[0] - 1e-12)
        assert found["p"].sel(test=test).item() == pytest.approx(expected, abs=0.01)
    apart = np.abs(x[:, None] - x).mean()
    assert found["observed"].sel(test="energy").item() == pytest.approx(2 * energy[0] ** 2 / apart)


def test_constant_bins_say_nothing():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    found, with_constant = (
        two_sample_test(np.c_[x, 0.1 * c], np.c_[y, 0.1 * c], permutations=299)
        if c is not None
        else two_sample_test(x, y, permutations=299)
        for x, y, c in ((a, b, None), (a, b, np.ones(50)))
    )
    assert np.isnan(with_constant["z"].values[3])
    assert np.isnan(with_constant["p_bin"].values[3])
    np.testing.assert_allclose(with_constant["p"], found["p"])
    same = two_sample_test(np.ones((9, 2)), np.ones((9, 2)), permutations=299)
    assert same.attrs["passes"]
    assert (same["p"] == 1).all()


def test_one_seed_one_answer_that_is_kept_in_zarr(tmp_path):
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(50, 3))
    one, again, other = (two_sample_test(a, b, seed=s, permutations=299) for s in (1, 1, 2))
    assert one.identical(again)
    one.to_zarr(tmp_path / "tests.zarr", zarr_format=3, consolidated=False)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "tests.zarr", consolidated=False).load(), one)
    assert not one["p"].equals(other["p"])


def test_corrections():
    """Values worked out by hand from Holm 1979 and Benjamini & Hochberg 1995."""
    p = np.array([[0.01, 0.04], [0.03, 0.005]])
    np.testing.assert_allclose(adjusted_p(p), [[0.03, 0.06], [0.06, 0.02]])
    np.testing.assert_allclose(adjusted_p(p, "benjamini-hochberg"), [[0.02, 0.04], [0.04, 0.02]])
    random = np.random.default_rng(0).random(50)
    np.testing.assert_allclose(adjusted_p(random, "benjamini-hochberg"), scipy.stats.false_discovery_control(random))
    assert (adjusted_p(random) >= adjusted_p(random, "benjamini-hochberg")).all()
    with pytest.raises(DataError, match="bonferroni"):
        adjusted_p(p, "bonferroni")
    with pytest.raises(DataError, match="not in"):
        adjusted_p(np.array([1.5]))


X = np.random.default_rng(0).normal(size=(20, 2))


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        ({"profile": X}, {"spectrum": X}, {}, "same statistics"),
        ({"profile": X}, X, {}, "same statistics"),
        ({}, {}, {}, "same statistics"),
        ({"profile": X, "spectrum": X[:5]}, {"profile": X, "spectrum": X}, {}, "different images"),
        (X, X, {"permutations": 99}, "relabelings"),
        (X, X, {"alpha": 2.0}, "relabelings"),
        (X, X, {"bootstrap": 1}, "resamplings"),
        (X, X, {"correction": "none"}, "unknown correction"),
    ],
)
def test_bad_arguments(a, b, options, words):
    with pytest.raises(DataError, match=words):
        two_sample_test(a, b, **{"permutations": 999, **options})

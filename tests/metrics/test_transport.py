"""Wasserstein and energy distances against SciPy, closed forms and plain loops."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from galdiff.errors import DataError
from galdiff.metrics import energy_distance, sliced_wasserstein, statistic_distances, wasserstein_distance

rng = np.random.default_rng(0)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), n=st.integers(1, 30), m=st.integers(1, 30), whole=st.booleans())
def test_scipy_one_statistic_at_a_time(seed, n, m, whole):
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(n, 3)), 1 + 2 * draw.normal(size=(m, 3))
    if whole:
        a, b = a.round(), b.round()
    columns = list(zip(a.T, b.T, strict=True))
    expected = [scipy.stats.wasserstein_distance(*pair) for pair in columns]
    np.testing.assert_allclose(wasserstein_distance(a, b), expected, rtol=1e-12, atol=1e-14)
    energy = [scipy.stats.energy_distance(*pair) for pair in columns]
    for (x, y), value in zip(columns, energy, strict=True):
        assert energy_distance(x[:, None], y[:, None]) == pytest.approx(value, rel=1e-7, abs=1e-7)
    if n > 1:
        found = statistic_distances(a, b, names=["r50", "gini", "m20"])
        np.testing.assert_allclose(found["energy"], energy, rtol=1e-10, atol=1e-12)
        ks = [scipy.stats.ks_2samp(*pair, method="asymp").statistic for pair in columns]
        np.testing.assert_allclose(found["ks"], ks, rtol=1e-12)
        assert found["statistic"].values.tolist() == ["r50", "gini", "m20"]


def test_a_shift_is_the_distance_and_the_scaled_one_has_no_units():
    a = rng.normal(size=(500, 2)) * [1, 100]
    found = statistic_distances(a, a + [0.5, 50])
    assert found["wasserstein"].values == pytest.approx([0.5, 50])
    assert found["wasserstein_scaled"].values == pytest.approx(0.5 / (a / [1, 100]).std(0, ddof=1))
    constant = statistic_distances(np.ones((5, 1)), np.zeros((5, 1)))
    assert np.isnan(constant["wasserstein_scaled"]).all()
    assert constant["wasserstein"].item() == 1
    assert constant["ks"].item() == 1


def test_joint_energy_over_pairs():
    a, b = rng.normal(size=(40, 5)), rng.normal(0.3, 1.2, size=(30, 5))

    def mean(x, y):
        return np.mean([np.linalg.norm(p - q) for p in x for q in y])

    assert energy_distance(a, b) ** 2 == pytest.approx(2 * mean(a, b) - mean(a, a) - mean(b, b), rel=1e-10)
    assert energy_distance(a, a) == pytest.approx(0, abs=1e-7)


def test_the_joint_distance_sees_a_correlation_that_no_statistic_has():
    z = rng.normal(size=(1500, 2))
    other = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=1500)
    same = rng.normal(size=(1500, 2))
    assert energy_distance(z, other) > 3 * energy_distance(z, same)
    assert sliced_wasserstein(z, other) > 3 * sliced_wasserstein(z, same)
    assert wasserstein_distance(z, other).max() < 3 * wasserstein_distance(z, same).max()


def test_sliced_distance_of_a_shift():
    """The mean of |cos| over the sphere: 2 / pi in the plane."""
    a = rng.normal(size=(100, 2))
    assert sliced_wasserstein(a, a + [3, 4], projections=4000) == pytest.approx(5 * 2 / np.pi, rel=0.02)
    assert sliced_wasserstein(a, a[::-1]) == pytest.approx(0, abs=1e-15)


def test_blocks_of_rows_do_not_matter(monkeypatch):
    a, b = rng.normal(size=(40, 5)), rng.normal(size=(30, 5))
    whole = energy_distance(a, b)
    monkeypatch.setattr("galdiff.metrics.transport._ROWS", 7)
    assert energy_distance(a, b) == pytest.approx(whole, rel=1e-10)


def test_bad_arguments():
    with pytest.raises(DataError, match="1 names for 2 statistics"):
        statistic_distances(np.ones((3, 2)), np.ones((3, 2)), names=["r50"])
    with pytest.raises(DataError, match="projections"):
        sliced_wasserstein(np.ones((3, 2)), np.ones((3, 2)), projections=0)

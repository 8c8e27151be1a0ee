"""Fréchet distance against closed forms and SciPy's matrix root."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from galdiff.errors import DataError
from galdiff.metrics import Whitening, frechet_distance


def exact(n, mean, covariance, seed=0):
    """Draw samples whose mean and covariance are exactly those asked for."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(np.asarray(covariance, float)).T + mean


def test_closed_form_of_normals_with_the_same_axes():
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25])
    one, other = exact(50, np.zeros(3), np.diag(a)), exact(80, np.array([1.0, 2.0, -2.0]), np.diag(b), seed=1)
    assert frechet_distance(one, other) == pytest.approx(9.0 + np.square(np.sqrt(a) - np.sqrt(b)).sum(), rel=1e-10)


@pytest.mark.parametrize("d", [1, 2, 10, 40])
def test_matrix_root_of_scipy(d):
    rng = np.random.default_rng(d)
    one, other = rng.normal(size=(200, d)) @ rng.normal(size=(d, d)), rng.normal(size=(150, d)) + 0.3
    cov = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (one, other)]
    root = scipy.linalg.sqrtm(cov[0] @ cov[1])
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(cov[0] + cov[1] - 2 * root.real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


@given(seed=st.integers(0, 1000), n=st.integers(2, 30), d=st.integers(1, 6))
def test_laws(seed, n, d):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), 2 * rng.normal(size=(n + 3, d)) + 1
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    distance = frechet_distance(a, b)
    # A set smaller than its dimension has a singular covariance, whose root keeps half of the digits.
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert distance > 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert frechet_distance(a @ turn + 5, b @ turn + 5) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-6, abs=1e-6)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * d, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.ones((3, 2)), np.ones((3, 4)), "shapes"),
        (np.ones((1, 2)), np.ones((3, 2)), "2 rows or more"),
        (np.ones(3), np.ones(3), "shape"),
        (np.array([[1.0, np.nan], [0, 0]]), np.ones((3, 2)), "not finite"),
    ],
)
def test_bad_features(a, b, words):
    with pytest.raises(DataError, match=words):
        frechet_distance(a, b)


def test_whitening_standardizes_its_reference_and_clips_outliers():
    x = np.random.default_rng(0).normal(3, 2, size=(500, 4))
    whiten = Whitening.fit(x)
    np.testing.assert_allclose(whiten(x).mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(whiten(x).std(0), 1, atol=1e-2)
    assert whiten(x + 1e6).max() == 5.0
    constant = Whitening.fit(np.ones((5, 1)))
    assert np.isfinite(constant(np.zeros((2, 1)))).all()

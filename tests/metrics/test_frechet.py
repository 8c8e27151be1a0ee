"""Fréchet distance against closed forms, SciPy's matrix root and the eigenvalues that FID is published with."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from galdiff.errors import DataError
from galdiff.metrics import Moments, Whitening, frechet_distance, frechet_infinity
from galdiff.metrics.frechet import fewest_to_extrapolate


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


def published(a, b):
    """Return the formula of torch-fidelity and torchmetrics: eigenvalues of the product of the covariances."""
    cov = [np.cov(x, rowvar=False) for x in (a, b)]
    trace = np.sqrt(np.linalg.eigvals(cov[0] @ cov[1]).astype(complex)).real.sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov[0]) + np.trace(cov[1]) - 2 * trace


@pytest.mark.parametrize(("n", "d"), [(500, 64), (100, 64), (40, 64), (2000, 200)])
def test_eigenvalues_of_the_product_of_covariances(n, d):
    """Also of sets that are smaller than their dimension, whose covariances are singular."""
    rng = np.random.default_rng(n)
    spectrum = np.arange(1, d + 1) ** -0.7
    a, b = rng.normal(size=(n, d)) * spectrum, rng.normal(size=(n + 7, d)) * spectrum[::-1] + 0.1
    assert frechet_distance(a, b) == pytest.approx(published(a, b), rel=1e-6)
    assert frechet_distance(Moments.of(a), b) == pytest.approx(frechet_distance(a, b), rel=1e-12)


@pytest.mark.parametrize("n", [12, 30, 500])
def test_equal_sets_are_at_zero_to_rounding_even_where_singular(n):
    a = np.random.default_rng(0).normal(size=(n, 20)) @ np.diag(np.arange(20.0))
    assert abs(frechet_distance(a, a[::-1].copy())) < 1e-10
    assert frechet_distance(np.ones((n, 3)), np.zeros((n, 3))) == pytest.approx(3)


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


@pytest.mark.parametrize("fixed", [False, True])
def test_infinity_is_the_distance_of_the_populations(fixed):
    """Closed form of normals; the floor that stays at a finite number of samples is gone, within the errors."""
    rng = np.random.default_rng(3)
    sigma, shift, d = 1.3, 0.1, 12
    truth = d * (shift**2 + (sigma - 1) ** 2)
    fits = []
    for _ in range(8):
        a, b = rng.normal(size=(40_000 if fixed else 1500, d)), shift + sigma * rng.normal(size=(1200, d))
        fits.append(frechet_infinity(a, b, fixed=fixed, rungs=5, groups=5 if len(fits) < 4 else 0))
    values = np.array([fit.value for fit in fits])
    assert values.mean() == pytest.approx(truth, abs=3 * values.std() / np.sqrt(7) + 0.02 * truth)
    assert np.mean([fit.slope for fit in fits]) > 0
    jackknife = np.mean([fit.error for fit in fits[:4]])
    assert 0.4 < jackknife / values.std(ddof=1) < 2.5
    assert np.isnan(fits[-1].error)
    assert fits[0].sizes.tolist() == [1200, 600, 400, 300, 240]


def test_infinity_of_one_population_is_zero_within_its_error():
    rng = np.random.default_rng(0)
    fits = [frechet_infinity(rng.normal(size=(600, 5)), rng.normal(size=(600, 5)), rungs=5, seed=s) for s in range(12)]
    assert np.mean([abs(fit.value) < 2 * fit.error for fit in fits]) > 0.7
    assert all(fit.slope > 3 * abs(fit.value) or abs(fit.value) < 2 * fit.error for fit in fits)


def test_the_line_is_that_of_numpy():
    rng = np.random.default_rng(1)
    fit = frechet_infinity(rng.normal(size=(300, 3)), rng.normal(size=(300, 3)), groups=0)
    k = np.arange(1, len(fit.distances) + 1)
    (slope, value), covariance = np.polyfit(k, fit.distances, 1, cov=True)
    assert (fit.slope, fit.value) == pytest.approx((slope, value))
    assert fit.fit_error == pytest.approx(np.sqrt(covariance[1, 1]))


def test_too_few_to_extrapolate():
    x = np.random.default_rng(0).normal(size=(50, 10))
    with pytest.raises(DataError, match="too few") as raised:
        frechet_infinity(x, x)
    # Where it says that there are enough, a fit has its three rungs, and with one less it has not.
    for width, groups in ((10, 10), (7, 10), (3, 4), (1, 2), (5, 0)):
        needed = fewest_to_extrapolate(width, groups=groups)
        rows = np.random.default_rng(1).normal(size=(needed, width))
        assert len(frechet_infinity(rows, rows, groups=groups).sizes) == 3
        with pytest.raises(DataError, match="too few"):
            frechet_infinity(rows[1:], rows, groups=groups)
    assert "67" in raised.value.remedy
    with pytest.raises(DataError, match="groups"):
        frechet_infinity(x, x, groups=1)

"""Precision, recall, density and coverage against the dense formula in exact arithmetic, and prdc itself."""

import contextlib
import io
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galdiff.metrics import Fidelity, authentic_share, manifold, precision_recall
from galdiff.metrics.pairs import nearest


def squares(x, y):
    return [
        [sum((Fraction(float(p)) - Fraction(float(q))) ** 2 for p, q in zip(a, b, strict=True)) for b in y] for a in x
    ]


def dense(real, fake, k):
    """Naeem et al. 2020, equations 3 to 6, in fractions: no rounding and so no doubt about ties."""
    reach = [
        [sorted(row)[k] for row in squares(x, x)] for x in (real, fake)
    ]  # The nearest of all is the sample itself.
    cross = squares(real, fake)
    n, m = len(real), len(fake)
    in_real = np.array([[cross[i][j] < reach[0][i] for j in range(m)] for i in range(n)])
    in_fake = np.array([[cross[i][j] < reach[1][j] for j in range(m)] for i in range(n)])
    return (
        in_real.any(0).mean(),
        in_fake.any(1).mean(),
        in_real.sum() / (k * m),
        np.mean([min(cross[i]) < reach[0][i] for i in range(n)]),
    )


@given(seed=st.integers(0, 10_000), k=st.integers(1, 4), whole=st.booleans(), offset=st.sampled_from([0.0, 1e6]))
def test_equal_to_exact_arithmetic_with_ties_and_copies(seed, k, whole, offset):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(14, 3)), rng.normal(size=(11, 3))
    if whole:  # Nearly every comparison is a tie.
        real, fake = np.round(real), np.round(fake)
    fake[:3] = real[:3]
    real, fake = real + offset, fake + offset
    assert precision_recall(real, fake, k=k) == pytest.approx(dense(real, fake, k), abs=1e-15)


@pytest.mark.parametrize("block", [1 << 23, 700])
def test_prdc(block, monkeypatch):
    prdc = pytest.importorskip("prdc", reason="prdc is not installed")
    monkeypatch.setattr("galdiff.metrics.pairs._BLOCK", block)
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(300, 16)), rng.normal(0.1, 0.9, size=(250, 16))
    with contextlib.redirect_stdout(io.StringIO()):
        expected = prdc.compute_prdc(real, fake, 5)
    found = precision_recall(real, torch.from_numpy(fake), k=5)
    assert found._asdict() == pytest.approx(expected, abs=1e-12)


def test_one_population_has_the_values_that_are_known_for_its_dimension():
    """Two sets of 1,000 normal samples of 64 dimensions, k = 5: 0.736, 0.740, 1.040, 0.974 in one published draw."""
    rng = np.random.default_rng(0)
    draws = [precision_recall(rng.normal(size=(1000, 64)), rng.normal(size=(1000, 64))) for _ in range(4)]
    mean, spread = np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1)
    assert mean == pytest.approx([0.736, 0.740, 1.040, 0.974], abs=0.06)
    assert (np.abs(mean - [0.736, 0.740, 1.040, 0.974]) < 5 * spread).all()


def test_what_each_of_them_sees():
    rng = np.random.default_rng(2)
    real = np.concatenate([rng.normal(size=(200, 2)), rng.normal(20, 1, size=(200, 2))])
    one_mode, outliers = rng.normal(size=(400, 2)), np.concatenate([real[:300] + 0.01, rng.normal(-50, 1, (100, 2))])
    dropped, dirty = precision_recall(real, one_mode), precision_recall(real, outliers)
    assert dropped.precision > 0.9
    assert dropped.recall < 0.55
    assert dropped.coverage < 0.55
    assert dirty.precision == pytest.approx(0.75, abs=0.02)
    assert precision_recall(real, real) == Fidelity(1.0, 1.0, pytest.approx(1.0), 1.0)


def test_constant_features_are_in_no_open_ball():
    assert precision_recall(np.ones((10, 3)), np.ones((10, 3))) == (0, 0, 0, 0)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
def test_neighbors_are_those_of_exact_arithmetic(seed, k):
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(13, 2)), 1)
    squared, index = nearest(torch.from_numpy(x), torch.from_numpy(x), k, same=True)
    for i, row in enumerate(squares(x, x)):
        order = sorted((d, j) for j, d in enumerate(row) if j != i)[:k]
        assert squared[i].tolist() == pytest.approx([float(d) for d, _ in order], rel=1e-12)
        assert i not in index[i].tolist()


def test_copies_are_not_authentic():
    rng = np.random.default_rng(3)
    train, fresh = rng.normal(size=(500, 8)), rng.normal(size=(400, 8))
    gap = np.linalg.norm(fresh[:, None] - train, axis=2)
    own = np.linalg.norm(train[:, None] - train, axis=2) + np.diag(np.full(500, np.inf))
    expected = (own.min(1)[gap.argmin(1)] < gap.min(1)).mean()
    assert authentic_share(train, fresh) == pytest.approx(expected, abs=1e-12)
    assert authentic_share(train, train[:100] + 1e-9) == 0
    mixed = np.concatenate([fresh, train[:100] + 1e-3])
    assert authentic_share(train, mixed) == pytest.approx(0.8 * expected, abs=1e-12)
    assert manifold.authentic_share(train, train + 100) == 1

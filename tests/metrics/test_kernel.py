"""Kernel distances against plain loops over pairs, torch-fidelity's subsets and closed forms."""

import numpy as np
import pytest
import torch

from galdiff.errors import DataError
from galdiff.metrics import GaussianKernel, kernel_distance, polynomial_kernel, squared_mmd

rng = np.random.default_rng(0)
A, B = rng.normal(size=(60, 7)), rng.normal(0.2, 1.1, size=(45, 7))


def by_pairs(a, b, kernel):
    within = [np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (a, b)]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])


def test_polynomial_kernel_over_pairs():
    expected = by_pairs(A, B, lambda x, y: (x @ y / 7 + 1) ** 3)
    assert squared_mmd(A, B) == pytest.approx(expected, rel=1e-10)
    assert squared_mmd(B, A) == pytest.approx(expected, rel=1e-10)


def test_gaussian_kernel_over_pairs_and_its_bandwidth():
    kernel = GaussianKernel.median(A, B)
    pooled = np.concatenate([A, B])
    distances = [np.linalg.norm(pooled[i] - pooled[j]) for i in range(105) for j in range(i)]
    assert kernel.bandwidth == pytest.approx(np.median(distances), rel=1e-12)
    expected = by_pairs(A, B, lambda x, y: np.exp(-np.square(x - y).sum() / (2 * kernel.bandwidth**2)))
    assert squared_mmd(A, B, kernel=kernel) == pytest.approx(expected, rel=1e-9)


def test_gaussian_closed_form():
    """Two normals of one variable: every mean of the kernel is that of a normal difference."""
    s, shift = 1.5, 0.7
    a, b = rng.normal(size=(4000, 1)), shift + rng.normal(size=(4000, 1))
    same, cross = s / np.sqrt(s**2 + 2), s / np.sqrt(s**2 + 2) * np.exp(-(shift**2) / (2 * (s**2 + 2)))
    assert squared_mmd(a, b, kernel=GaussianKernel(s)) == pytest.approx(2 * same - 2 * cross, rel=0.15)


def test_no_bias_at_any_number_of_samples():
    values = [squared_mmd(rng.normal(size=(20, 5)), rng.normal(size=(20, 5))) for _ in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)
    assert min(values) < 0


def test_blocks_of_rows_do_not_matter(monkeypatch):
    whole = squared_mmd(A, B)
    monkeypatch.setattr("galdiff.metrics.kernel._ROWS", 13)
    assert squared_mmd(A, B) == pytest.approx(whole, rel=1e-10)


def test_subsets_are_those_of_torch_fidelity():
    """Its order of draws: for every subset rows of the first set, then of the second."""
    state, values = np.random.RandomState(2020), []
    for _ in range(20):
        x, y = A[state.choice(60, 30, replace=False)], B[state.choice(45, 30, replace=False)]
        xx, yy, xy = ((p @ q.T / 7 + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = sum(k.sum() - np.trace(k) for k in (xx, yy)) / (30 * 29)
        values.append(within - 2 * xy.sum() / 30**2)
    found = kernel_distance(A, B, subsets=20, subset_size=30)
    assert found == pytest.approx((np.mean(values), np.std(values)), rel=1e-10)


def test_single_precision_and_tensors():
    single = kernel_distance(A.astype(np.float32), torch.from_numpy(B).float(), subsets=5, subset_size=30)
    assert single.value == pytest.approx(kernel_distance(A, B, subsets=5, subset_size=30).value, abs=1e-5)
    assert polynomial_kernel(torch.ones(2, 3), torch.ones(4, 3)).tolist() == [[8.0] * 4] * 2


def test_too_small_sets_say_what_to_do():
    with pytest.raises(DataError, match="100 subsets of 1000 rows cannot be drawn from 45") as raised:
        kernel_distance(A, B)
    assert "squared_mmd" in raised.value.remedy
    with pytest.raises(DataError, match="bandwidth"):
        GaussianKernel.median(np.ones((5, 2)), np.ones((5, 2)))

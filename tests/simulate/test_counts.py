"""Poisson counts against the distribution's own formulas."""

import numpy as np
import pytest
import torch
from scipy import stats

from galdiff.simulate.counts import poisson

N = 40_000


def draw(mean, n=N, *, seed=0, start=0):
    index = torch.arange(start, start + n)
    return poisson(torch.full((n,), mean, dtype=torch.float64), seed=seed, stream="test", index=index)


@pytest.mark.parametrize("mean", [0.05, 1.0, 9.9, 10.1, 30.0, 700.0, 50_000.0])
def test_counts_have_the_distribution(mean):
    counts = draw(mean).numpy()
    assert counts.dtype == np.int64
    edges = np.unique(stats.poisson.ppf(np.linspace(0, 1, 21)[1:-1], mean))
    bins = np.searchsorted(edges, counts)
    expected = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]])) * N
    seen = np.bincount(bins, minlength=len(expected))
    kept = expected > 5
    assert stats.chisquare(seen[kept], expected[kept] * seen[kept].sum() / expected[kept].sum()).pvalue > 1e-3
    assert abs(counts.mean() - mean) < 4 * np.sqrt(mean / N)
    assert abs(counts.var() / mean - 1) < 4 * np.sqrt((2 + 1 / mean) / N)


def test_no_light_is_no_counts():
    assert not draw(0.0).any()


def test_a_pixel_depends_on_its_own_mean_and_index_alone():
    index = torch.arange(6)
    mean = torch.tensor([3.0, 400.0, 12.0], dtype=torch.float64).expand(6, 3)
    together = poisson(mean, seed=1, stream="test", index=index)
    assert torch.equal(together[4:], poisson(mean[4:], seed=1, stream="test", index=index[4:]))
    other = mean.clone()
    other[:, 0] = 5000.0
    assert torch.equal(together[:, 1:], poisson(other, seed=1, stream="test", index=index)[:, 1:])
    assert not torch.equal(together, poisson(mean, seed=2, stream="test", index=index))


def test_small_and_large_means_are_independent_of_each_other():
    mean = torch.tensor([[5.0, 500.0]], dtype=torch.float64).expand(4000, 2)
    counts = poisson(mean, seed=0, stream="test", index=torch.arange(4000)).numpy()
    assert abs(np.corrcoef(counts.T)[0, 1]) < 4 / np.sqrt(4000)

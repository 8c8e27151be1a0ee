"""Moments: the same from any parts in any order, and from large offsets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galdiff.errors import DataError
from galdiff.metrics import Moments, frechet_distance


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_moments_of_parts_are_those_of_the_whole(seed, cuts):
    x = np.random.default_rng(seed).normal(3, 2, size=(60, 4))
    whole = Moments.empty(4)
    for part in np.split(x, sorted(cuts)):
        if len(part):
            whole = whole.update(part)
    mean, covariance = whole.compute()
    assert whole.count == 60
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False), rtol=1e-12, atol=1e-14)


def test_an_offset_of_a_billion_loses_no_digits_of_the_covariance():
    x = np.random.default_rng(0).integers(-8, 8, size=(400, 3)).astype(float)
    merged = Moments.of(x[:100] + 1e9).merge(Moments.of(x[100:] + 1e9))
    # The mean itself has a rounding of 1e-7 there.
    np.testing.assert_allclose(merged.compute()[1], np.cov(x, rowvar=False), rtol=1e-6, atol=1e-6)


def test_single_precision_is_summed_in_double():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert Moments.of(x).mean.dtype == torch.float64
    np.testing.assert_allclose(Moments.of(x).mean, x.double().mean(0), rtol=1e-14)


def test_bad_moments():
    with pytest.raises(DataError, match="no covariance"):
        Moments.of(np.ones((1, 2))).compute()
    with pytest.raises(DataError, match="3 and 2 features"):
        Moments.empty(3).merge(Moments.empty(2))
    with pytest.raises(DataError, match="shapes"):
        frechet_distance(Moments.of(np.ones((4, 2))), Moments.of(np.ones((4, 3))))
    with pytest.raises(DataError, match="no covariance"):
        frechet_distance(Moments.of(np.ones((4, 2))), Moments.empty(2))

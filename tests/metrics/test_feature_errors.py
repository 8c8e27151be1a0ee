"""What every distance says to features that it cannot use, and what constant features give."""

import numpy as np
import pytest
import torch

from galdiff import metrics
from galdiff.errors import DataError

LABELS = np.arange(30) % 2
FUNCTIONS = {
    "frechet": metrics.frechet_distance,
    "infinity": lambda a, b: metrics.frechet_infinity(a, b, groups=0),
    "class": lambda a, b: metrics.class_distances(a, LABELS, b, LABELS),
    "sliding": lambda a, b: metrics.sliding_distances(a, LABELS, b, LABELS),
    "mmd": metrics.squared_mmd,
    "kernel": lambda a, b: metrics.kernel_distance(a, b, subsets=2, subset_size=10),
    "median": metrics.GaussianKernel.median,
    "precision_recall": metrics.precision_recall,
    "authentic": metrics.authentic_share,
    "wasserstein": metrics.wasserstein_distance,
    "energy": metrics.energy_distance,
    "sliced": metrics.sliced_wasserstein,
    "statistics": metrics.statistic_distances,
    "two_sample": lambda a, b: metrics.two_sample_test(a, b, permutations=299, bootstrap=10),
}
GOOD = np.random.default_rng(0).normal(size=(30, 2))
WITH_NAN = np.where(np.arange(60).reshape(30, 2) == 7, np.nan, GOOD)
BAD = {
    "empty": np.empty((0, 2)),
    "no columns": np.empty((30, 0)),
    "a vector": np.ones(30),
    "a scalar": 3.0,
    "images": np.ones((30, 2, 2)),
    "NaN": WITH_NAN,
    "infinite": np.where(np.isnan(WITH_NAN), np.inf, GOOD),
    "another width": np.ones((30, 3)),
    "text": np.array([["a", "b"]] * 30),
    "nothing": None,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_features_are_a_clear_error_on_either_side(name, bad):
    for pair in ((GOOD, BAD[bad]), (BAD[bad], GOOD)):
        with pytest.raises(DataError, match="features"):
            FUNCTIONS[name](*pair)


# A single row has distances, but neither a spread nor neighbors.
SINGLE = {"wasserstein", "energy", "sliced", "median"}


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - SINGLE - {"class", "sliding"}))
def test_a_single_row_is_an_error(name):
    with pytest.raises(DataError):
        FUNCTIONS[name](GOOD[:1], GOOD[1:2])


def test_a_single_row_where_it_has_a_distance():
    one, other = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])
    assert metrics.wasserstein_distance(one, other).tolist() == [3, 4]
    assert metrics.energy_distance(one, other) == pytest.approx(np.sqrt(10))
    assert np.isnan(metrics.class_distances(one, [0], other, [0])["distance"]).all()
    with pytest.raises(DataError, match="slide"):
        metrics.sliding_distances(one, [0], other, [0])


def test_constant_features():
    ones, twos = np.ones((30, 2)), np.full((30, 2), 2.0)
    assert metrics.frechet_distance(ones, twos) == pytest.approx(2)
    assert metrics.frechet_infinity(ones, twos).value == pytest.approx(2)
    assert metrics.squared_mmd(ones, ones) == pytest.approx(0, abs=1e-12)
    assert metrics.kernel_distance(ones, ones, subset_size=10) == pytest.approx((0, 0), abs=1e-12)
    assert metrics.precision_recall(ones, twos) == (0, 0, 0, 0)
    assert metrics.authentic_share(ones, ones) == 0
    assert metrics.wasserstein_distance(ones, twos).tolist() == [1, 1]
    assert metrics.energy_distance(ones, ones) == 0
    assert metrics.two_sample_test(ones, ones, permutations=299).attrs["passes"] == 1
    assert metrics.two_sample_test(ones, twos, permutations=299).attrs["passes"] == 0


def test_tensors_arrays_and_lists_are_the_same():
    single = GOOD.astype(np.float32)
    for kind in (torch.from_numpy(single), single.tolist(), np.asfortranarray(single), single[::-1][::-1]):
        assert metrics.frechet_distance(kind, GOOD + 1) == metrics.frechet_distance(single, GOOD + 1)
    tracked = torch.from_numpy(GOOD).requires_grad_()
    assert metrics.energy_distance(tracked, tracked) == 0

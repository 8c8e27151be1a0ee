"""Distances of features on CUDA are those on the CPU."""

import numpy as np
import pytest
import torch

from galdiff import metrics

rng = np.random.default_rng(0)
A, B = rng.normal(size=(300, 6)), rng.normal(0.2, 1.1, size=(250, 6))
FUNCTIONS = {
    "frechet": metrics.frechet_distance,
    "infinity": lambda a, b: metrics.frechet_infinity(a, b, groups=3).value,
    "class": lambda a, b: metrics.class_distances(a, np.arange(300) % 2, b, np.arange(250) % 2)["distance"].values,
    "kernel": lambda a, b: metrics.kernel_distance(a, b, subsets=5, subset_size=100),
    "gaussian": lambda a, b: metrics.squared_mmd(a, b, kernel=metrics.GaussianKernel.median(a, b)),
    "precision_recall": metrics.precision_recall,
    "authentic": metrics.authentic_share,
    "statistics": lambda a, b: metrics.statistic_distances(a, b).to_array().values,
    "energy": metrics.energy_distance,
    "sliced": metrics.sliced_wasserstein,
    "two_sample": lambda a, b: metrics.two_sample_test(a, b, permutations=999)["p"].values,
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_the_same(name):
    there = FUNCTIONS[name](torch.from_numpy(A).cuda(), torch.from_numpy(B))
    np.testing.assert_allclose(there, FUNCTIONS[name](A, B), rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["FrechetDistance", "PrecisionRecall"])
def test_streams_are_the_same(name):
    options = (6,) if name == "FrechetDistance" else ()
    here, there = getattr(metrics, name)(*options), getattr(metrics, name)(*options).to("cuda")
    for metric in (here, there):
        metric.update(A, real=True)
        metric.update(B, real=False)
    np.testing.assert_allclose(there.compute().cpu(), here.compute(), rtol=1e-10)

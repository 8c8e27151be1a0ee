"""Distances of features: the Fréchet distance beside SciPy's matrix root, neighbors beside prdc."""

import contextlib
import io

import numpy as np
import scipy.linalg

from galdiff.metrics import frechet_distance, precision_recall

from .clock import best


def features(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5


class Frechet:
    timeout = 600

    def track_seconds(self):
        """Of Inception's width and of the number of images that is usual: below ten on two cores."""
        a, b = features(10_000, 2048, 0), features(10_000, 2048, 1)
        return best(lambda: frechet_distance(a, b), rounds=1)

    def track_times_as_fast_as_matrix_root(self):
        a, b = features(2500, 512, 0), features(2500, 512, 1)

        def by_root():
            one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
            trace = np.trace(one) + np.trace(other) - 2 * np.trace(scipy.linalg.sqrtm(one @ other).real)
            return np.square(a.mean(0) - b.mean(0)).sum() + trace

        return best(by_root, rounds=2) / best(lambda: frechet_distance(a, b), rounds=2)

    track_seconds.unit = "s"
    track_times_as_fast_as_matrix_root.unit = "x"


class Neighbors:
    timeout = 600

    def track_times_as_fast_as_prdc(self):
        from prdc import compute_prdc

        real, fake = features(4000, 512, 0), features(4000, 512, 1)

        def theirs():
            with contextlib.redirect_stdout(io.StringIO()):
                return compute_prdc(real, fake, 5)

        return best(theirs, rounds=2) / best(lambda: precision_recall(real, fake, k=5), rounds=2)

    track_times_as_fast_as_prdc.unit = "x"

r"""The maximum mean discrepancy between two sets of features.

.. math:: \mathrm{MMD}^2 = \langle k(x, x') \rangle + \langle k(y, y') \rangle - 2 \langle k(x, y) \rangle

over pairs of different samples (Gretton et al. 2012, JMLR 13, 723, eq. 3): it has no bias at any number of samples, and
so may be negative. With the cubic kernel :math:`(x \cdot y / d + 1)^3`, averaged over subsets, it is the kernel
distance (KID; Bińkowski et al. 2018, arXiv:1801.01401).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.rows import as_pair

__all__ = ["GaussianKernel", "Kernel", "KernelEstimate", "kernel_distance", "polynomial_kernel", "squared_mmd"]

Kernel = Callable[[Tensor, Tensor], Tensor]
"""From rows ``(n, d)`` and ``(m, d)`` to ``(n, m)``."""
_ROWS = 2048


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (x . y / d + 1)^3 of all pairs of rows, ``(n, m)``."""
    return (x @ y.T / x.shape[1] + 1) ** 3


@dataclass(frozen=True)
class GaussianKernel:
    r"""The kernel :math:`\exp(-|x - y|^2 / 2 s^2)`, which sees every difference of two distributions.

    Attributes
    ----------
    bandwidth : float
        The length s, in units of the features.
    """

    bandwidth: float

    @classmethod
    def median(cls, features_a: Any, features_b: Any, *, rows: int = 1000) -> GaussianKernel:
        """Take as bandwidth the median distance of pairs (Gretton et al. 2012, section 8).

        Parameters
        ----------
        features_a, features_b : array_like
            ``(n, d)`` and ``(m, d)``.
        rows : int
            Rows of each set, evenly spaced, that are looked at.

        Raises
        ------
        DataError
            If more than half of the pairs are equal.
        """
        a, b = as_pair(features_a, features_b)
        pooled = torch.cat([x[:: max(1, len(x) // rows)][:rows] for x in (a, b)])
        bandwidth = float(np.median(torch.pdist(pooled).cpu().numpy()))
        if not bandwidth > 0:
            raise DataError("most rows of features are equal: their distances give no bandwidth")
        return cls(bandwidth)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the kernel of all pairs of rows, ``(n, m)``."""
        return (torch.cdist(x, y).square() / (-2 * self.bandwidth**2)).exp()


class KernelEstimate(NamedTuple):
    """Mean over subsets, and its standard deviation over them (not of their mean)."""

    value: float
    std: float


def squared_mmd(features_a: Any, features_b: Any, *, kernel: Kernel = polynomial_kernel) -> float:
    """Return the unbiased estimate from all pairs of rows.

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite.
    kernel : callable
        `polynomial_kernel` or a `GaussianKernel`.

    Raises
    ------
    DataError
        For fewer than two rows, mismatched widths, or values that are not finite.
    """
    a, b = as_pair(features_a, features_b, minimum=2)
    return _within(a, kernel) + _within(b, kernel) - 2 * _sum(a, b, kernel) / (len(a) * len(b))


def kernel_distance(
    features_a: Any,
    features_b: Any,
    *,
    kernel: Kernel = polynomial_kernel,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> KernelEstimate:
    """Average `squared_mmd` over random subsets (KID).

    Parameters
    ----------
    features_a, features_b : array_like
        ``(n, d)`` and ``(m, d)``, finite.
    kernel : callable
        `polynomial_kernel` or a `GaussianKernel`.
    subsets : int
        How many.
    subset_size : int
        Rows of each, drawn without replacement.
    seed : int
        Of the subsets; they are those that torch-fidelity draws for the same seed.

    Raises
    ------
    DataError
        For sets smaller than a subset, mismatched widths, or values that are not finite.
    """
    a, b = as_pair(features_a, features_b)
    fewest = min(len(a), len(b))
    if subsets < 1 or not 2 <= subset_size <= fewest:
        raise DataError(
            f"{subsets} subsets of {subset_size} rows cannot be drawn from {fewest}",
            remedy="Ask for a smaller subset_size, or use squared_mmd, which takes all rows",
        )
    rng = np.random.RandomState(seed)  # The generator of old, whose subsets published values have.
    values = []
    for _ in range(subsets):
        picks = (torch.from_numpy(rng.choice(len(x), subset_size, replace=False)).to(x.device) for x in (a, b))
        values.append(squared_mmd(a[next(picks)], b[next(picks)], kernel=kernel))
    return KernelEstimate(float(np.mean(values)), float(np.std(values)))


def _sum(a: Tensor, b: Tensor, kernel: Kernel) -> float:
    return sum(float(kernel(x, y).sum()) for x in a.split(_ROWS) for y in b.split(_ROWS))


def _within(x: Tensor, kernel: Kernel) -> float:
    """Mean of the kernel over pairs of different rows."""
    own = sum(float(kernel(part, part).trace()) for part in x.split(64))
    return (_sum(x, x, kernel) - own) / (len(x) * (len(x) - 1))

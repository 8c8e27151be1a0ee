r"""Mean and covariance, measured in parts.

Two parts with counts :math:`n_a, n_b`, means and scatters :math:`S = \sum (x - \bar x)(x - \bar x)^T` merge to

.. math:: \bar x = \bar x_a + \tfrac{n_b}{n} \delta, \qquad
          S = S_a + S_b + \tfrac{n_a n_b}{n} \delta \delta^T, \qquad \delta = \bar x_b - \bar x_a

(Chan, Golub & LeVeque 1983, *The American Statistician* 37, 242, eq. 2.1), which loses no digits where sums of squares
do. So it does not matter how rows are cut into batches, blocks or processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.rows import as_features

__all__ = ["Moments"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and scatter of features; immutable.

    Attributes
    ----------
    count : int
        Rows seen.
    mean : Tensor
        float64 ``(d,)``.
    scatter : Tensor
        Sum of the outer products of what deviates from the mean, float64 ``(d, d)``.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, width: int, *, device: torch.device | str | None = None) -> Moments:
        """Return the moments of no rows."""
        mean = torch.zeros(width, dtype=torch.float64, device=device)
        return cls(0, mean, torch.zeros(width, width, dtype=torch.float64, device=device))

    @classmethod
    def of(cls, features: Any) -> Moments:
        """Measure features ``(n, d)``.

        Raises
        ------
        DataError
            For features that are not finite, or not a table.
        """
        x = as_features(features)
        mean = x.mean(dim=0)
        x = x - mean
        return cls(len(x), mean, x.T @ x)

    def update(self, features: Any) -> Moments:
        """Return the moments with more rows."""
        return self.merge(Moments.of(features))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both.

        Raises
        ------
        DataError
            For another number of features.
        """
        if self.mean.shape != other.mean.shape:
            raise DataError(f"moments of {len(self.mean)} and {len(other.mean)} features cannot be merged")
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean.to(self.mean.device) - self.mean
        scatter = self.scatter + other.scatter.to(self.mean.device)
        between = torch.outer(delta, delta) * (self.count * other.count / count)
        return Moments(count, self.mean + delta * (other.count / count), scatter + between)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the mean ``(d,)`` and the unbiased covariance ``(d, d)``.

        Raises
        ------
        DataError
            For fewer than two rows.
        """
        if self.count < 2:
            raise DataError(f"{self.count} rows have no covariance")
        return self.mean, self.scatter / (self.count - 1)

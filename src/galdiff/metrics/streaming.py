"""The distances as streaming metrics (`torchmetrics.Metric`): `update` with features as they come, then `compute`.

Neither batches nor processes change a value: moments are merged without loss, and rows that are kept are put in
lexicographic order before they are measured. A sampler that repeats rows to fill the last batch of a process does
change it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from galdiff.errors import DataError
from galdiff.metrics.frechet import frechet_distance
from galdiff.metrics.kernel import Kernel, kernel_distance, polynomial_kernel
from galdiff.metrics.manifold import authentic_share, precision_recall
from galdiff.metrics.moments import Moments
from galdiff.metrics.rows import as_features
from galdiff.metrics.transport import energy_distance, wasserstein_distance

__all__ = [
    "AuthenticShare",
    "EnergyDistance",
    "FrechetDistance",
    "KernelDistance",
    "PrecisionRecall",
    "WassersteinDistance",
]


class FrechetDistance(Metric):
    """`galdiff.metrics.frechet_distance` from moments: memory does not grow with the rows.

    Parameters
    ----------
    width : int
        Number of features.
    **options
        Of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = True  # Moments of several processes or steps cannot be added state by state.

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        if width < 1:
            raise DataError(f"{width} features, not 1 or more")
        for side in ("real", "generated"):
            # Without a reduction, states of processes are stacked, and `compute` merges them.
            self.add_state(f"{side}_count", torch.tensor(0), dist_reduce_fx=None)
            self.add_state(f"{side}_mean", torch.zeros(width, dtype=torch.float64), dist_reduce_fx=None)
            self.add_state(f"{side}_scatter", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, features: Any, real: bool) -> None:
        """Add rows ``(n, d)`` to either set."""
        side = "real" if real else "generated"
        moments = self._moments(side).update(as_features(features).to(self.device))
        setattr(self, f"{side}_count", torch.tensor(moments.count, device=self.device))
        setattr(self, f"{side}_mean", moments.mean)
        setattr(self, f"{side}_scatter", moments.scatter)

    def compute(self) -> Tensor:
        """Return the distance, float64."""
        value = frechet_distance(self._moments("real"), self._moments("generated"))
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def _moments(self, side: str) -> Moments:
        count, mean, scatter = (getattr(self, f"{side}_{name}") for name in ("count", "mean", "scatter"))
        width = mean.shape[-1]
        parts = zip(count.reshape(-1).tolist(), mean.reshape(-1, width), scatter.reshape(-1, width, width), strict=True)
        whole = Moments.empty(width, device=mean.device)
        for part in parts:
            whole = whole.merge(Moments(*part))
        return whole


class _Rows(Metric):
    """Keeps all rows of both sets."""

    is_differentiable = False
    full_state_update = False
    real: list[Tensor]
    generated: list[Tensor]
    width: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # A process without rows is asked for none of this type, in one dimension.
        self.set_dtype(torch.float64)
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("width", torch.tensor(0), dist_reduce_fx="max")

    def update(self, features: Any, real: bool) -> None:
        """Add rows ``(n, d)`` to either set."""
        x = as_features(features).to(self.device)
        if self.width not in (0, x.shape[1]):
            raise DataError(f"features have shape {tuple(x.shape)}, after others of width {int(self.width)}")
        self.width = torch.tensor(x.shape[1], device=self.device)
        (self.real if real else self.generated).append(x.flatten())

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Return both sets, each in lexicographic order."""
        sets = []
        for state in (self.real, self.generated):
            parts = [state] if isinstance(state, Tensor) else state
            if not sum(part.numel() for part in parts):
                raise DataError("no features were given of one of the sets")
            x = torch.cat(parts).view(-1, int(self.width))
            sets.append(x[torch.from_numpy(np.lexsort(x.cpu().numpy().T[::-1])).to(x.device)])
        return sets[0], sets[1]


class KernelDistance(_Rows):
    """`galdiff.metrics.kernel_distance`: mean over subsets and its standard deviation, float64 ``(2,)``.

    Parameters
    ----------
    kernel, subsets, subset_size, seed
        Of the function.
    **options
        Of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        kernel: Kernel = polynomial_kernel,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 2020,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kernel, self.subsets, self.subset_size, self.seed = kernel, subsets, subset_size, seed

    def compute(self) -> Tensor:
        """Return the mean and the standard deviation."""
        drawn = {"subsets": self.subsets, "subset_size": self.subset_size, "seed": self.seed}
        value = kernel_distance(*self._rows(), kernel=self.kernel, **drawn)
        return torch.tensor(value, dtype=torch.float64, device=self.device)


class PrecisionRecall(_Rows):
    """`galdiff.metrics.precision_recall`: precision, recall, density and coverage, float64 ``(4,)``.

    Parameters
    ----------
    k : int
        Which neighbor a ball reaches to.
    **options
        Of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, *, k: int = 5, **options: Any) -> None:
        super().__init__(**options)
        self.k = k

    def compute(self) -> Tensor:
        """Return the four shares."""
        value = precision_recall(*self._rows(), k=self.k)
        return torch.tensor(value, dtype=torch.float64, device=self.device)


class AuthenticShare(_Rows):
    """`galdiff.metrics.authentic_share`; ``real`` rows are those of the training set."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the share."""
        return torch.tensor(authentic_share(*self._rows()), dtype=torch.float64, device=self.device)


class EnergyDistance(_Rows):
    """`galdiff.metrics.energy_distance`."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the joint distance."""
        return torch.tensor(energy_distance(*self._rows()), dtype=torch.float64, device=self.device)


class WassersteinDistance(_Rows):
    """`galdiff.metrics.wasserstein_distance`: of every statistic, float64 ``(d,)``."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the distances."""
        return torch.from_numpy(wasserstein_distance(*self._rows())).to(self.device)

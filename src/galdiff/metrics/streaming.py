"""The distances as streaming metrics (`torchmetrics.Metric`): `update` with features as they come, then `compute`.

Neither batches nor processes change a value: moments are merged without loss, and rows that are kept are put in
lexicographic order before they are measured. A sampler that repeats rows to fill the last batch of a process does
change it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from galdiff.errors import DataError
from galdiff.metrics.conditional import class_distances, sliding_distances
from galdiff.metrics.frechet import frechet_distance, frechet_infinity
from galdiff.metrics.kernel import kernel_distance, squared_mmd
from galdiff.metrics.manifold import authentic_share, precision_recall
from galdiff.metrics.moments import Moments
from galdiff.metrics.rows import as_features
from galdiff.metrics.transport import (
    energy_distance,
    sliced_wasserstein,
    statistic_distances,
    wasserstein_distance,
)

__all__ = [
    "AuthenticShare",
    "ClassDistances",
    "EnergyDistance",
    "FrechetDistance",
    "FrechetInfinity",
    "KernelDistance",
    "PrecisionRecall",
    "SlicedWasserstein",
    "SlidingDistances",
    "SquaredMMD",
    "StatisticDistances",
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
    """Keeps all rows of both sets, for a function of them; its keywords are options of the metric too."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    function: ClassVar[Callable[..., Any]]
    real: list[Tensor]
    generated: list[Tensor]
    width: Tensor

    def __init__(self, **options: Any) -> None:
        known = inspect.signature(type(self).function).parameters
        self.options = {name: options.pop(name) for name in list(options) if name in known}
        super().__init__(**options)
        # A process without rows is asked for none of this type, in one dimension.
        self.set_dtype(torch.float64)
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("width", torch.tensor(0), dist_reduce_fx="max")

    def update(self, features: Any, real: bool) -> None:
        """Add rows ``(n, d)`` to either set."""
        self._add(as_features(features), real)

    def compute(self) -> Tensor:
        """Return the function's value or values, float64."""
        return self._tensor(type(self).function(*self._rows(), **self.options))

    def _add(self, x: Tensor, real: bool) -> None:
        x = x.to(self.device)
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

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float64, device=self.device)


class _Parts(_Rows):
    """Keeps the label of every row as well, a number, in the last column."""

    def update(self, features: Any, labels: Any, real: bool) -> None:  # type: ignore[override]
        """Add rows ``(n, d)`` with their labels ``(n,)`` to either set."""
        x, y = as_features(features), as_features(torch.as_tensor(np.asarray(labels))[:, None])
        if len(x) != len(y):
            raise DataError(f"{len(y)} labels are given of {len(x)} rows of features")
        self._add(torch.cat([x, y.to(x.device)], dim=1), real)

    def compute(self) -> Tensor:
        """Return the distance of every part, float64; NaN where there are too few rows."""
        a, b = self._rows()
        found = type(self).function(a[:, :-1], a[:, -1], b[:, :-1], b[:, -1], **self.options)
        return self._tensor(found["distance"])


class KernelDistance(_Rows):
    """`galdiff.metrics.kernel_distance`: mean over subsets and its standard deviation, float64 ``(2,)``.

    Parameters
    ----------
    kernel, subsets, subset_size, seed
        Of the function.
    **options
        Of `torchmetrics.Metric`.
    """

    function = kernel_distance


class SquaredMMD(_Rows):
    """`galdiff.metrics.squared_mmd`.

    Parameters
    ----------
    kernel
        Of the function.
    **options
        Of `torchmetrics.Metric`.
    """

    function = squared_mmd


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
    function = precision_recall


class AuthenticShare(_Rows):
    """`galdiff.metrics.authentic_share`; ``real`` rows are those of the training set."""

    higher_is_better = True
    function = authentic_share


class EnergyDistance(_Rows):
    """`galdiff.metrics.energy_distance`: the joint distance."""

    function = energy_distance


class WassersteinDistance(_Rows):
    """`galdiff.metrics.wasserstein_distance`: of every statistic, float64 ``(d,)``."""

    function = wasserstein_distance


class StatisticDistances(_Rows):
    """`galdiff.metrics.statistic_distances`: its variables of every statistic, in their order, float64 ``(4, d)``."""

    function = statistic_distances

    def _tensor(self, values: Any) -> Tensor:
        return super()._tensor(values.to_dataarray())


class SlicedWasserstein(_Rows):
    """`galdiff.metrics.sliced_wasserstein`.

    Parameters
    ----------
    projections, seed
        Of the function.
    **options
        Of `torchmetrics.Metric`.
    """

    function = sliced_wasserstein


class FrechetInfinity(_Rows):
    """`galdiff.metrics.frechet_infinity`: value, error, error of the fit and slope, float64 ``(4,)``.

    Parameters
    ----------
    rungs, fixed, groups, seed
        Of the function.
    **options
        Of `torchmetrics.Metric`.
    """

    function = frechet_infinity

    def _tensor(self, values: Any) -> Tensor:
        return super()._tensor([values.value, values.error, values.fit_error, values.slope])


class ClassDistances(_Parts):
    """`galdiff.metrics.class_distances`: of every class that there is, in their order, float64 ``(class,)``.

    Parameters
    ----------
    distance, minimum
        Of the function.
    **options
        Of `torchmetrics.Metric`.
    """

    function = class_distances


class SlidingDistances(_Parts):
    """`galdiff.metrics.sliding_distances`: of every window, float64 ``(window,)``.

    Parameters
    ----------
    windows, width, span, distance, minimum
        Of the function.
    **options
        Of `torchmetrics.Metric`.
    """

    function = sliding_distances

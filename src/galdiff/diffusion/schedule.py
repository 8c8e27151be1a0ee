r"""Noise schedules.

A schedule maps a time :math:`t \in [0, 1]` to the signal scale :math:`\alpha_t` and the noise scale :math:`\sigma_t` of

.. math:: x_t = \alpha_t x + \sigma_t \epsilon, \qquad \epsilon \sim \mathcal N(0, I),

with clean data at t = 0. The log signal-to-noise ratio is :math:`\lambda_t = 2 \log(\alpha_t / \sigma_t)`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from galdiff.errors import GaldiffError

__all__ = ["EDM", "RectifiedFlow", "Schedule"]


class Schedule(ABC):
    """Signal and noise scales as functions of time; tensors in, tensors of the same shape and type out."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description; `from_dict` is its inverse."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio of powers, infinite at a clean or an empty end."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def noise(self, x: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """Return :math:`x_t`; ``t`` is ``(n,)``."""
        t = t.view(-1, *[1] * (x.ndim - 1))
        return self.alpha(t) * x + self.sigma(t) * epsilon

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Schedule:
        """Build a schedule from its description.

        Raises
        ------
        GaldiffError
            For an unknown kind.
        """
        fields = dict(fields)
        kinds: dict[str, type[Schedule]] = {"rectified_flow": RectifiedFlow, "edm": EDM}
        kind = fields.pop("kind", None)
        if kind not in kinds:
            raise GaldiffError(f"unknown schedule '{kind}'", remedy=f"Known: {', '.join(kinds)}")
        return kinds[kind](**fields)


class RectifiedFlow(Schedule):
    """Straight lines between data and noise, alpha = 1 - t, sigma = t (Liu et al. 2022, arXiv:2209.03003)."""

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale."""
        return t

    def time(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`: a logistic function."""
        return torch.sigmoid(-log_snr / 2)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": "rectified_flow"}


class EDM(Schedule):
    """Growing noise on unscaled data, alpha = 1, sigma log-linear in t (Karras et al. 2022, arXiv:2206.00364).

    Parameters
    ----------
    sigma_min, sigma_max : float
        Noise at t = 0 and t = 1, for data of unit variance.
    """

    def __init__(self, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        if not 0 < sigma_min < sigma_max:
            raise GaldiffError(f"sigma_min {sigma_min} and sigma_max {sigma_max} are not in order")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale."""
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return torch.exp(low + t * (high - low))

    def time(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`."""
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return (-log_snr / 2 - low) / (high - low)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": "edm", "sigma_min": self.sigma_min, "sigma_max": self.sigma_max}

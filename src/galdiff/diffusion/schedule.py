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

__all__ = ["EDM", "Cosine", "Linear", "RectifiedFlow", "Schedule", "Shifted", "Sigmoid", "VariancePreserving"]


class Schedule(ABC):
    """Signal and noise scales as functions of time; tensors in, tensors of the same shape and type out.

    Attributes
    ----------
    family : {"straight", "variance_preserving", "exploding"}
        Whether alpha + sigma, alpha^2 + sigma^2 or alpha is one at all times.
    """

    family: str

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

    @property
    def ends_empty(self) -> bool:
        """Whether nothing is left of the signal at t = 1, as far as a network in float32 can tell."""
        return bool(self.alpha(torch.ones((), dtype=torch.float64)) < 1e-6)

    def ends(self) -> tuple[float, float]:
        """Return the ratios of noise to signal at t = 0 and of signal to noise at t = 1, both none to samplers."""
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        alpha, sigma = self.alpha(t).tolist(), self.sigma(t).tolist()
        return sigma[0] / alpha[0], alpha[1] / sigma[1]

    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio of powers, infinite at a clean or an empty end."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def noise(self, x: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """Return :math:`x_t`; ``t`` is ``(n,)``."""
        t = t.view(-1, *[1] * (x.ndim - 1))
        return self.alpha(t) * x + self.sigma(t) * epsilon

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Schedule:
        """Build a schedule from its description; with a ``shift`` other than 1 it is `Shifted`.

        Raises
        ------
        GaldiffError
            For an unknown kind.
        """
        fields = dict(fields)
        kind, shift = fields.pop("kind", None), fields.pop("shift", 1.0)
        if kind not in _KINDS:
            raise GaldiffError(f"unknown schedule '{kind}'", remedy=f"Known: {', '.join(_KINDS)}")
        schedule = _KINDS[kind](**fields)
        return schedule if shift == 1 else Shifted(schedule, shift)


class RectifiedFlow(Schedule):
    """Straight lines between data and noise, alpha = 1 - t, sigma = t (Liu et al. 2022, arXiv:2209.03003)."""

    family = "straight"

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

    family = "exploding"

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


class VariancePreserving(Schedule):
    r"""Schedules with :math:`\alpha^2 + \sigma^2 = 1`, each by its curve of :math:`\alpha`.

    Ends are computed in float64: :math:`1 - \alpha^2` loses its digits near clean data.
    """

    family = "variance_preserving"

    @abstractmethod
    def _alpha(self, t: Tensor) -> Tensor:
        """Signal scale in float64."""

    @abstractmethod
    def _time(self, alpha: Tensor) -> Tensor:
        """Inverse of `_alpha`."""

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale."""
        return self._alpha(t.double()).clamp(0.0, 1.0).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale."""
        alpha = self._alpha(t.double()).clamp(0.0, 1.0)
        return ((1 - alpha) * (1 + alpha)).sqrt().to(t.dtype)

    def time(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`."""
        return self._time(torch.sigmoid(log_snr.double()).sqrt()).to(log_snr.dtype)


class Cosine(VariancePreserving):
    r""":math:`\alpha = \cos(u \pi / 2) / \cos(u_0 \pi / 2)`, :math:`u = (t + s) / (1 + s)`.

    Nichol & Dhariwal 2021 (arXiv:2102.09672), Equation 17; nothing is left of the signal at t = 1.

    Parameters
    ----------
    offset : float
        s: keeps the first steps from being too small.
    """

    def __init__(self, *, offset: float = 0.008) -> None:
        if not 0 <= offset < math.inf:
            raise GaldiffError(f"an offset of {offset} is negative, or none")
        self.offset = offset
        self._first = math.cos(math.pi / 2 * offset / (1 + offset))

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.cos(math.pi / 2 * (t + self.offset) / (1 + self.offset)) / self._first

    def _time(self, alpha: Tensor) -> Tensor:
        return torch.acos(alpha * self._first) * (2 / math.pi) * (1 + self.offset) - self.offset

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": "cosine", "offset": self.offset}


class Sigmoid(VariancePreserving):
    r""":math:`\alpha^2` is a logistic curve between ``start`` and ``end``, scaled to fall from 1 to 0.

    Jabri et al. 2022 (arXiv:2212.11972), Appendix B; nothing is left of the signal at t = 1.

    Parameters
    ----------
    start, end, tau : float
        The part of the logistic curve, and its temperature.
    """

    def __init__(self, *, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> None:
        if not (start < end and tau > 0):
            raise GaldiffError(f"start {start}, end {end} and tau {tau} are no part of a logistic curve")
        self.start, self.end, self.tau = start, end, tau
        self._ends = tuple(1 / (1 + math.exp(-edge / tau)) for edge in (start, end))

    def _alpha(self, t: Tensor) -> Tensor:
        low, high = self._ends
        value = torch.sigmoid((self.start + t * (self.end - self.start)) / self.tau)
        return ((high - value) / (high - low)).clamp_min(0.0).sqrt()

    def _time(self, alpha: Tensor) -> Tensor:
        low, high = self._ends
        return (self.tau * torch.logit(high - alpha**2 * (high - low)) - self.start) / (self.end - self.start)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": "sigmoid", "start": self.start, "end": self.end, "tau": self.tau}


class Linear(VariancePreserving):
    r"""A rate of noise that grows linearly (Ho et al. 2020; Song et al. 2021, arXiv:2011.13456, Equation 33).

    .. math:: \log \alpha_t = -\tfrac{1}{4} t^2 (\beta_1 - \beta_0) - \tfrac{1}{2} t \beta_0

    Parameters
    ----------
    beta_min, beta_max : float
        Rates at t = 0 and t = 1; the defaults are the 1e-4 to 0.02 a step of a thousand steps.
    zero_terminal : bool
        Shift and scale alpha so that nothing is left of the signal at t = 1 (Lin et al. 2023, arXiv:2305.08891,
        Algorithm 1); without it 0.6 % of the amplitude is, and a model learns the mean brightness from it.
    """

    def __init__(self, *, beta_min: float = 0.1, beta_max: float = 20.0, zero_terminal: bool = False) -> None:
        if not 0 <= beta_min < beta_max:
            raise GaldiffError(f"beta_min {beta_min} and beta_max {beta_max} are not in order")
        self.beta_min, self.beta_max, self.zero_terminal = beta_min, beta_max, zero_terminal
        self._last = math.exp(-(beta_max + beta_min) / 4) if zero_terminal else 0.0

    def _alpha(self, t: Tensor) -> Tensor:
        alpha = torch.exp(-(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2)
        return (alpha - self._last) / (1 - self._last)

    def _time(self, alpha: Tensor) -> Tensor:
        # The positive root of the quadratic equation in t.
        a, b = (self.beta_max - self.beta_min) / 4, self.beta_min / 2
        c = (alpha * (1 - self._last) + self._last).log()
        return -2 * c / (b + (b**2 - 4 * a * c).sqrt()).clamp_min(1e-300)  # zero where alpha is one and b zero

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {
            "kind": "linear",
            "beta_min": self.beta_min,
            "beta_max": self.beta_max,
            "zero_terminal": self.zero_terminal,
        }


class Shifted(Schedule):
    r"""Another schedule at a noise-to-signal ratio ``shift`` times as large, :math:`\lambda' = \lambda - 2 \log s`.

    Neighboring pixels of a larger image say the same thing more often, so that it needs more noise to be hidden as well
    (Hoogeboom et al. 2023, arXiv:2301.11093); of rectified flow this is
    :math:`t' = s t / (1 + (s - 1) t)` (Esser et al. 2024, arXiv:2403.03206, Equation 23).

    Parameters
    ----------
    schedule : Schedule
        The other.
    shift : float
        s.
    """

    def __init__(self, schedule: Schedule, shift: float) -> None:
        if not shift > 0:
            raise GaldiffError(f"a shift of {shift} is not positive")
        self.schedule, self.shift, self.family = schedule, shift, schedule.family

    def _warp(self, t: Tensor) -> Tensor:
        warped = self.schedule.time(self.schedule.log_snr(t.double()) - 2 * math.log(self.shift))
        return warped.to(t.dtype)

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale."""
        return self.schedule.alpha(self._warp(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale."""
        return self.schedule.sigma(self._warp(t))

    def time(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`."""
        return self.schedule.time(log_snr.double() + 2 * math.log(self.shift)).to(log_snr.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {**self.schedule.to_dict(), "shift": self.shift}


_KINDS: dict[str, type[Schedule]] = {
    "rectified_flow": RectifiedFlow,
    "edm": EDM,
    "cosine": Cosine,
    "linear": Linear,
    "sigmoid": Sigmoid,
}

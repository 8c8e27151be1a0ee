r"""Samplers of the probability-flow ODE.

One step of any of them is linear in :math:`x_t` and in denoiser outputs. The exact solution between times t and s for a
constant output D is (Lu et al. 2022, arXiv:2211.01095, Equation 9)

.. math:: x_s = \frac{\sigma_s}{\sigma_t} x_t + \Bigl(\alpha_s - \frac{\sigma_s}{\sigma_t} \alpha_t\Bigr) D,

which is DDIM, and for rectified flow also Euler's step. The coefficients are float64 numbers computed once for a
sampler; a step is a few multiplications and never waits for the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from galdiff.diffusion.schedule import Schedule
from galdiff.errors import GaldiffError

__all__ = ["SAMPLERS", "DPMSolverPP2M", "Euler", "Heun", "Sampler", "build_sampler", "time_grid"]

_CLEAN = 1e-4  # last level before zero where the schedule itself reaches zero


class _Denoises(Protocol):
    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor: ...


def time_grid(schedule: Schedule, steps: int, grid: str = "uniform", *, shift: float = 1.0) -> Tensor:
    """Return ``steps + 1`` descending times from 1, float64; the last is 0.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    steps : int
        Number of steps.
    grid : {"uniform", "karras", "logsnr"}
        Uniform in t; uniform in sigma^(1/7) as in Karras et al. 2022, Equation 5; uniform in log-SNR.
    shift : float
        For "uniform", t -> shift t / (1 + (shift - 1) t): more steps at high noise above 1 (Esser et al. 2024).
    """
    if steps < 1:
        raise GaldiffError(f"{steps} steps are not enough", remedy="Ask for one or more")
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    if grid == "uniform":
        return shift * u / (1 + (shift - 1) * u)
    if grid not in ("karras", "logsnr"):
        raise GaldiffError(f"unknown grid '{grid}'", remedy="Known: uniform, karras, logsnr")
    ends = torch.tensor([1 - _CLEAN, _CLEAN], dtype=torch.float64)
    high, low = schedule.log_snr(ends).neg().div(2).exp()  # ratio of noise to signal
    inner = torch.linspace(1, 0, steps, dtype=torch.float64)
    if grid == "karras":
        ratio = (low ** (1 / 7) + inner * (high ** (1 / 7) - low ** (1 / 7))) ** 7
    else:
        ratio = torch.exp(low.log() + inner * (high.log() - low.log()))
    t = schedule.time(-2 * ratio.log())
    t[0] = 1.0
    return torch.cat([t, t.new_zeros(1)])


class Sampler(ABC):
    """Turns unit normal noise into data.

    Parameters
    ----------
    denoiser : Denoiser
        Anything with a ``schedule`` that returns posterior means.
    steps : int
        Number of steps.
    grid, shift
        See `time_grid`.
    times : Tensor, optional
        Descending times to use instead of a grid.

    Attributes
    ----------
    nfe : int
        Denoiser evaluations of a run.
    """

    def __init__(
        self,
        denoiser: _Denoises,
        *,
        steps: int = 18,
        grid: str = "uniform",
        shift: float = 1.0,
        times: Tensor | None = None,
    ) -> None:
        self.denoiser, schedule = denoiser, denoiser.schedule
        self.times = (time_grid(schedule, steps, grid, shift=shift) if times is None else times).double()
        self.alpha, self.sigma = schedule.alpha(self.times).tolist(), schedule.sigma(self.times).tolist()
        if times is None and self.sigma[-1] < 0.01:
            # The clean end: a schedule with a floor of noise is left by one exact step, as in Karras et al. 2022.
            self.sigma[-1], self.alpha[-1] = 0.0, 1.0
        self.steps = len(self.times) - 1

    @property
    def nfe(self) -> int:
        """Denoiser evaluations of a run."""
        return self.steps

    @torch.no_grad()
    def __call__(
        self, noise: Tensor, condition: Any = None, *, callback: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """Sample.

        Parameters
        ----------
        noise : Tensor
            Unit normal ``(n, …)``; scaled to the noise of the first time here.
        condition : optional
            Passed to the denoiser.
        callback : callable, optional
            Called with the step and :math:`x_t` after every step.

        Returns
        -------
        Tensor
            Data ``(n, …)``.
        """
        x, memory = self.sigma[0] * noise, None
        times = self.times.to(device=noise.device, dtype=noise.dtype)
        for i in range(self.steps):
            x, memory = self.step(x, times, i, condition, memory)
            if callback is not None:
                callback(i, x)
        return x

    @abstractmethod
    def step(self, x: Tensor, times: Tensor, i: int, condition: Any, memory: Any) -> tuple[Tensor, Any]:
        """Go from time i to i + 1; ``memory`` is what the last step returned beside x."""

    def _ratio(self, i: int, j: int) -> float:
        return self.sigma[j] / self.sigma[i]


class Euler(Sampler):
    """First order: the denoiser's output is constant over a step (DDIM; Song et al. 2021, arXiv:2010.02502)."""

    def step(self, x: Tensor, times: Tensor, i: int, condition: Any, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        r = self._ratio(i, i + 1)
        return r * x + (self.alpha[i + 1] - r * self.alpha[i]) * self.denoiser(x, times[i], condition), None


class Heun(Sampler):
    r"""Second order by a corrected step (Karras et al. 2022, Algorithm 1); a step to zero noise is Euler's.

    Along a path :math:`dx = D\, d\alpha + \hat\epsilon\, d\sigma` with
    :math:`\hat\epsilon = (x_t - \alpha D) / \sigma`; both are averaged over the two ends of a step. This is the
    trapezoidal rule in sigma for EDM and in t for rectified flow.
    """

    @property
    def nfe(self) -> int:
        """Two a step but for a last one to zero noise."""
        return 2 * self.steps - (self.sigma[-1] == 0)

    def step(self, x: Tensor, times: Tensor, i: int, condition: Any, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        (alpha, alpha_next), (sigma, sigma_next) = self.alpha[i : i + 2], self.sigma[i : i + 2]
        d = self.denoiser(x, times[i], condition)
        e = (x - alpha * d) / sigma
        y = alpha_next * d + sigma_next * e
        if sigma_next == 0:
            return y, None
        d_next = self.denoiser(y, times[i + 1], condition)
        e_next = (y - alpha_next * d_next) / sigma_next
        return x + (alpha_next - alpha) / 2 * (d + d_next) + (sigma_next - sigma) / 2 * (e + e_next), None


class DPMSolverPP2M(Sampler):
    """Second order from the last two outputs (DPM-Solver++(2M); Lu et al. 2022, arXiv:2211.01095, Algorithm 2)."""

    def step(self, x: Tensor, times: Tensor, i: int, condition: Any, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        r = self._ratio(i, i + 1)
        output = self.denoiser(x, times[i], condition)
        blended = output
        # Without a previous output, or where the step before began or this one ends at an infinite ratio: first order.
        if memory is not None and self.alpha[i - 1] > 0 and self.sigma[i + 1] > 0:
            here = math.log(self.alpha[i] / self.sigma[i])
            h = math.log(self.alpha[i + 1] / self.sigma[i + 1]) - here
            h_last = here - math.log(self.alpha[i - 1] / self.sigma[i - 1])
            blended = torch.lerp(memory, output, 1 + h / (2 * h_last))
        return r * x + (self.alpha[i + 1] - r * self.alpha[i]) * blended, output


SAMPLERS: dict[str, type[Sampler]] = {"euler": Euler, "heun": Heun, "dpmpp_2m": DPMSolverPP2M}
"""Samplers by the name that a catalog file uses."""


def build_sampler(name: str, denoiser: _Denoises, *, steps: int) -> Sampler:
    """Build a sampler by name, on its default grid.

    Raises
    ------
    GaldiffError
        For an unknown name.
    """
    if name not in SAMPLERS:
        raise GaldiffError(f"unknown sampler '{name}'", remedy=f"Known: {', '.join(SAMPLERS)}")
    grid = "uniform" if denoiser.schedule.to_dict()["kind"] == "rectified_flow" else "karras"
    return SAMPLERS[name](denoiser, steps=steps, grid=grid)

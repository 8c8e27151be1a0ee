r"""Samplers: from unit normal noise to data by a denoiser.

One step of any of them is linear in :math:`x_t`, denoiser outputs and noise. The exact solution of the probability-flow
ODE between times t and s for a constant output D is (Lu et al. 2022, arXiv:2211.01095, Equation 9)

.. math:: x_s = \frac{\sigma_s}{\sigma_t} x_t + \Bigl(\alpha_s - \frac{\sigma_s}{\sigma_t} \alpha_t\Bigr) D,

which is DDIM, and for rectified flow also Euler's step. The coefficients are float64 numbers computed once for a
sampler; a step is a few multiplications and never waits for the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from galdiff.diffusion.grid import time_grid
from galdiff.diffusion.guidance import Floor, Guidance
from galdiff.diffusion.schedule import Schedule
from galdiff.errors import GaldiffError
from galdiff.randomness import normal

__all__ = ["Sampler"]

Denoise = Callable[[Tensor, int], Tensor]
Fresh = Callable[[int], Tensor]


class _Denoises(Protocol):
    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, x_t: Tensor, t: Tensor, condition: Any = None, **more: Any) -> Tensor: ...


class Sampler(ABC):
    """Turns unit normal noise into data.

    Parameters
    ----------
    denoiser : Denoiser
        Anything with a ``schedule`` that returns posterior means.
    steps : int
        Number of steps; by default as many as the kind of sampler wants, `STEPS`.
    grid, shift, rho
        See `time_grid`.
    times : Tensor, optional
        Descending times to use instead of a grid.

    Raises
    ------
    GaldiffError
        For an unknown grid, no step, or times that do not descend.

    Attributes
    ----------
    nfe : int
        Denoiser evaluations of a run.
    STEPS : int
        Steps where none are asked for.
    OPTIONS : tuple of str
        Further arguments that a kind of sampler takes.
    """

    STEPS: ClassVar[int]
    OPTIONS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        denoiser: _Denoises,
        *,
        steps: int | None = None,
        grid: str = "uniform",
        shift: float = 1.0,
        rho: float = 7.0,
        times: Tensor | None = None,
    ) -> None:
        self.denoiser, schedule = denoiser, denoiser.schedule
        if times is None:
            chosen = time_grid(schedule, self.STEPS if steps is None else steps, grid, shift=shift, rho=rho)
        self.times = (chosen if times is None else times).double()
        if not (self.times.diff() < 0).all():
            raise GaldiffError("the times of a sampler do not descend", remedy="Begin with the noisiest")
        self.alpha, self.sigma = schedule.alpha(self.times).tolist(), schedule.sigma(self.times).tolist()
        if times is None:
            # The clean end: a schedule with a floor of noise is left by one exact step, as in Karras et al. 2022.
            self.sigma[-1], self.alpha[-1] = 0.0, 1.0
        self.steps = len(self.times) - 1

    @property
    def nfe(self) -> int:
        """Denoiser evaluations of a run."""
        return self.steps

    @torch.no_grad()
    def __call__(
        self,
        noise: Tensor,
        condition: Any = None,
        *,
        seeds: Tensor | None = None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Sample.

        Parameters
        ----------
        noise : Tensor
            Unit normal ``(n, …)``; scaled to the noise of the first time here.
        condition : optional
            Passed to the denoiser.
        seeds : Tensor, optional
            int64 ``(n,)``: the noise that a stochastic sampler adds is a function of them; by default 0 to n - 1.
        callback : callable, optional
            Called with the step and :math:`x_t` after every step.

        Returns
        -------
        Tensor
            Data ``(n, …)``.
        """
        x, memory = self.sigma[0] * noise, None
        times = self.times.to(device=noise.device, dtype=noise.dtype)
        seeds = torch.arange(len(noise), device=noise.device) if seeds is None else seeds

        # Chosen here, where the times are known without a wait for the device.
        known = self.times.to(noise.dtype).tolist()
        asked = [self.denoiser.at(t) if isinstance(self.denoiser, Guidance | Floor) else self.denoiser for t in known]

        def denoise(x: Tensor, i: int) -> Tensor:
            return asked[i](x, times[i], condition)

        def fresh(i: int) -> Tensor:
            return normal(0, f"step {i}", seeds, noise.shape[1:], device=noise.device).to(noise.dtype)

        for i in range(self.steps):
            x, memory = self.step(x, i, denoise, fresh, memory)
            if callback is not None:
                callback(i, x)
        return x

    @abstractmethod
    def step(self, x: Tensor, i: int, denoise: Denoise, fresh: Fresh, memory: Any) -> tuple[Tensor, Any]:
        """Go from time i to i + 1.

        ``denoise(x, j)`` is the posterior mean at time j, ``fresh(i)`` unit normal noise of this step, and ``memory``
        what the last step returned beside x.
        """

    def _log_ratio(self, i: int) -> float:
        """Return log(alpha / sigma) at time i, infinite at a clean or an empty end."""
        if self.sigma[i] == 0:
            return math.inf
        return math.log(self.alpha[i] / self.sigma[i]) if self.alpha[i] > 0 else -math.inf

    def _toward(self, x: Tensor, i: int, data: Tensor) -> Tensor:
        """Return the exact solution of the ODE from time i to i + 1 for a constant denoiser output."""
        r = self.sigma[i + 1] / self.sigma[i]
        return r * x + (self.alpha[i + 1] - r * self.alpha[i]) * data

    def _extrapolated(self, i: int, output: Tensor, memory: Tensor | None) -> Tensor:
        """Return the denoiser's output in the middle of step i, by a line through the last two in log-SNR."""
        here, there = self._log_ratio(i), self._log_ratio(i + 1)
        before = self._log_ratio(i - 1) if memory is not None else -math.inf
        if memory is None or math.isinf(before) or math.isinf(there):
            return output  # first order: no previous output, or a step from or to an infinite ratio
        return torch.lerp(memory, output, 1 + (there - here) / (2 * (here - before)))

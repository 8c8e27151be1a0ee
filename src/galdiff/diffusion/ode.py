"""Samplers of the probability-flow ODE: the same noise gives the same data."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor

from galdiff.diffusion.sampler import Denoise, Fresh, Sampler

__all__ = ["DPMSolverPP2M", "Euler", "Heun", "UniPC"]


class Euler(Sampler):
    """First order: the denoiser's output is constant over a step (DDIM; Song et al. 2021, arXiv:2010.02502)."""

    STEPS: ClassVar[int] = 50

    def step(self, x: Tensor, i: int, denoise: Denoise, fresh: Fresh, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        return self._toward(x, i, denoise(x, i)), None


class Heun(Sampler):
    r"""Second order by a corrected step (Karras et al. 2022, Algorithm 1); a step to zero noise is Euler's.

    Along a path :math:`dx = D\, d\alpha + \hat\epsilon\, d\sigma` with
    :math:`\hat\epsilon = (x_t - \alpha D) / \sigma`; both are averaged over the two ends of a step. This is the
    trapezoidal rule in sigma for EDM and in t for rectified flow.
    """

    STEPS: ClassVar[int] = 12

    @property
    def nfe(self) -> int:
        """Two a step but for a last one to zero noise."""
        return 2 * self.steps - (self.sigma[-1] == 0)

    def step(self, x: Tensor, i: int, denoise: Denoise, fresh: Fresh, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        (alpha, alpha_next), (sigma, sigma_next) = self.alpha[i : i + 2], self.sigma[i : i + 2]
        d = denoise(x, i)
        e = (x - alpha * d) / sigma
        y = alpha_next * d + sigma_next * e
        if sigma_next == 0:
            return y, None
        d_next = denoise(y, i + 1)
        e_next = (y - alpha_next * d_next) / sigma_next
        return x + (alpha_next - alpha) / 2 * (d + d_next) + (sigma_next - sigma) / 2 * (e + e_next), None


class DPMSolverPP2M(Sampler):
    """Second order from the last two outputs (DPM-Solver++(2M); Lu et al. 2022, arXiv:2211.01095, Algorithm 2)."""

    STEPS: ClassVar[int] = 16

    def step(self, x: Tensor, i: int, denoise: Denoise, fresh: Fresh, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        output = denoise(x, i)
        return self._toward(x, i, self._extrapolated(i, output, memory)), output


class UniPC(Sampler):
    r"""Predictor of second and corrector of third order at one evaluation a step (Zhao et al. 2023, arXiv:2302.04867).

    With :math:`\ell = \log(\alpha / \sigma)` and :math:`h` its step, the exact solution is an integral of the
    denoiser's output along :math:`\ell` with the weight :math:`e^{\ell}`. The predictor replaces the output by the line
    through the last two values, the corrector, once the output at the new point is known, by the parabola through
    three; :math:`B(h) = e^h - 1` (their :math:`B_2`). The corrected point is not evaluated again.
    """

    STEPS: ClassVar[int] = 12

    def step(self, x: Tensor, i: int, denoise: Denoise, fresh: Fresh, memory: Any) -> tuple[Tensor, Any]:
        """Take one step: correct the point where the last one ended, then predict."""
        output = denoise(x, i)
        last = None
        if memory is not None:
            start, last, older = memory
            x = self._corrected(i, start, older, last, output)
        y = self._toward(x, i, output)
        here, there = self._log_ratio(i), self._log_ratio(i + 1)
        before = -math.inf if last is None else self._log_ratio(i - 1)
        if last is not None and not math.isinf(before) and not math.isinf(there):
            slope = (output - last) * ((there - here) / (here - before))
            # UniP-2 takes 1/2 for its only weight in place of the solution of its equation.
            y = y - self.alpha[i + 1] * math.expm1(here - there) * 0.5 * slope
        return y, (x, output, last)

    def _corrected(self, i: int, start: Tensor, older: Tensor | None, last: Tensor, output: Tensor) -> Tensor:
        """Step again from time i - 1 to i, from the outputs at i - 2, i - 1 and i."""
        y = self._toward(start, i - 1, last)
        before, h = self._log_ratio(i - 1), self._log_ratio(i) - self._log_ratio(i - 1)
        if math.isinf(h):
            return y
        r = -math.inf if older is None else (self._log_ratio(i - 2) - before) / h
        scale = -self.alpha[i] * math.expm1(-h)
        if older is None or math.isinf(r):
            return y + scale * 0.5 * (output - last)
        # The weights of the two differences make the step exact for outputs that are a parabola in log(alpha / sigma).
        first, second = _moments(-h)
        w = (second - first) / (r - 1)
        return y + scale * (w / r * (older - last) + (first - w) * (output - last))


def _moments(h: float) -> tuple[float, float]:
    r"""Return the means of u and u^2 over (0, 1) under the weight :math:`e^{h (1 - u)}`."""
    if abs(h) < 1e-3:  # the closed form loses its digits
        return 0.5 - h / 12, 1 / 3 - h / 12
    mean = (math.expm1(h) / h - 1) / math.expm1(h)
    return mean, (2 * mean * math.expm1(h) / h - 1) / math.expm1(h)

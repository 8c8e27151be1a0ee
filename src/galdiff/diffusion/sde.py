"""Samplers that add noise on the way: what they add is a function of each sample's seed."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor

from galdiff.diffusion.sampler import Denoise, Fresh, Sampler
from galdiff.errors import GaldiffError

__all__ = ["DDIM", "DDPM", "SDEDPMSolverPP2M"]


class DDIM(Sampler):
    r"""From the deterministic to the ancestral sampler (Song et al. 2021, arXiv:2010.02502, Equations 12 and 16).

    .. math:: x_s = \alpha_s D + \sqrt{\sigma_s^2 - \varsigma^2}\, \hat\epsilon + c\, \varsigma z, \qquad
              \varsigma^2 = \eta^2 \sigma_s^2 \Bigl(1 - \frac{\alpha_t^2 \sigma_s^2}{\alpha_s^2 \sigma_t^2}\Bigr)

    Parameters
    ----------
    denoiser, steps, grid, shift, rho, times
        As in `Sampler`.
    eta : float
        0 is Euler's sampler, 1 that of Ho et al. 2020.
    noise_scale : float
        c: of the noise that is added; below 1 samples are smoother (0.95 is the reduced variance of some published
        lens generators).
    """

    STEPS: ClassVar[int] = 50
    OPTIONS: ClassVar[tuple[str, ...]] = ("eta", "noise_scale")

    def __init__(self, denoiser: Any, *, eta: float = 0.0, noise_scale: float = 1.0, **options: Any) -> None:
        if not (0 <= eta <= 1 and 0 <= noise_scale < math.inf):
            raise GaldiffError(
                f"eta {eta} is not in [0, 1], or the noise scale {noise_scale} is negative or not finite"
            )
        if noise_scale != 1 and not eta:
            reason = f"a noise scale of {noise_scale} says nothing where eta is 0, and no noise is added"
            raise GaldiffError(reason, remedy="Give an eta, such as 1, or a noise scale of 1")
        super().__init__(denoiser, **options)
        self.eta, self.noise_scale = eta, noise_scale

    def step(self, x: Tensor, i: int, denoise: Denoise, fresh: Fresh, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        data = denoise(x, i)
        (alpha, alpha_next), (sigma, sigma_next) = self.alpha[i : i + 2], self.sigma[i : i + 2]
        lost = (alpha * sigma_next / (alpha_next * sigma)) ** 2
        added = self.eta * sigma_next * math.sqrt(max(0.0, 1 - lost))
        kept = math.sqrt(max(0.0, sigma_next**2 - added**2))
        y = alpha_next * data + kept / sigma * (x - alpha * data)
        return (y + self.noise_scale * added * fresh(i) if added else y), None


class DDPM(DDIM):
    """The ancestral sampler with the posterior's variance (Ho et al. 2020, arXiv:2006.11239, Equation 7).

    Parameters
    ----------
    denoiser, steps, grid, shift, rho, times, noise_scale
        As in `DDIM`.
    """

    STEPS: ClassVar[int] = 250
    OPTIONS: ClassVar[tuple[str, ...]] = ("noise_scale",)

    def __init__(self, denoiser: Any, *, noise_scale: float = 1.0, **options: Any) -> None:
        super().__init__(denoiser, eta=1.0, noise_scale=noise_scale, **options)


class SDEDPMSolverPP2M(Sampler):
    r"""Second order for the reverse SDE from the last two outputs (Lu et al. 2022, arXiv:2211.01095).

    .. math:: x_s = \frac{\sigma_s}{\sigma_t} e^{-h} x_t + \alpha_s (1 - e^{-2h}) \tilde D
              + \sigma_s \sqrt{1 - e^{-2h}}\, z
    """

    STEPS: ClassVar[int] = 50

    def step(self, x: Tensor, i: int, denoise: Denoise, fresh: Fresh, memory: Any) -> tuple[Tensor, Any]:
        """Take one step."""
        output = denoise(x, i)
        data = self._extrapolated(i, output, memory)
        sigma, sigma_next, alpha_next = self.sigma[i], self.sigma[i + 1], self.alpha[i + 1]
        decay = math.exp(self._log_ratio(i) - self._log_ratio(i + 1))
        y = sigma_next / sigma * decay * x + alpha_next * (1 - decay**2) * data
        return (y + sigma_next * math.sqrt(1 - decay**2) * fresh(i) if sigma_next else y), output

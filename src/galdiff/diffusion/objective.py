r"""Training objectives.

The raw prediction of the network is compared with its target, of constant variance over time, under a density of
times; for ``flow`` that is the flow-matching loss, for ``edm`` the loss of Karras et al. 2022 with
:math:`\lambda(\sigma) = 1 / c_\mathrm{out}^2`. The density decides where the network spends its capacity:

``logit_normal``
    :math:`\operatorname{logit} t \sim \mathcal N(\mathrm{location}, \mathrm{scale}^2)` (Esser et al. 2024,
    arXiv:2403.03206, Equation 19), for rectified flow.
``log_normal``
    :math:`\log(\sigma / \alpha) \sim \mathcal N(\mathrm{location}, \mathrm{scale}^2)` (Karras et al. 2022, Table 1).
``uniform``
    t uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from galdiff.diffusion.denoiser import Denoiser
from galdiff.errors import GaldiffError
from galdiff.randomness import Draws

__all__ = ["Loss", "Objective"]

_DENSITIES = ("logit_normal", "log_normal", "uniform")
_EDGE = 1e-4


@dataclass(frozen=True)
class Loss:
    """Loss of every sample ``(n,)`` and its time ``(n,)``."""

    per_sample: Tensor
    t: Tensor


@dataclass(frozen=True)
class Objective:
    """Mean squared error of the raw prediction under a density of times.

    Attributes
    ----------
    time : {"logit_normal", "log_normal", "uniform"}
        The density.
    location, scale : float
        Of the normal densities.
    """

    time: str = "logit_normal"
    location: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.time not in _DENSITIES:
            raise GaldiffError(f"unknown time density '{self.time}'", remedy=f"Known: {', '.join(_DENSITIES)}")

    def times(self, denoiser: Denoiser, draws: Draws) -> Tensor:
        """Draw times ``(n,)``."""
        if self.time == "uniform":
            return draws.uniform("time")
        z = self.location + self.scale * draws.normal("time")
        t = torch.sigmoid(z) if self.time == "logit_normal" else denoiser.schedule.time(-2 * z)
        return t.clamp(_EDGE, 1 - _EDGE) if self.time == "logit_normal" else t.clamp(0.0, 1.0)

    def __call__(
        self, denoiser: Denoiser, x: Tensor, draws: Draws, *, condition: Any = None, t: Tensor | None = None
    ) -> Loss:
        """Return the loss of a batch.

        Parameters
        ----------
        denoiser : Denoiser
            What is trained.
        x : Tensor
            Clean data ``(n, …)``.
        draws : Draws
            Gives the noise and the times of the n samples.
        condition : optional
            Passed to the denoiser.
        t : Tensor, optional
            Given times ``(n,)``, for curves of loss by noise level.
        """
        t = self.times(denoiser, draws).to(x.dtype) if t is None else t
        epsilon = draws.normal("noise", x.shape[1:]).to(x.dtype)
        _, raw = denoiser.parts(denoiser.schedule.noise(x, epsilon, t), t, condition)
        error = (raw.float() - denoiser.target(x, epsilon, t).float()).square()
        return Loss(error.flatten(1).mean(1), t)

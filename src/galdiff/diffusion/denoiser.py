r"""Denoisers: the posterior mean of clean data.

A denoiser is asked one thing, :math:`D(x_t, t) = \mathrm E[x \mid x_t]`. What the network inside predicts is its own
affair (`galdiff.diffusion.prediction`), so every sampler and every guidance works with every model. The network sees
:math:`c_\mathrm{in} x_t` of unit variance, :math:`c_\mathrm{in} = (\alpha^2 s^2 + \sigma^2)^{-1/2}`, and the noise
level :math:`c_\mathrm{noise} = \frac{1}{4} \log(\sigma / \alpha)` (Karras et al. 2022, arXiv:2206.00364, Table 1).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from galdiff.diffusion.prediction import build_prediction
from galdiff.diffusion.schedule import Schedule
from galdiff.errors import GaldiffError

__all__ = ["Denoiser"]

_CLAMP = 2.5  # |c_noise|: a signal-to-noise ratio of e^±20 is as good as clean or empty
_FREQUENCIES = 64


class Denoiser(nn.Module):
    """A preconditioned network.

    Parameters
    ----------
    backbone : nn.Module
        ``backbone(x, noise_level, condition)`` with unit-variance input, ``noise_level`` ``(n,)``.
    schedule : Schedule
        The noise schedule.
    prediction : {"flow", "edm", "v", "eps", "x0"}
        What the backbone predicts.
    data_std : float
        Standard deviation of the data.
    uncertainty : bool
        Learn the logarithm of the expected loss at every noise level too, for the weighting ``learned``.

    Raises
    ------
    GaldiffError
        For an unknown prediction, or one that the schedule makes no sense of.
    """

    def __init__(
        self,
        backbone: nn.Module,
        schedule: Schedule,
        *,
        prediction: str = "flow",
        data_std: float = 1.0,
        uncertainty: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < data_std < math.inf:
            raise GaldiffError(f"a standard deviation of the data of {data_std} is not a positive number")
        self.backbone, self.schedule, self.prediction, self.data_std = backbone, schedule, prediction, data_std
        self.meaning = build_prediction(prediction, schedule, data_std)
        self.uncertainty = _Uncertainty() if uncertainty else None

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Return :math:`E[x | x_t]`.

        Parameters
        ----------
        x_t : Tensor
            Noised data ``(n, …)``.
        t : Tensor
            Times ``(n,)`` or a scalar.
        condition : optional
            Passed to the backbone.
        """
        return self.parts(x_t, t, condition)[0]

    def parts(self, x_t: Tensor, t: Tensor, condition: Any = None) -> tuple[Tensor, Tensor]:
        """Return the posterior mean and the network's raw prediction, which the objective compares with its target."""
        t = t.expand(len(x_t)).to(x_t.dtype)
        alpha, sigma = self._scales(t, x_t.ndim)
        c_in = (alpha**2 * self.data_std**2 + sigma**2).rsqrt()
        raw = self.backbone(c_in * x_t, self.noise_level(t), condition)
        return self.meaning.data(x_t, raw, alpha, sigma), raw

    def target(self, x: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """Return what the raw prediction should be."""
        return self.meaning.target(x, epsilon, *self._scales(t.to(x.dtype), x.ndim))

    def noise_level(self, t: Tensor) -> Tensor:
        """Return what the backbone is told of the times ``(n,)``."""
        return (-self.schedule.log_snr(t) / 8).clamp(-_CLAMP, _CLAMP)

    def _scales(self, t: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (rank - 1))
        return self.schedule.alpha(t).view(shape), self.schedule.sigma(t).view(shape)


class _Uncertainty(nn.Module):
    """A smooth function of the noise level, zero at first (Karras et al. 2024, arXiv:2312.02696)."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Fixed frequencies, log-spaced over what a noise level of some units can resolve.
        self.register_buffer("frequencies", torch.logspace(-1, 1, _FREQUENCIES, dtype=torch.float32) * math.pi)
        self.linear = nn.Linear(2 * _FREQUENCIES, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, noise_level: Tensor) -> Tensor:
        """Return the log expected loss ``(n,)``."""
        phase = noise_level.float()[:, None] * self.frequencies
        return self.linear(torch.cat([phase.cos(), phase.sin()], dim=1))[:, 0]

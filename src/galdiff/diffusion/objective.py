r"""Training objectives.

The raw prediction F of the network is compared with its target under a density of times and a weighting,

.. math:: \mathcal L = \mathrm E_t\, w(t)\, \lVert F - F^* \rVert^2 .

Densities of times decide where the network spends its capacity:

``logit_normal``
    :math:`\operatorname{logit} t \sim \mathcal N(\mathrm{location}, \mathrm{scale}^2)` (Esser et al. 2024,
    arXiv:2403.03206, Equation 19).
``log_normal``
    :math:`\log(\sigma / \alpha) \sim \mathcal N(\mathrm{location}, \mathrm{scale}^2)` (Karras et al. 2022, Table 1).
``uniform``
    t uniform.

Weightings, with the error of F as that of the posterior mean times the prediction's gain g:

``uniform``
    w = 1: for ``flow`` the flow-matching loss, for ``eps`` the simple loss of Ho et al. 2020, for ``edm``
    that of Karras et al. 2022.
``min_snr``
    :math:`w = \min(\mathrm{SNR}, \gamma) / g^2` (Hang et al. 2023, arXiv:2303.09556, Equation 5).
``edm``
    :math:`w = (\varsigma^2 + s^2) / (\varsigma s g)^2` with :math:`\varsigma = \sigma / \alpha`: EDM's weighting of the
    posterior mean, for any prediction.
``learned``
    :math:`\lVert F - F^* \rVert^2 / e^{u(t)} + u(t)`, u learned with the network (Kendall et al. 2018,
    arXiv:1705.07115; Karras et al. 2024, arXiv:2312.02696): every noise level contributes alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from galdiff.diffusion.denoiser import Denoiser
from galdiff.errors import GaldiffError
from galdiff.randomness import Draws

__all__ = ["Loss", "Objective"]

_DENSITIES = ("logit_normal", "log_normal", "uniform")
_WEIGHTINGS = ("uniform", "min_snr", "edm", "learned")
_EDGE = 1e-4
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Loss:
    """Loss of every sample ``(n,)`` and its time ``(n,)``."""

    per_sample: Tensor
    t: Tensor


@dataclass(frozen=True)
class Objective:
    r"""Weighted squared error of the raw prediction under a density of times.

    Attributes
    ----------
    time : {"logit_normal", "log_normal", "uniform"}
        The density.
    location, scale : float
        Of the normal densities.
    stratified : bool
        Times of consecutive samples fill the density evenly: quantiles of a Kronecker sequence with the golden ratio, a
        function of the position alone, in place of independent draws.
    weighting : {"uniform", "min_snr", "edm", "learned"}
        The weighting.
    gamma : float
        Of min-SNR.
    """

    time: str = "logit_normal"
    location: float = 0.0
    scale: float = 1.0
    stratified: bool = False
    weighting: str = "uniform"
    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.time not in _DENSITIES:
            raise GaldiffError(f"unknown time density '{self.time}'", remedy=f"Known: {', '.join(_DENSITIES)}")
        if self.weighting not in _WEIGHTINGS:
            raise GaldiffError(f"unknown weighting '{self.weighting}'", remedy=f"Known: {', '.join(_WEIGHTINGS)}")
        for name in ("scale", "gamma"):
            if not 0 < getattr(self, name) < math.inf:
                raise GaldiffError(f"{name} is {getattr(self, name)}, not a positive number")

    def times(self, denoiser: Denoiser, draws: Draws) -> Tensor:
        """Draw times ``(n,)``."""
        if self.time == "uniform":
            u = self._evenly(draws) if self.stratified else draws.uniform("time")
            return u.clamp(_EDGE, 1 - _EDGE)
        z = torch.special.ndtri(self._evenly(draws)) if self.stratified else draws.normal("time")
        z = self.location + self.scale * z
        t = torch.sigmoid(z) if self.time == "logit_normal" else denoiser.schedule.time(-2 * z)
        return t.clamp(_EDGE, 1 - _EDGE) if self.time == "logit_normal" else t.clamp(0.0, 1.0)

    @staticmethod
    def _evenly(draws: Draws) -> Tensor:
        index = torch.arange(draws.positions.start, draws.positions.stop, dtype=torch.float64, device=draws.device)
        # A random start by the seed; the nudge keeps the quantiles of a normal density finite.
        return ((index + 0.5) * _GOLDEN + (draws.seed % 997) * 0.7548776662466927).frac().clamp(1e-6, 1 - 1e-6).float()

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

        Raises
        ------
        GaldiffError
            For learned weights of a denoiser that learns none.
        """
        t = self.times(denoiser, draws).to(x.dtype) if t is None else t
        epsilon = draws.normal("noise", x.shape[1:]).to(x.dtype)
        x_t = denoiser.schedule.noise(x, epsilon, t)
        raw = denoiser.parts(x_t, t, condition)[1].float()
        error = (raw - denoiser.target(x, epsilon, t).float()).square().flatten(1).mean(1)
        return Loss(self._weighted(denoiser, error, t), t)

    def _weighted(self, denoiser: Denoiser, error: Tensor, t: Tensor) -> Tensor:
        if self.weighting == "uniform":
            return error
        if self.weighting == "learned":
            if denoiser.uncertainty is None:
                raise GaldiffError("learned weights need a denoiser built with uncertainty=True")
            u = denoiser.uncertainty(denoiser.noise_level(t))
            return error / u.exp() + u
        alpha, sigma = (f(t.double()) for f in (denoiser.schedule.alpha, denoiser.schedule.sigma))
        snr, s = (alpha / sigma).square(), denoiser.data_std
        # Of the posterior mean's error: min(SNR, gamma), and EDM's 1 / s^2 + SNR.
        wanted = snr.clamp(max=self.gamma) if self.weighting == "min_snr" else 1 / s**2 + snr
        return error * (wanted / denoiser.meaning.gain(alpha, sigma).square()).to(error.dtype)

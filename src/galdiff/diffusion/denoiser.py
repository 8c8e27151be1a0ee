r"""Denoisers: the posterior mean of clean data.

A denoiser is asked one thing, :math:`D(x_t, t) = \mathrm E[x \mid x_t]`. What the network inside predicts is its own
affair (the *preconditioning*), so every sampler and every guidance works with every model. With data of standard
deviation :math:`s` (one for whitened latents), :math:`c_\mathrm{in} = (\alpha^2 s^2 + \sigma^2)^{-1/2}` and
:math:`c_\mathrm{noise} = \frac{1}{4} \log(\sigma / \alpha)`:

``flow``
    The network F predicts the velocity :math:`\epsilon - x` of the straight line; then
    :math:`D = x_t - t F` (Liu et al. 2022, arXiv:2209.03003).
``edm``
    :math:`D = c_\mathrm{skip} x_t / \alpha + c_\mathrm{out} F` with
    :math:`c_\mathrm{skip} = s^2 / (\varsigma^2 + s^2)`,
    :math:`c_\mathrm{out} = \varsigma s / \sqrt{\varsigma^2 + s^2}`,
    :math:`\varsigma = \sigma / \alpha` (Karras et al. 2022, arXiv:2206.00364, Table 1).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from galdiff.diffusion.schedule import RectifiedFlow, Schedule
from galdiff.errors import GaldiffError

__all__ = ["PREDICTIONS", "Denoiser"]

PREDICTIONS = ("flow", "edm")
"""What a backbone's output may mean."""
_CLAMP = 2.5  # |c_noise|: a signal-to-noise ratio of e^±20 is as good as clean or empty


class Denoiser(nn.Module):
    """A preconditioned network.

    Parameters
    ----------
    backbone : nn.Module
        ``backbone(x, noise_level, condition)`` with unit-variance input, ``noise_level`` ``(n,)``.
    schedule : Schedule
        The noise schedule.
    prediction : {"flow", "edm"}
        What the backbone predicts.
    data_std : float
        Standard deviation of the data.

    Raises
    ------
    GaldiffError
        For an unknown prediction, or one that the schedule makes no sense of.
    """

    def __init__(
        self, backbone: nn.Module, schedule: Schedule, *, prediction: str = "flow", data_std: float = 1.0
    ) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise GaldiffError(f"unknown prediction '{prediction}'", remedy=f"Known: {', '.join(PREDICTIONS)}")
        if prediction == "flow" and not isinstance(schedule, RectifiedFlow):
            reason = "the velocity epsilon - x is the slope of straight lines alone"
            raise GaldiffError(f"prediction 'flow' needs the schedule 'rectified_flow': {reason}", remedy="Use 'edm'")
        self.backbone, self.schedule, self.prediction, self.data_std = backbone, schedule, prediction, data_std

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
        alpha, sigma = (f(t).view(-1, *[1] * (x_t.ndim - 1)) for f in (self.schedule.alpha, self.schedule.sigma))
        s = self.data_std
        c_in = (alpha**2 * s**2 + sigma**2).rsqrt()
        c_noise = (-self.schedule.log_snr(t) / 8).clamp(-_CLAMP, _CLAMP)
        raw = self.backbone(c_in * x_t, c_noise, condition)
        if self.prediction == "flow":
            return x_t - sigma * raw, raw
        # Written without dividing by alpha, which is zero at the noisy end of a rectified flow.
        norm = sigma**2 + alpha**2 * s**2
        return alpha * s**2 / norm * x_t + sigma * s * norm.rsqrt() * raw, raw

    def target(self, x: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """Return what the raw prediction should be, for unit-variance data of variance one (edm) or two (flow)."""
        if self.prediction == "flow":
            return epsilon - x
        t = t.to(x.dtype)
        alpha, sigma = (f(t).view(-1, *[1] * (x.ndim - 1)) for f in (self.schedule.alpha, self.schedule.sigma))
        s = self.data_std
        norm = sigma**2 + alpha**2 * s**2
        # x - c_skip x_t = (sigma^2 x - alpha s^2 sigma epsilon) / norm, divided by c_out: finite where sigma is zero.
        return (sigma * x - alpha * s**2 * epsilon) / (s * norm.sqrt())

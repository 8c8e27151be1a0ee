r"""Guidance: a denoiser that wraps a denoiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from galdiff.diffusion.denoiser import Denoiser
from galdiff.diffusion.schedule import Schedule
from galdiff.errors import GaldiffError

__all__ = ["ClassifierFree"]


class ClassifierFree(nn.Module):
    r"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) on all channels, in one batch.

    .. math:: D_w = D_\varnothing + w\, (D_c - D_\varnothing)

    Weight 1 is the conditional denoiser and 0 the unconditional one, each at its plain cost.

    Parameters
    ----------
    denoiser : Denoiser
        Trained with and without conditions.
    weight : float
        w.
    interval : pair of float, optional
        Times outside of which the plain conditional denoiser is used (Kynkäänniemi et al. 2024, arXiv:2404.07724).
    """

    def __init__(self, denoiser: Denoiser, weight: float, *, interval: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.denoiser, self.weight, self.interval = denoiser, float(weight), interval

    @property
    def schedule(self) -> Schedule:
        """The denoiser's schedule."""
        return self.denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Return the guided estimate of the clean data; arguments as in `Denoiser.forward`."""
        if condition is None:
            raise GaldiffError("guidance needs a condition", remedy="Ask for something, or leave guidance out")
        if self.weight == 1:
            return self.denoiser(x_t, t, condition)
        if self.weight == 0:
            return self.denoiser(x_t, t, condition.null())
        t = t.expand(len(x_t))
        both = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), condition.cat(condition.null()))
        conditional, unconditional = both.chunk(2)
        guided = torch.lerp(unconditional, conditional, self.weight)
        if self.interval is None:
            return guided
        low, high = self.interval
        inside = ((t >= low) & (t <= high)).view(-1, *[1] * (x_t.ndim - 1))
        return torch.where(inside, guided, conditional)

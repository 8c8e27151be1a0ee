"""The distribution over latents that an encoder gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LatentPosterior"]

_CERTAIN = -300.0  # float16 holds it, and the deviation that belongs to it is zero in float32 and below


@dataclass(frozen=True)
class LatentPosterior:
    """A diagonal normal over latents.

    Attributes
    ----------
    mean, log_var : Tensor
        ``(n, channel, y, x)``.
    """

    mean: Tensor
    log_var: Tensor

    @classmethod
    def certain(cls, mean: Tensor) -> LatentPosterior:
        """Return the posterior of which every draw is its mean."""
        return cls(mean, torch.full_like(mean, _CERTAIN))

    def sample(self, noise: Tensor) -> Tensor:
        """Draw latents from unit normal numbers of the same shape."""
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def kl(self) -> Tensor:
        """Divergence from the unit normal, nats per latent element, ``(n,)`` (Kingma & Welling 2014, Appendix B)."""
        return self.kl_elements().flatten(1).mean(1)

    def kl_elements(self) -> Tensor:
        """Divergence from the unit normal of every latent element [nats], ``(n, channel, y, x)``."""
        mean, log_var = self.mean.float(), self.log_var.float()  # also under autocast
        return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)

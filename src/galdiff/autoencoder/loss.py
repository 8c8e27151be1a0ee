r"""The autoencoder's objective.

.. math:: |x - \bar x|_1 + \lambda_\nabla \sum_s |\nabla_s x - \nabla_s \bar x|_1 + \beta\, \mathrm{KL}
          + \gamma\, \mathrm{NLL}_\mathrm{grain}(x - \bar x)

over images that were turned and reflected *after* encoding: a latent is transformed by a random symmetry of the square
and decoded against the transformed image, so that rotating a latent rotates its galaxy (Kouzelis et al. 2025,
arXiv:2502.09509).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from galdiff.autoencoder.base import SkyAutoencoder
from galdiff.nn.dihedral import dihedral
from galdiff.randomness import Draws

__all__ = ["AutoencoderLoss", "gradient_loss"]


def gradient_loss(x: Tensor, y: Tensor, scales: int = 2) -> Tensor:
    """Mean absolute difference of the finite-difference gradients at octave scales."""
    total = x.new_zeros(())
    d = x - y
    for scale in range(scales):
        if scale:
            d = functional.avg_pool2d(d, 2)
        total = total + d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
    return total / scales


@dataclass(frozen=True)
class AutoencoderLoss:
    """The terms' weights.

    Attributes
    ----------
    kl : float
        Weight of the divergence from the unit normal, per latent element.
    gradient : float
        Weight of the gradient term.
    grain : float
        Weight of the noise model's likelihood.
    """

    kl: float = 1e-3
    gradient: float = 0.5
    grain: float = 0.03

    def __call__(self, autoencoder: SkyAutoencoder, x: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms.

        Parameters
        ----------
        autoencoder : SkyAutoencoder
            What is trained.
        x : Tensor
            Stretched images ``(n, band, y, x)``.
        draws : Draws
            Gives all random numbers of the n samples.
        """
        posterior = autoencoder.encode(x)
        z = posterior.sample(draws.normal("latent", posterior.mean.shape[1:]))
        if x.shape[-1] == x.shape[-2]:
            element = draws.integers("dihedral", 8)
            x, z = dihedral(x, element), dihedral(z, element)
        decoded = autoencoder.decode(z)
        pixel = functional.l1_loss(decoded.mean, x)
        gradient = gradient_loss(decoded.mean, x)
        kl = posterior.kl().mean()
        # The mean is not trained by the likelihood of what it leaves: it would blur where the noise is large.
        grain = autoencoder.grain.loss((x - decoded.mean).detach(), decoded.maps)
        loss = pixel + self.gradient * gradient + self.kl * kl + self.grain * grain
        regularizer, figures = autoencoder.regularizer(posterior)
        loss = loss + regularizer
        with torch.no_grad():
            error = (decoded.mean - x).square().mean()
        figures = {"l1": pixel, "mse": error, "kl": kl, "grain": grain, **figures}
        if not self.kl:  # of quantized latents it says nothing
            del figures["kl"]
        return loss, figures

r"""The autoencoder's objective.

.. math:: \rho(x - \bar x) + \lambda_\nabla \sum_s |\nabla_s x - \nabla_s \bar x|_1 + \beta\, \mathrm{KL}
          + \gamma\, \mathrm{NLL}_\mathrm{grain}(x - \bar x)
          + \lambda_\chi \bigl\langle (x - \bar x)^2 / \sigma^2 \bigr\rangle
          + \lambda_s \rho(x_{\downarrow 2} - D(z_{\downarrow 2})) + \lambda_a w_a L_a

over images that were turned and reflected *after* encoding: a latent is transformed by a random symmetry of the square
and decoded against the transformed image, so that rotating a latent rotates its galaxy; by choice a latent of half the
side is decoded against the image of half the side as well (Kouzelis et al. 2025, arXiv:2502.09509). The divergence has
a linear warm-up and *free bits*, :math:`\sum_c \max(\lambda, \mathrm{KL}_c)` (Kingma et al. 2016, arXiv:1606.04934,
Appendix C.8): a channel that says less than :math:`\lambda` is not pressed further. The adversarial term is that of
`galdiff.autoencoder.adversarial`. Where pixels are masked nothing is asked of the decoder, by any term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.autoencoder.adversarial import adversarial_terms
from galdiff.autoencoder.base import SkyAutoencoder
from galdiff.autoencoder.posterior import LatentPosterior
from galdiff.nn.dihedral import dihedral
from galdiff.randomness import Draws

__all__ = ["AutoencoderLoss", "gradient_loss", "masked_mean", "pixel_loss"]

HUBER = 0.1
"""Stretched difference below which the Huber loss is quadratic: a twentieth of the range."""


def masked_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean over the valid elements, over all of them without a mask."""
    if valid is None:
        return values.mean()
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp_min(1)


def pixel_loss(x: Tensor, y: Tensor, kind: Literal["l1", "l2", "huber"] = "l1", valid: Tensor | None = None) -> Tensor:
    """Return the mean of a penalty of differences.

    Parameters
    ----------
    x, y : Tensor
        Images ``(n, band, y, x)``.
    kind : {"l1", "l2", "huber"}
        The difference's absolute value, its square, or the first with the second's minimum within 0.1 (Huber 1964).
    valid : Tensor, optional
        bool, of the same shape; pixels where it is False do not count.
    """
    if kind == "huber":
        return masked_mean(functional.smooth_l1_loss(x, y, beta=HUBER, reduction="none"), valid)
    penalty = {"l1": functional.l1_loss, "l2": functional.mse_loss}[kind]
    return masked_mean(penalty(x, y, reduction="none"), valid)


def gradient_loss(x: Tensor, y: Tensor, scales: int = 2, valid: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the finite-difference gradients at octave scales, of pairs of valid pixels."""
    total = x.new_zeros(())
    d = x - y if valid is None else torch.where(valid, x - y, 0.0)
    for scale in range(scales):
        if scale:
            d = functional.avg_pool2d(d, 2)
            valid = None if valid is None else _all_of_four(valid)
        for dim in (-1, -2):
            total = total + masked_mean(d.diff(dim=dim).abs(), None if valid is None else _pairs(valid, dim))
    return total / scales


def _all_of_four(valid: Tensor) -> Tensor:
    return functional.avg_pool2d(valid.float(), 2) == 1


def _pairs(valid: Tensor, dim: int) -> Tensor:
    size = valid.shape[dim] - 1
    return valid.narrow(dim, 0, size) & valid.narrow(dim, 1, size)


@dataclass(frozen=True)
class AutoencoderLoss:
    """The terms and their weights; those that are zero by default are off.

    Attributes
    ----------
    kl : float
        Weight of the divergence from the unit normal, per latent element.
    gradient : float
        Weight of the gradient term.
    grain : float
        Weight of the noise model's likelihood.
    pixel : {"l1", "l2", "huber"}
        Penalty of a pixel's difference.
    kl_warmup_images : int
        Images over which the divergence's weight grows from zero.
    free_bits : float
        Divergence that costs a channel nothing, nats per latent element.
    chi2 : float
        Weight of the squared differences over the variance of the pixels' noise.
    dihedral : bool
        Turn and reflect the latents.
    scale_equivariance : float
        Weight of the pixel term of halved latents against halved images.
    adversarial : float
        Weight of the adversarial term, on top of its adaptive one.
    adversarial_start : int
        Images before the adversary comes in.
    """

    kl: float = 1e-3
    gradient: float = 0.5
    grain: float = 0.03
    pixel: Literal["l1", "l2", "huber"] = "l1"
    kl_warmup_images: int = 0
    free_bits: float = 0.0
    chi2: float = 0.0
    dihedral: bool = True
    scale_equivariance: float = 0.0
    adversarial: float = 0.0
    adversarial_start: int = 0

    def __call__(
        self,
        autoencoder: SkyAutoencoder,
        x: Tensor,
        draws: Draws,
        *,
        valid: Tensor | None = None,
        deviation: Tensor | None = None,
        discriminator: nn.Module | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms.

        Parameters
        ----------
        autoencoder : SkyAutoencoder
            What is trained.
        x : Tensor
            Stretched images ``(n, band, y, x)``.
        draws : Draws
            Gives all random numbers of the n samples.
        valid : Tensor, optional
            bool, of the images' shape; what a decoder says where it is False does not count.
        deviation : Tensor, optional
            Standard deviation of the pixels' noise in stretched units, of the images' shape; of the term ``chi2``.
        discriminator : torch.nn.Module, optional
            The adversary; its gradients and the autoencoder's do not mix in the sum.
        """
        posterior = autoencoder.encode(x)
        z = posterior.sample(draws.normal("latent", posterior.mean.shape[1:]))
        if self.dihedral and x.shape[-1] == x.shape[-2]:
            element = draws.integers("dihedral", 8)
            x, z = dihedral(x, element), dihedral(z, element)
            valid = None if valid is None else dihedral(valid, element)
            deviation = None if deviation is None else dihedral(deviation, element)
        decoded = autoencoder.decode(z)
        pixel = pixel_loss(decoded.mean, x, self.pixel, valid)
        gradient = gradient_loss(decoded.mean, x, valid=valid)
        kl = self._divergence(posterior)
        # The mean is not trained by the likelihood of what it leaves: it would blur where the noise is large.
        grain = autoencoder.grain.loss((x - decoded.mean).detach(), decoded.maps, valid)
        reconstruction = pixel + self.gradient * gradient
        loss = reconstruction + self._kl_weight(draws.positions.start) * kl + self.grain * grain
        regularizer, figures = autoencoder.regularizer(posterior)
        loss = loss + regularizer
        figures |= {self.pixel: pixel, "grain": grain}
        if self.kl:  # of quantized latents it says nothing
            figures["kl"] = kl
        if self.chi2 and deviation is not None:
            figures["chi2"] = masked_mean(((decoded.mean - x) / deviation).square(), valid)
            loss = loss + self.chi2 * figures["chi2"]
        if self.scale_equivariance:
            halved = autoencoder.decode(functional.avg_pool2d(z, 2)).mean
            whole = None if valid is None else _all_of_four(valid)
            figures["half_size"] = pixel_loss(halved, functional.avg_pool2d(x, 2), self.pixel, whole)
            loss = loss + self.scale_equivariance * figures["half_size"]
        if discriminator is not None and draws.positions.stop > self.adversarial_start:
            # The noise is drawn with what the noise model says now, and is not trained by it: what the sky hides in
            # the real image is hidden here too, and the mean image is not made to imitate noise that is drawn anyway.
            index = torch.arange(draws.positions.start, draws.positions.stop, device=x.device)
            noisy = decoded.detach().sample(draws.seed, index)
            made = decoded.mean + (noisy - decoded.mean.detach())
            made = made if valid is None else torch.where(valid, made, x)
            terms = adversarial_terms(discriminator, x, made, reconstruction, autoencoder.last_weight)
            loss = loss + self.adversarial * terms.generator + terms.discriminator
            figures |= terms.figures
        with torch.no_grad():
            figures["mse"] = masked_mean((decoded.mean - x).square(), valid)
        return loss, figures

    def _divergence(self, posterior: LatentPosterior) -> Tensor:
        if not self.free_bits:
            return posterior.kl().mean()
        return posterior.kl_elements().mean(dim=(0, 2, 3)).clamp_min(self.free_bits).mean()

    def _kl_weight(self, position: int) -> float:
        return self.kl * min(1.0, (position + 1) / self.kl_warmup_images) if self.kl_warmup_images else self.kl

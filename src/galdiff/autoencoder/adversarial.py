r"""The adversarial term: patches of made images should pass for real ones.

With the discriminator's logits :math:`d`, its hinge loss and the autoencoder's (Lim & Ye 2017, arXiv:1705.02894; the
patches: Isola et al. 2017, arXiv:1611.07004) are

.. math:: L_d = \tfrac12 \langle \max(0, 1 - d(x)) + \max(0, 1 + d(\hat x)) \rangle, \qquad
          L_a = -\langle d(\hat x) \rangle,

and the latter is weighted so that at the decoder's last layer it pulls as strongly as the reconstruction does (Esser et
al. 2021, arXiv:2012.09841, Equation 7),

.. math:: w = \|\nabla_l L_\mathrm{rec}\| / (\|\nabla_l L_a\| + \delta).

Both losses are summed and one backward pass serves both: the discriminator sees detached images for its own loss, and
is frozen while it judges for the autoencoder, so that neither's loss moves the other's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AdversarialTerms", "adaptive_weight", "adversarial_terms", "hinge_loss"]

_LARGEST = 1e4


@dataclass(frozen=True)
class AdversarialTerms:
    """What an adversary adds to a loss.

    Attributes
    ----------
    generator : Tensor
        The autoencoder's term with its adaptive weight.
    discriminator : Tensor
        The discriminator's own.
    figures : dict
        ``d_real`` and ``d_made`` (mean logits: real is positive), ``d_right`` (share of patches that are told rightly,
        0.5 where none can be) and ``d_weight`` (the adaptive weight).
    """

    generator: Tensor
    discriminator: Tensor
    figures: dict[str, Tensor]


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """Return the discriminator's loss of its logits."""
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + made).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor, delta: float = 1e-4) -> Tensor:
    """Return the ratio of two losses' gradient norms with respect to a weight, a constant to what follows."""
    wanted, pull = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (reconstruction, adversarial))
    return (wanted.norm() / (pull.norm() + delta)).clamp(0.0, _LARGEST).detach()


def adversarial_terms(
    discriminator: nn.Module, real: Tensor, made: Tensor, reconstruction: Tensor, last: Tensor
) -> AdversarialTerms:
    """Judge a batch.

    Parameters
    ----------
    discriminator : torch.nn.Module
        Images to logits of patches.
    real, made : Tensor
        Images ``(n, band, y, x)``; the latter with the autoencoder's graph.
    reconstruction : Tensor
        The loss to weigh against.
    last : Tensor
        Weights of the decoder's last layer; where no gradient is asked for (validation) the weight is 1.
    """
    with _frozen(discriminator):
        generator = -discriminator(made).mean()
    weight = torch.ones_like(generator)
    if generator.requires_grad:
        weight = adaptive_weight(reconstruction, generator, last)
    d_real, d_made = discriminator(torch.cat([real, made.detach()])).chunk(2)
    figures = {
        "d_real": d_real.mean(),
        "d_made": d_made.mean(),
        "d_right": 0.5 * ((d_real > 0).float().mean() + (d_made < 0).float().mean()),
        "d_weight": weight,
    }
    own = hinge_loss(d_real, d_made)
    return AdversarialTerms(weight * generator, own, {k: v.detach() for k, v in figures.items()})


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module, but none into it."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)

r"""What a latent space holds: statistics by channel, its effective dimension, and how well it turns with its galaxy.

The effective dimension is the participation ratio of the covariance's spectrum,
:math:`(\mathrm{tr}\,\Sigma)^2 / \mathrm{tr}\,\Sigma^2`: n for n equal eigenvalues. The trace of the square is estimated
without the bias that fewer images than dimensions would give (Srivastava 2005, J. Japan Stat. Soc. 35, 251, Equation
2.11). A latent element is *active* where its posterior mean varies between images by more than 0.01 (Burda et al. 2016,
arXiv:1509.00519, Section 5.2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from galdiff.autoencoder.base import Autoencoder
from galdiff.autoencoder.posterior import LatentPosterior
from galdiff.nn.dihedral import dihedral

__all__ = ["effective_dimension", "equivariance_error", "latent_statistics"]

_ACTIVE = 0.01


def effective_dimension(z: Tensor) -> float:
    """Return the participation ratio of the covariance of rows ``(n, dimension)``; NaN for fewer than four."""
    n = len(z) - 1
    if n < 3:
        return float("nan")
    centered = (z - z.mean(dim=0)).double()
    # Of the two matrices with the same spectrum, the smaller one.
    small = centered @ centered.T if z.shape[0] < z.shape[1] else centered.T @ centered
    trace, square = float(small.trace()) / n, float(small.square().sum()) / n**2
    unbiased = n**2 / ((n - 1) * (n + 2)) * (square - trace**2 / n)
    mean_square = trace**2 - 2 * unbiased / n  # of normal numbers, E (tr S)^2 = (tr Sigma)^2 + 2 tr Sigma^2 / n
    return mean_square / unbiased if unbiased > 0 else float("nan")


def latent_statistics(posterior: LatentPosterior) -> dict[str, Any]:
    """Return figures of the latents of some images, JSON.

    Parameters
    ----------
    posterior : LatentPosterior
        Of ``n`` images.

    Returns
    -------
    dict
        Lists by channel: ``latent_mean``, ``latent_std`` and ``latent_kurtosis`` (0 of a normal distribution) of the
        posterior means, ``latent_kl`` [nats per element]; ``latent_dimension`` (of all elements together, at most
        their number) and ``latent_active`` (the share of active elements).
    """
    channels = posterior.mean.float().transpose(0, 1).flatten(1)
    mean, std = channels.mean(dim=1), channels.std(dim=1, correction=0)
    kurtosis = ((channels - mean[:, None]) / std.clamp_min(1e-12)[:, None]).pow(4).mean(dim=1) - 3
    by_channel = {
        "latent_mean": mean,
        "latent_std": std,
        "latent_kurtosis": kurtosis,
        "latent_kl": posterior.kl_elements().mean(dim=(0, 2, 3)),
    }
    dimension = effective_dimension(posterior.mean.flatten(1))
    active = posterior.mean.var(dim=0, correction=0) > _ACTIVE
    return {
        **{name: [round(float(v), 6) for v in values] for name, values in by_channel.items()},
        "latent_dimension": dimension if math.isfinite(dimension) else None,
        "latent_active": float(active.float().mean()),
    }


@torch.no_grad()
def equivariance_error(autoencoder: Autoencoder, x: Tensor) -> dict[str, float]:
    r"""Return by how much turned latents fail to give turned images.

    Parameters
    ----------
    autoencoder : Autoencoder
        In evaluation mode.
    x : Tensor
        Stretched images ``(n, band, y, x)``, square.

    Returns
    -------
    dict
        ``equivariance_error``, the root of :math:`\langle |D(g z) - g D(z)|^2 \rangle`, and ``equivariance_mse``,
        :math:`\langle |D(g z) - g x|^2 \rangle`, both over the seven symmetries other than the identity, beside
        ``mse``, :math:`\langle |D(z) - x|^2 \rangle`.
    """
    z = autoencoder.encode(x).mean
    plain = autoencoder.decode(z).mean
    error, against = [], []
    for g in range(1, 8):
        element = torch.full((len(x),), g, device=x.device)
        turned = autoencoder.decode(dihedral(z, element)).mean
        error.append((turned - dihedral(plain, element)).square().mean())
        against.append((turned - dihedral(x, element)).square().mean())
    return {
        "equivariance_error": float(torch.stack(error).mean().sqrt()),
        "equivariance_mse": float(torch.stack(against).mean()),
        "mse": float((plain - x).square().mean()),
    }

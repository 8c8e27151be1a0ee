"""Poisson-distributed counts, a function of (seed, stream, index) like all of `galdiff.randomness`.

Below a mean of 10 by inversion of the distribution function; above by transformed rejection (Hörmann 1993, *The
transformed rejection method for generating Poisson random variables*, algorithm PTRS). Every attempt of the rejection
has its own stream, so that a pixel does not depend on how often another was rejected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from galdiff.randomness import uniform

__all__ = ["poisson"]

_SMALL = 10.0
_LARGEST_SMALL = 64  # the chance to exceed it at a mean of 10 is 1e-29


def poisson(mean: Tensor, *, seed: int, stream: str, index: Tensor) -> Tensor:
    """Draw counts.

    Parameters
    ----------
    mean : Tensor
        float64 ``(n, ...)``, not negative.
    seed : int
        Seed of the run.
    stream : str
        What the counts are for.
    index : Tensor
        Global sample indices, int64 ``(n,)``; row i depends on (seed, stream, index[i]) and its means alone.

    Returns
    -------
    Tensor
        int64, of the shape of ``mean``.
    """
    counts = _invert(mean.clamp(max=_SMALL), uniform(seed, f"{stream}/small", index, mean.shape[1:], mean.device))
    waiting, attempt = mean > _SMALL, 0
    large = mean.clamp(min=_SMALL)
    while waiting.any():
        u, v = uniform(seed, f"{stream}/{attempt}", index, (2, *mean.shape[1:]), mean.device).double().unbind(1)
        k, accepted = _attempt(large, u - 0.5, v)
        counts = torch.where(waiting & accepted, k.long(), counts)
        waiting, attempt = waiting & ~accepted, attempt + 1
    return counts


def _invert(mean: Tensor, u: Tensor) -> Tensor:
    """Count the values of the distribution function that are below u."""
    term = torch.exp(-mean)
    below, counts = term.clone(), torch.zeros_like(mean, dtype=torch.int64)
    for k in range(1, _LARGEST_SMALL):
        exceeded = u > below
        if not exceeded.any():
            break
        counts += exceeded
        term = term * mean / k
        below += term
    return counts


def _attempt(mean: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Propose a count for u in (-1/2, 1/2), and say whether v in (0, 1) accepts it."""
    b = 0.931 + 2.53 * mean.sqrt()
    a = -0.059 + 0.02483 * b
    scale = 1.1239 + 1.1328 / (b - 3.4)
    edge = 0.5 - u.abs()
    k = torch.floor((2 * a / edge + b) * u + mean + 0.43)
    quickly = (edge >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
    never = (k < 0) | ((edge < 0.013) & (v > edge))
    likelihood = k * mean.log() - mean - torch.lgamma(k.clamp(min=0) + 1)
    slowly = (v * scale / (a / edge**2 + b)).log() <= likelihood
    return k, quickly | (~never & slowly)

"""The learning rate over a training: a linear warm-up, then one of three ways to zero."""

from __future__ import annotations

import math

__all__ = ["rate_factor"]


def rate_factor(progress: float, images: int, warmup: int, decay: str, start: float) -> float:
    """Return the factor on the peak learning rate.

    Parameters
    ----------
    progress : float
        Share of the training that is done.
    images : int
        Images seen, of which the first ``warmup`` have a linear warm-up.
    decay : {"cosine", "linear", "constant"}
        Linear: flat until ``start``, then to zero.
    """
    factor = min(1.0, (images + 1) / warmup) if warmup else 1.0
    if decay == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * progress))
    elif decay == "linear":
        factor *= min(1.0, (1 - progress) / (1 - start))
    return factor

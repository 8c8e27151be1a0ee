"""Leaving autocast, where lower precision would lose what counts or an operation does not have it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["full_precision"]


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Leave autocast for the length of a block.

    Parameters
    ----------
    device : torch.device
        Where the block computes; tensors without data (``meta``), of which sizes are counted, know no autocast.
    """
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)

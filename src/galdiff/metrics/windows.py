"""Windows of images: one place to read from for every image of a batch, at the speed of a copy."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["windows"]


def windows(images: Tensor, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Tensor:
    """Cut a window out of every image.

    Parameters
    ----------
    images : Tensor
        ``(sample, y, x)``.
    rows, columns : Tensor
        int64 ``(sample,)``: the first row and column of each window, which lies within the image.
    shape : tuple of int
        Height and width of the windows.

    Returns
    -------
    torch.Tensor
        ``(sample, height, width)``.
    """
    every = images.unfold(1, shape[0], 1).unfold(2, shape[1], 1)
    return every[torch.arange(len(images), device=images.device), rows, columns]

"""Orthonormal Haar wavelet packets: patches as channels, by scale and direction instead of by position.

One level takes blocks of two by two pixels to their sum and their three differences, halved: a matrix that is its own
inverse (Mallat 2009, *A Wavelet Tour of Signal Processing*, Section 8.1 on packets). Packets split all four again, so
that level l has :math:`4^l` channels of equal resolution and the same energy as the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HaarPackets", "InverseHaarPackets", "haar_packets", "inverse_haar_packets"]

# Rows: the mean, and the differences along x, along y and along both; columns: pixels in reading order.
_MATRIX = ((0.5, 0.5, 0.5, 0.5), (0.5, -0.5, 0.5, -0.5), (0.5, 0.5, -0.5, -0.5), (0.5, -0.5, -0.5, 0.5))


def _mix(x: Tensor) -> Tensor:
    """Apply the matrix to every four channels; it is symmetric and its own inverse."""
    matrix = torch.tensor(_MATRIX, dtype=x.dtype, device=x.device)
    return torch.einsum("jk,nckyx->ncjyx", matrix, x.unflatten(1, (-1, 4))).flatten(1, 2)


def haar_packets(x: Tensor, levels: int) -> Tensor:
    """Transform images ``(n, c, y, x)`` to ``(n, 4^levels c, y / 2^levels, x / 2^levels)``."""
    for _ in range(levels):
        x = _mix(functional.pixel_unshuffle(x, 2))
    return x


def inverse_haar_packets(x: Tensor, levels: int) -> Tensor:
    """Undo `haar_packets`."""
    for _ in range(levels):
        x = functional.pixel_shuffle(_mix(x), 2)
    return x


class HaarPackets(nn.Module):
    """`haar_packets` as a layer."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """Transform."""
        return haar_packets(x, self.levels)


class InverseHaarPackets(HaarPackets):
    """`inverse_haar_packets` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform back."""
        return inverse_haar_packets(x, self.levels)

"""Orthonormal Haar wavelet packets: patches as channels, by scale and direction instead of by position.

One level takes blocks of two by two pixels to their sum and their three differences, halved: a map that is its own
inverse (Mallat 2009, *A Wavelet Tour of Signal Processing*, Section 8.1 on packets). Packets split all four again, so
that level l has :math:`4^l` channels of equal resolution and the same energy as the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HaarPackets", "InverseHaarPackets", "haar_packets", "inverse_haar_packets"]


def _mix(x: Tensor) -> Tensor:
    """Take every four channels, pixels in reading order, to their sum and the differences along x, y and both."""
    a, b, c, d = (0.5 * x).unflatten(1, (-1, 4)).unbind(2)
    return torch.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=2).flatten(1, 2)


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

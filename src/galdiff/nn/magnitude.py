r"""Magnitude-preserving layers (Karras et al. 2024, arXiv:2312.02696, Section 2 and Appendix B).

Every layer keeps the expected magnitude of activations at one by construction: weights are normalized over their
inputs, and the nonlinearity, the sum and the concatenation are divided by what they would do to unit-variance inputs.
A network of such layers needs no normalization statistics and trains at a high, steady learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MPConv", "MPFourier", "mp_cat", "mp_silu", "mp_sum", "normalize"]


def normalize(x: Tensor, dim: Sequence[int], eps: float = 1e-4) -> Tensor:
    """Scale ``x`` to unit root mean square over ``dim`` (Equation 30)."""
    norm = torch.linalg.vector_norm(x, dim=tuple(dim), keepdim=True, dtype=torch.float32)
    norm = eps + norm * math.sqrt(norm.numel() / x.numel())
    return x / norm.to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU divided by its root mean square over unit-normal inputs (Equation 81)."""
    return functional.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Blend ``a`` and ``b`` with weight ``t`` on ``b``, keeping the magnitude (Equation 88)."""
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Concatenate channels so that ``a`` and ``b`` contribute with weights 1 - t and t (Equation 103)."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale / math.sqrt(na) * (1 - t)), b * (scale / math.sqrt(nb) * t)], dim=1)


class MPFourier(nn.Module):
    """Random Fourier features of a scalar, of unit magnitude (Equation 75).

    Parameters
    ----------
    width : int
        Number of features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(width))
        self.register_buffer("phases", 2 * math.pi * torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n,)`` to ``(n, width)``."""
        angle = x.float()[:, None] * self.frequencies + self.phases  # type: ignore[operator]
        return angle.cos() * math.sqrt(2)


class MPConv(nn.Module):
    """Convolution (or linear layer, ``kernel=0``) with weights normalized over their inputs (Equations 47 and 66).

    The stored weights are put back on the unit sphere at every training step, so that the learning rate is relative.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Odd kernel size; 0 makes a linear layer on ``(n, inputs)``.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.kernel = kernel
        shape = (outputs, inputs, kernel, kernel) if kernel else (outputs, inputs)
        weight = torch.randn(shape)
        if kernel:
            weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Apply the layer; ``gain`` multiplies the weights."""
        weight = self.weight.float()
        dims = range(1, weight.ndim)
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(weight, dims))
        weight = normalize(weight, dims) * (gain / math.sqrt(weight[0].numel()))
        weight = weight.to(x.dtype)
        if not self.kernel:
            return functional.linear(x, weight)
        return functional.conv2d(x, weight, padding=self.kernel // 2)

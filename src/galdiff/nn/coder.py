"""Convolutional encoder and decoder with a patch stem.

The image is cut into patches first (pixel unshuffle by four, or Haar wavelet packets), so that no convolution runs at
full resolution; residual blocks of a wide depthwise and two pointwise convolutions follow (Liu et al. 2022,
arXiv:2201.03545), and a further factor of two is one more unshuffle. There is no connection from encoder to decoder
but the latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.nn.haar import HaarPackets, InverseHaarPackets

__all__ = ["Decoder", "Encoder"]

_STEM = 4
_HEAD = 64  # channels of an attention head, at most


class _RMSNorm(nn.Module):
    """Root mean square over the channels (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + 1e-6).to(x.dtype) * self.weight


def _norm(kind: str, width: int) -> nn.Module:
    if kind not in ("group", "rms"):
        raise ValueError(f"norm '{kind}' is not group or rms")
    return nn.GroupNorm(8, width) if kind == "group" else _RMSNorm(width)


class _Block(nn.Module):
    """Depthwise 5x5, normalization, pointwise expansion by two; starts as the identity."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = _norm(norm, width)
        self.up, self.down = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(functional.silu(self.up(self.norm(self.depthwise(x)))))


class _Attention(nn.Module):
    """Self-attention without positions, so that turned features are turned; starts as the identity."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.heads = next(h for h in range(-(-width // _HEAD), width + 1) if width % h == 0)
        self.norm, self.qkv = _norm(norm, width), nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(3, 4)
        y = functional.scaled_dot_product_attention(*parts.unbind(1))
        return x + self.out(y.transpose(2, 3).reshape(n, c, h, w))


def _patches(stem: str, side: int) -> tuple[nn.Module, nn.Module]:
    """Return the layer that cuts an image into patches of a side, and the one that joins them."""
    if stem not in ("unshuffle", "haar"):
        raise ValueError(f"stem '{stem}' is not unshuffle or haar")
    if stem == "unshuffle":
        return nn.PixelUnshuffle(side), nn.PixelShuffle(side)
    levels = side.bit_length() - 1
    return HaarPackets(levels), InverseHaarPackets(levels)


def _levels(factor: int, width: int) -> list[int]:
    """Widths from the patch level down to the latent's; a factor below the stem's has a smaller stem."""
    levels = [width]
    while min(factor, _STEM) * 2 ** (len(levels) - 1) < factor:
        levels.append(2 * levels[-1])
    return levels


class Encoder(nn.Module):
    """Images to latent features.

    Parameters
    ----------
    bands : int
        Bands of the image.
    channels : int
        Output channels.
    factor : int
        Downsampling, a power of two.
    width : int
        Channels at the patch level; doubled at every further level.
    blocks : int
        Residual blocks a level.
    stem : {"unshuffle", "haar"}
        How patches become channels: pixel by pixel, or as orthonormal wavelet packets.
    attention : bool
        Self-attention at the lowest level.
    norm : {"group", "rms"}
        Normalization of the blocks.
    """

    def __init__(
        self,
        bands: int,
        channels: int,
        *,
        factor: int = 8,
        width: int = 128,
        blocks: int = 1,
        stem: str = "unshuffle",
        attention: bool = False,
        norm: str = "group",
    ) -> None:
        super().__init__()
        side, levels = min(factor, _STEM), _levels(factor, width)
        layers: list[nn.Module] = [_patches(stem, side)[0], nn.Conv2d(bands * side**2, width, 1)]
        for i, w in enumerate(levels):
            if i:
                layers += [nn.PixelUnshuffle(2), nn.Conv2d(4 * levels[i - 1], w, 1)]
            layers += [_Block(w, norm) for _ in range(blocks)]
        layers += [_Attention(levels[-1], norm)] if attention else []
        # No norm here, nor in the decoder's end: it would hide how bright the sky is and how noisy.
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(levels[-1], channels, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, bands, y, x)`` to ``(n, channels, y / factor, x / factor)``."""
        return self.layers(x)


class Decoder(nn.Module):
    """Latents to images, and to ``extra`` maps at the patch level.

    Parameters
    ----------
    channels : int
        Latent channels.
    bands : int
        Bands of the image.
    extra : int
        Number of further maps, given at one value a patch.
    factor, width, blocks, stem, attention, norm
        As in `Encoder`.
    activation : {"linear", "tanh"}
        Of the image: tanh keeps it within (-1, 1).
    """

    def __init__(
        self,
        channels: int,
        bands: int,
        *,
        extra: int = 0,
        factor: int = 8,
        width: int = 128,
        blocks: int = 1,
        stem: str = "unshuffle",
        attention: bool = False,
        norm: str = "group",
        activation: str = "linear",
    ) -> None:
        super().__init__()
        if activation not in ("linear", "tanh"):
            raise ValueError(f"activation '{activation}' is not linear or tanh")
        side, levels = min(factor, _STEM), _levels(factor, width)
        layers: list[nn.Module] = [nn.Conv2d(channels, levels[-1], 3, padding=1)]
        layers += [_Attention(levels[-1], norm)] if attention else []
        for i, w in reversed(list(enumerate(levels))):
            layers += [_Block(w, norm) for _ in range(blocks)]
            if i:
                layers += [nn.Conv2d(w, 4 * levels[i - 1], 1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers, nn.SiLU())
        last = [nn.Tanh()] if activation == "tanh" else []
        self.image = nn.Sequential(nn.Conv2d(width, bands * side**2, 3, padding=1), _patches(stem, side)[1], *last)
        self.extra = nn.Conv2d(width, extra, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def last_weight(self) -> Tensor:
        """Weights of the layer that gives the image."""
        weight = self.image[0].weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(n, channels, h, w)`` to the image and the extra maps ``(n, extra, y / stem, x / stem)``."""
        y = self.layers(z)
        return self.image(y), self.extra(y)

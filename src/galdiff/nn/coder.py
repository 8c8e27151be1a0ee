"""Convolutional encoder and decoder with a patch stem.

The image is cut into patches first (pixel unshuffle by four), so that no convolution runs at full resolution; residual
blocks of a wide depthwise and two pointwise convolutions follow (Liu et al. 2022, arXiv:2201.03545), and a further
factor of two is one more unshuffle. There is no connection from encoder to decoder but the latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Decoder", "Encoder"]

_STEM = 4


class _Block(nn.Module):
    """Depthwise 5x5, normalisation, pointwise expansion by two; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(8, width)
        self.up, self.down = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(functional.silu(self.up(self.norm(self.depthwise(x)))))


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
    """

    def __init__(self, bands: int, channels: int, *, factor: int = 8, width: int = 128, blocks: int = 1) -> None:
        super().__init__()
        stem, levels = min(factor, _STEM), _levels(factor, width)
        layers: list[nn.Module] = [nn.PixelUnshuffle(stem), nn.Conv2d(bands * stem**2, width, 1)]
        for i, w in enumerate(levels):
            if i:
                layers += [nn.PixelUnshuffle(2), nn.Conv2d(4 * levels[i - 1], w, 1)]
            layers += [_Block(w) for _ in range(blocks)]
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
    factor, width, blocks : int
        As in `Encoder`.
    """

    def __init__(
        self, channels: int, bands: int, *, extra: int = 0, factor: int = 8, width: int = 128, blocks: int = 1
    ) -> None:
        super().__init__()
        stem, levels = min(factor, _STEM), _levels(factor, width)
        layers: list[nn.Module] = [nn.Conv2d(channels, levels[-1], 3, padding=1)]
        for i, w in reversed(list(enumerate(levels))):
            layers += [_Block(w) for _ in range(blocks)]
            if i:
                layers += [nn.Conv2d(w, 4 * levels[i - 1], 1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers, nn.SiLU())
        self.image = nn.Sequential(nn.Conv2d(width, bands * stem**2, 3, padding=1), nn.PixelShuffle(stem))
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

"""A patch discriminator: which parts of an image look real."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["PatchDiscriminator"]

_LEVELS = 3


class PatchDiscriminator(nn.Module):
    """Convolutions down to one logit for every patch of 38 pixels, eight pixels apart (Isola et al. 2017).

    The layers have spectral norm (Miyato et al. 2018, arXiv:1802.05957) and no normalization of what passes through
    them, which would hide how bright the sky is and how noisy.

    Parameters
    ----------
    bands : int
        Bands of the image.
    width : int
        Channels after the first layer; doubled at every further one.
    """

    def __init__(self, bands: int, *, width: int = 32) -> None:
        super().__init__()
        widths = [bands, *(width * 2**level for level in range(_LEVELS))]
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, band, y, x)`` to logits ``(n, 1, y / 8, x / 8)``; positive means real."""
        return self.layers(x)

r"""Finite scalar quantization: every latent channel rounded to a few levels (Mentzer et al. 2023, arXiv:2309.15505).

With L levels of a channel the encoder's output is bounded by :math:`b = \tanh`, and decoded is

.. math:: q(b) = \frac{2 k}{L - 1} - 1, \quad k = \mathrm{round}\Bigl(\frac{L - 1}{2} (b + 1)\Bigr)
          \in \{0, \ldots, L - 1\},

which is the paper's rounding of :math:`\lfloor L / 2 \rfloor \tanh` for odd L; for even L the levels lie
symmetrically here, where the paper shifts them by half of one. The gradient passes the rounding unchanged. There is no
codebook that could collapse, and nothing to add to the loss.

The posterior holds b as it was before rounding: a denoiser learns a density rather than a set of points, and the
decoder rounds what it draws (Rombach et al. 2022, arXiv:2112.10752, Section 3.1, do so with their VQ).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.autoencoder.convolutional import ConvolutionalAutoencoder
from galdiff.autoencoder.decoded import DecodedSky
from galdiff.autoencoder.posterior import LatentPosterior

__all__ = ["FSQAutoencoder", "ScalarQuantizer"]


class ScalarQuantizer(nn.Module):
    """Rounding to levels within [-1, 1], channel by channel.

    Parameters
    ----------
    levels : sequence of int
        Levels of every channel, two or more.
    """

    levels: Tensor
    places: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2 or math.prod(levels) >= 2**63:
            raise ValueError(f"levels {list(levels)} are not two or more each, with fewer than 2^63 codes")
        places = [math.prod(levels[:c]) for c in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels).view(-1, 1, 1), persistent=False)
        self.register_buffer("places", torch.tensor(places).view(-1, 1, 1), persistent=False)

    def rounded(self, z: Tensor) -> Tensor:
        """Return the level of every latent, int64 ``(n, channel, y, x)`` from 0."""
        level = (0.5 * (self.levels - 1) * (z.float() + 1)).round()
        return level.clamp_min(0).minimum(self.levels - 1).long()

    def values(self, level: Tensor) -> Tensor:
        """Return the latents of levels."""
        return 2 * level / (self.levels - 1) - 1

    def index(self, level: Tensor) -> Tensor:
        """Return the numbers of codes: levels ``(n, channel, y, x)`` are digits of one int64 ``(n, y, x)``."""
        return (level * self.places).sum(dim=1)

    def level(self, index: Tensor) -> Tensor:
        """Undo `index`."""
        return index[:, None] // self.places % self.levels

    def forward(self, z: Tensor) -> Tensor:
        """Round; the gradient is the identity's."""
        return z + (self.values(self.rounded(z)) - z).detach()


class FSQAutoencoder(ConvolutionalAutoencoder):
    """Autoencoder with finite scalar quantization.

    Parameters
    ----------
    bands : int
        Bands of the image.
    levels : sequence of int
        Levels of every latent channel; the default has 64,000 codes.
    **network
        ``factor``, ``width``, ``blocks`` and options of `ConvolutionalAutoencoder`.
    """

    KIND: ClassVar[str] = "fsq"

    def __init__(self, bands: int, *, levels: Sequence[int] = (8, 8, 8, 5, 5, 5), **network: Any) -> None:
        super().__init__(bands, len(levels), len(levels), {"levels": list(levels)}, **network)
        self.quantizer = ScalarQuantizer(levels)

    def encode(self, x: Tensor) -> LatentPosterior:
        """Encode stretched images ``(n, band, y, x)`` whose sides the factor divides; latents are within (-1, 1)."""
        return LatentPosterior.certain(self.encoder(x).float().tanh())

    def decode(self, z: Tensor) -> DecodedSky:
        """Round latents ``(n, channel, y, x)`` and decode them."""
        return super().decode(self.quantizer(z))

    def regularizer(self, posterior: LatentPosterior) -> tuple[Tensor, dict[str, Tensor]]:
        """Add nothing; log the perplexity of a channel's levels and the share of them in use, means over channels."""
        level, most = self.quantizer.rounded(posterior.mean.detach()), int(max(self.spec["levels"]))
        share = functional.one_hot(level.transpose(0, 1).flatten(1), most).float().mean(dim=1)
        perplexity = torch.exp(-torch.special.xlogy(share, share).sum(dim=1))
        used = (share > 0).sum(dim=1) / self.quantizer.levels.flatten()
        return posterior.mean.new_zeros(()), {"perplexity": perplexity.mean(), "codes_used": used.mean()}

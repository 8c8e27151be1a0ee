"""The Kullback-Leibler autoencoder: a normal posterior over latents, held near the unit normal."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from galdiff.autoencoder.convolutional import ConvolutionalAutoencoder
from galdiff.autoencoder.posterior import LatentPosterior

__all__ = ["KLAutoencoder"]


class KLAutoencoder(ConvolutionalAutoencoder):
    """Kullback-Leibler autoencoder (Rombach et al. 2022, arXiv:2112.10752, Section 3.1) for N-band float images.

    Parameters
    ----------
    bands : int
        Bands of the image.
    channels : int
        Latent channels.
    **network
        ``factor``, ``width``, ``blocks`` and options of `ConvolutionalAutoencoder`.
    """

    KIND: ClassVar[str] = "kl"

    def __init__(self, bands: int, *, channels: int = 8, **network: Any) -> None:
        super().__init__(bands, channels, 2 * channels, {"channels": channels}, **network)

    def encode(self, x: Tensor) -> LatentPosterior:
        """Encode stretched images ``(n, band, y, x)`` whose sides the factor divides."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return LatentPosterior(mean, log_var.clamp(-20.0, 10.0))

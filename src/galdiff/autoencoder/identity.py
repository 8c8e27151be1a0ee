"""No autoencoder: the latents are the stretched images, for diffusion in pixel space."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from galdiff.autoencoder.base import Autoencoder
from galdiff.autoencoder.decoded import Decoded
from galdiff.autoencoder.posterior import LatentPosterior

__all__ = ["IdentityAutoencoder"]


class IdentityAutoencoder(Autoencoder):
    """Latents that are the stretched images; there is no noise model, since the noise is in the pixels.

    Parameters
    ----------
    bands : int
        Bands of the image.
    """

    KIND: ClassVar[str] = "identity"
    trainable: ClassVar[bool] = False

    def __init__(self, bands: int) -> None:
        super().__init__(bands, 1, bands, {})

    def encode(self, x: Tensor) -> LatentPosterior:
        """Return the images, of which nothing is drawn."""
        return LatentPosterior.certain(x)

    def decode(self, z: Tensor) -> Decoded:
        """Return the latents."""
        return Decoded(z)

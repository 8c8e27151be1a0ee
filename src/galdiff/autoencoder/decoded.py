"""What decoders say of an image: its mean, and where it is modeled, its sky noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from galdiff.autoencoder.grain import SCALES, Grain
from galdiff.randomness import normal

__all__ = ["Decoded", "DecodedSky"]


@dataclass(frozen=True)
class Decoded:
    """A decoded image whose noise has no model: it is in the pixels, or there is none.

    Attributes
    ----------
    mean : Tensor
        Stretched image ``(n, band, y, x)``.
    """

    mean: Tensor

    def sample(self, seed: int, index: Tensor) -> Tensor:
        """Return the mean: there is nothing to draw."""
        return self.mean


@dataclass(frozen=True)
class DecodedSky(Decoded):
    """A noise-free image, and the maps of its sky noise.

    Attributes
    ----------
    mean : Tensor
        Noise-free stretched image ``(n, band, y, x)``.
    maps : Tensor
        Log standard deviation of the noise by wavelet scale and band, at patch resolution.
    grain : Grain
        The noise model the maps belong to.
    """

    maps: Tensor
    grain: Grain

    def sample(self, seed: int, index: Tensor) -> Tensor:
        """Draw the image with its sky noise; row i depends on ``(seed, index[i])`` alone."""
        bands, h, w = self.mean.shape[1:]
        white = normal(seed, "grain", index, (SCALES * bands, h, w), device=self.mean.device)
        scatter = normal(seed, "grain level", index, (SCALES * bands,), device=self.mean.device)
        return self.mean + self.grain(self.mean, self.maps, white, scatter)

    def detach(self) -> DecodedSky:
        """Return the same without a graph."""
        return DecodedSky(self.mean.detach(), self.maps.detach(), self.grain)

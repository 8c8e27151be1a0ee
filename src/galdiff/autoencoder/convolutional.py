"""What the trained kinds have in common: convolutional halves, and a model of the sky noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from galdiff.autoencoder.base import SkyAutoencoder
from galdiff.autoencoder.decoded import DecodedSky
from galdiff.autoencoder.grain import SCALES
from galdiff.nn.coder import Decoder, Encoder

__all__ = ["ConvolutionalAutoencoder"]

_USUAL = {"stem": "unshuffle", "attention": False, "norm": "group", "activation": "linear"}


class ConvolutionalAutoencoder(SkyAutoencoder):
    """Base of the trained kinds.

    Parameters
    ----------
    bands : int
        Bands of the image.
    channels, outputs : int
        Latent channels, and channels that the encoder gives.
    spec : mapping
        What the kind adds to the spec.
    factor : int
        Downsampling: 1, 2, 4, 8 or 16.
    width, blocks : int
        Size of encoder and decoder (`galdiff.nn.Encoder`).
    **options
        ``stem``, ``attention``, ``norm`` of `galdiff.nn.Encoder` and ``activation`` of `galdiff.nn.Decoder`.
    """

    MODULES: ClassVar[Mapping[str, tuple[str, ...]]] = {"encoder": ("encoder",), "decoder": ("decoder", "grain")}

    def __init__(
        self,
        bands: int,
        channels: int,
        outputs: int,
        spec: Mapping[str, Any],
        *,
        factor: int = 8,
        width: int = 128,
        blocks: int = 1,
        **options: Any,
    ) -> None:
        if factor not in (1, 2, 4, 8, 16):
            raise ValueError(f"factor {factor} is not 1, 2, 4, 8 or 16")
        # What is as it usually is stays out, so that a spec is the same as before there was a choice.
        chosen = {k: v for k, v in options.items() if k not in _USUAL or v != _USUAL[k]}
        size: dict[str, Any] = {"width": width, "blocks": blocks}
        super().__init__(bands, factor, channels, {"factor": factor, **spec, **size, **chosen})
        last = {"activation": chosen.pop("activation")} if "activation" in chosen else {}
        self.encoder = Encoder(bands, outputs, factor=factor, **size, **chosen)
        self.decoder = Decoder(channels, bands, extra=SCALES * bands, factor=factor, **size, **chosen, **last)

    def decode(self, z: Tensor) -> DecodedSky:
        """Decode latents ``(n, channel, y, x)``."""
        mean, maps = self.decoder(z)
        return DecodedSky(mean, maps, self.grain)

    @property
    def last_weight(self) -> Tensor:
        """Weights of the layer that gives the mean image."""
        return self.decoder.last_weight

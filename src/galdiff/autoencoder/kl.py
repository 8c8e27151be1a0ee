"""The autoencoder: pixels to a latent posterior, latents to a mean image and its sky noise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from galdiff.atomic import atomic_write, write_json
from galdiff.autoencoder.grain import SCALES, Grain
from galdiff.autoencoder.posterior import LatentPosterior
from galdiff.errors import CheckpointError
from galdiff.nn.coder import Decoder, Encoder
from galdiff.randomness import normal

__all__ = ["PARTS", "Autoencoder", "Decoded"]

PARTS = ("encoder", "decoder")
"""Halves that can be loaded alone."""
_MODULES = {"encoder": ("encoder",), "decoder": ("decoder", "grain")}


@dataclass(frozen=True)
class Decoded:
    """What a decoder says of an image: its mean, and the maps of its sky noise.

    Attributes
    ----------
    mean : Tensor
        Noise-free stretched image ``(n, band, y, x)``.
    maps : Tensor
        Log standard deviation of the noise by wavelet scale and band, at patch resolution.
    grain : Grain
        The noise model the maps belong to.
    """

    mean: Tensor
    maps: Tensor
    grain: Grain

    def sample(self, seed: int, index: Tensor) -> Tensor:
        """Draw the image with its sky noise; row i depends on ``(seed, index[i])`` alone."""
        bands, h, w = self.mean.shape[1:]
        white = normal(seed, "grain", index, (SCALES * bands, h, w), device=self.mean.device)
        scatter = normal(seed, "grain level", index, (SCALES * bands,), device=self.mean.device)
        return self.mean + self.grain(self.mean, self.maps, white, scatter)

    def detach(self) -> Decoded:
        """Return the same without a graph."""
        return Decoded(self.mean.detach(), self.maps.detach(), self.grain)


class Autoencoder(nn.Module):
    """Kullback-Leibler autoencoder (Rombach et al. 2022, arXiv:2112.10752, Section 3.1) for N-band float images.

    Parameters
    ----------
    bands : int
        Bands of the image.
    factor : int
        Downsampling: 1, 2, 4, 8 or 16.
    channels : int
        Latent channels.
    width, blocks : int
        Size of encoder and decoder (`galdiff.nn.Encoder`).
    """

    def __init__(self, bands: int, *, factor: int = 8, channels: int = 8, width: int = 128, blocks: int = 1) -> None:
        super().__init__()
        if factor not in (1, 2, 4, 8, 16):
            raise ValueError(f"factor {factor} is not 1, 2, 4, 8 or 16")
        self.bands, self.factor, self.latent_channels = bands, factor, channels
        self.spec: dict[str, Any] = {
            "kind": "kl",
            "bands": bands,
            "factor": factor,
            "channels": channels,
            "width": width,
            "blocks": blocks,
        }
        size = {"factor": factor, "width": width, "blocks": blocks}
        self.encoder = Encoder(bands, 2 * channels, **size)
        self.decoder = Decoder(channels, bands, extra=SCALES * bands, **size)
        self.grain = Grain(bands)

    def encode(self, x: Tensor) -> LatentPosterior:
        """Encode stretched images ``(n, band, y, x)`` whose sides the factor divides."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return LatentPosterior(mean, log_var.clamp(-20.0, 10.0))

    def decode(self, z: Tensor) -> Decoded:
        """Decode latents ``(n, channel, y, x)``."""
        mean, maps = self.decoder(z)
        return Decoded(mean, maps, self.grain)

    def save(self, folder: Path) -> None:
        """Write ``encoder.safetensors``, ``decoder.safetensors`` (with the noise model) and, last, ``spec.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        for part, tensors in self._parts().items():
            with atomic_write(folder / f"{part}.safetensors") as file:
                file.write(safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()}))
        write_json(folder / "spec.json", self.spec)

    @classmethod
    def load(cls, folder: Path, *, part: str | None = None) -> Autoencoder:
        """Read what `save` wrote.

        Parameters
        ----------
        folder : Path
            The folder.
        part : {"encoder", "decoder"}, optional
            Read and keep this part alone.

        Raises
        ------
        CheckpointError
            Where a file is missing, damaged or of another architecture.
        """
        try:
            spec = json.loads((folder / "spec.json").read_text())
            if spec.pop("kind") != "kl":
                raise ValueError("not a KL autoencoder")
            model = cls(spec.pop("bands"), **spec)
            state: dict[str, Tensor] = {}
            for name in PARTS if part is None else (part,):
                state |= safetensors.torch.load_file(folder / f"{name}.safetensors")
            if part is not None:
                for name in [name for name in model._modules if name not in _MODULES[part]]:
                    delattr(model, name)
            model.load_state_dict(state)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"cannot load the autoencoder: {error}", where=folder) from error
        return model.eval()

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        state = self.state_dict()
        return {p: {k: v for k, v in state.items() if k.split(".")[0] in _MODULES[p]} for p in PARTS}

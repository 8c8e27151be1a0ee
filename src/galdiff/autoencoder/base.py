"""What every autoencoder is: pixels to a latent posterior and back, in two halves that load alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from galdiff.atomic import write_json
from galdiff.autoencoder.decoded import Decoded, DecodedSky
from galdiff.autoencoder.grain import Grain
from galdiff.autoencoder.posterior import LatentPosterior
from galdiff.weights import load_weights, save_weights

__all__ = ["PARTS", "Autoencoder", "SkyAutoencoder"]

_BATCH = 64

PARTS = ("encoder", "decoder")
"""Halves that can be loaded alone."""


class Autoencoder(nn.Module, ABC):
    """Base of all kinds; `build_autoencoder` and `load_autoencoder` know them.

    Parameters
    ----------
    bands : int
        Bands of the image.
    factor : int
        Downsampling from image to latent.
    channels : int
        Latent channels.
    spec : mapping
        The other arguments of the constructor, as JSON.

    Attributes
    ----------
    bands, factor, latent_channels : int
        As above.
    spec : dict
        What `build_autoencoder` needs to build it again.
    """

    KIND: ClassVar[str]
    MODULES: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(PARTS, ())
    """Names of the modules that belong to either half."""
    trainable: ClassVar[bool] = True
    """Whether there is anything to learn."""

    def __init__(self, bands: int, factor: int, channels: int, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.bands, self.factor, self.latent_channels = bands, factor, channels
        self.spec: dict[str, Any] = {"kind": self.KIND, "bands": bands, **spec}

    @abstractmethod
    def encode(self, x: Tensor) -> LatentPosterior:
        """Encode stretched images ``(n, band, y, x)`` whose sides the factor divides."""

    @abstractmethod
    def decode(self, z: Tensor) -> Decoded:
        """Decode latents ``(n, channel, y, x)``."""

    def regularizer(self, posterior: LatentPosterior) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what this kind adds to the loss of a training batch, and figures to log."""
        return posterior.mean.new_zeros(()), {}

    @torch.no_grad()
    def after_step(self, finite: Tensor) -> None:
        """Follow a training step; ``finite`` is 0 where the step was skipped, a tensor that nobody waits for."""

    def calibrate(self, x: Tensor, *, valid: Tensor | None = None, by_content: bool = True) -> None:
        """Fit the noise model, if there is one, to stretched images.

        Parameters
        ----------
        x : Tensor
            Some hundreds of images of the training split ``(n, band, y, x)``.
        valid : Tensor, optional
            bool, of the same shape: pixels to look at.
        by_content : bool
            As in `Grain.calibrate`.
        """

    def save(self, folder: Path) -> None:
        """Write ``encoder.safetensors``, ``decoder.safetensors`` (with the noise model) and, last, ``spec.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        for part, modules in self.MODULES.items():
            tensors = {k: v for k, v in state.items() if k.split(".")[0] in modules}
            save_weights(folder / f"{part}.safetensors", tensors)
        write_json(folder / "spec.json", self.spec)

    def restore(self, folder: Path, part: str | None = None) -> None:
        """Read the weights that `save` wrote, or one half of them, and then keep that half alone."""
        wanted = PARTS if part is None else (part,)
        state: dict[str, Tensor] = {}
        for name in wanted:
            state |= load_weights(folder / f"{name}.safetensors")[0]
        for module in (module for name, modules in self.MODULES.items() if name not in wanted for module in modules):
            delattr(self, module)
        self.load_state_dict(state)


class SkyAutoencoder(Autoencoder):
    """Base of the kinds that decode to a mean image and a model of its sky noise.

    Parameters
    ----------
    bands, factor, channels, spec
        As in `Autoencoder`.

    Attributes
    ----------
    grain : Grain
        The noise model.
    """

    def __init__(self, bands: int, factor: int, channels: int, spec: Mapping[str, Any]) -> None:
        super().__init__(bands, factor, channels, spec)
        self.grain = Grain(bands)

    @abstractmethod
    def decode(self, z: Tensor) -> DecodedSky:
        """Decode latents ``(n, channel, y, x)``."""

    @property
    @abstractmethod
    def last_weight(self) -> Tensor:
        """Weights of the layer that gives the mean image, where adversaries are weighed."""

    @torch.no_grad()
    def calibrate(self, x: Tensor, *, valid: Tensor | None = None, by_content: bool = True) -> None:
        """As in `Autoencoder`: gains, spectrum and band correlation, in closed form."""
        parts = [self.decode(self.encode(part).mean) for part in x.split(_BATCH)]
        mean, maps = torch.cat([p.mean for p in parts]), torch.cat([p.maps for p in parts])
        residual = x - mean if valid is None else torch.where(valid, x - mean, 0.0)
        self.grain.calibrate(mean.float(), residual.float(), maps.float(), by_content=by_content)

"""A pretrained `AutoencoderKL` of diffusers, of images with any number of bands.

Its latents are scaled and shifted as its configuration says, the way diffusers' pipelines do:
:math:`(z - m) / s` with m the ``latents_mean`` or ``shift_factor`` and s the ``latents_std`` (or 1) over the
``scaling_factor``. It decodes to a mean image alone, so that its noise model's maps are constant: level, spectrum and
band correlation of the grain are those that its reconstructions of the training images leave.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from galdiff.autoencoder.base import SkyAutoencoder
from galdiff.autoencoder.decoded import DecodedSky
from galdiff.autoencoder.grain import SCALES
from galdiff.autoencoder.posterior import LatentPosterior
from galdiff.errors import CheckpointError, ResourceError

__all__ = ["PretrainedAutoencoder", "find_pretrained"]

_CLASS, _EXTRA = "AutoencoderKL", "pip install galdiff[diffusers]"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json")


class PretrainedAutoencoder(SkyAutoencoder):
    """An `AutoencoderKL`, from a folder that diffusers' ``save_pretrained`` wrote, or from its configuration.

    Parameters
    ----------
    bands : int
        Bands of the image.
    folder : path-like, optional
        The folder, or that of a pipeline with a ``vae`` in it; its weights are read, as float32.
    config : mapping, optional
        The configuration alone; `restore` reads the weights.

    Raises
    ------
    CheckpointError
        Where the folder has no such model, none in safetensors, or one of other bands.
    ResourceError
        Where diffusers is not installed.
    """

    KIND: ClassVar[str] = "diffusers"
    MODULES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encoder": ("encoder", "quant_conv"),
        "decoder": ("decoder", "post_quant_conv", "grain"),
    }
    trainable: ClassVar[bool] = False
    center: Tensor
    spread: Tensor

    def __init__(
        self, bands: int, *, folder: str | Path | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        model_class = _model_class()
        if folder is not None:
            place, config = find_pretrained(folder, bands)
            try:
                vae = model_class.from_pretrained(
                    place, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise CheckpointError(f"the weights cannot be read: {error}", where=place) from error
        elif config is not None:
            vae = model_class.from_config(dict(config))
        else:
            raise ValueError("either a folder or a configuration is needed")
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        super().__init__(bands, factor, config["latent_channels"], {"config": dict(config)})
        vae = vae.float().requires_grad_(False)
        self.encoder, self.decoder = vae.encoder, vae.decoder
        self.quant_conv, self.post_quant_conv = (
            nn.Identity() if layer is None else layer for layer in (vae.quant_conv, vae.post_quant_conv)
        )
        center = config.get("latents_mean") or config.get("shift_factor") or 0.0
        spread = torch.tensor(config.get("latents_std") or 1.0) / (config.get("scaling_factor") or 1.0)
        self.register_buffer("center", torch.tensor(center).view(-1, 1, 1), persistent=False)
        self.register_buffer("spread", spread.view(-1, 1, 1), persistent=False)

    def encode(self, x: Tensor) -> LatentPosterior:
        """Encode stretched images ``(n, band, y, x)`` whose sides the factor divides."""
        mean, log_var = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return LatentPosterior((mean - self.center) / self.spread, log_var.clamp(-30.0, 20.0) - 2 * self.spread.log())

    def decode(self, z: Tensor) -> DecodedSky:
        """Decode latents ``(n, channel, y, x)``."""
        mean = self.decoder(self.post_quant_conv(z * self.spread + self.center))
        return DecodedSky(mean, mean.new_zeros(len(mean), SCALES * self.bands, 1, 1), self.grain)

    @property
    def last_weight(self) -> Tensor:
        """Weights of the layer that gives the mean image."""
        weight = self.decoder.conv_out.weight
        assert isinstance(weight, Tensor)
        return weight


def find_pretrained(folder: str | Path, bands: int) -> tuple[Path, dict[str, Any]]:
    """Find the model in a folder of diffusers, and check that it can be used.

    Parameters
    ----------
    folder : path-like
        The folder of an `AutoencoderKL`, or of a pipeline with one.
    bands : int
        Bands of the images.

    Returns
    -------
    folder : Path
        That of the model.
    config : dict
        Its configuration.

    Raises
    ------
    CheckpointError
        Where there is no such model, none in safetensors, or one of other bands.
    ResourceError
        Where diffusers is not installed.
    """
    if find_spec("diffusers") is None:
        raise ResourceError("a pretrained autoencoder needs diffusers", remedy=_EXTRA)
    place = Path(folder).expanduser()
    place = place / "vae" if (place / "vae" / "config.json").is_file() else place
    remedy = "Give the folder that AutoencoderKL.save_pretrained wrote"
    try:
        given = json.loads((place / "config.json").read_text())
        known = {k: v for k, v in given.items() if not k.startswith("_")}
        name, sizes = given.get("_class_name"), (known["block_out_channels"], known["latent_channels"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"is not a model of diffusers: {error}", where=place, remedy=remedy) from error
    if name != _CLASS or not all(sizes):
        raise CheckpointError(f"holds a '{name}', not an '{_CLASS}'", where=place, remedy=remedy)
    if not any((place / weights).is_file() for weights in _WEIGHTS):
        remedy = "Save it again with save_pretrained(folder, safe_serialization=True): a .bin file could run code"
        raise CheckpointError(f"there are no weights in safetensors ({_WEIGHTS[0]})", where=place, remedy=remedy)
    for key in ("in_channels", "out_channels"):
        if known.get(key, 3) != bands:
            message = f"this autoencoder has {known.get(key, 3)} bands ({key}), the images have {bands}"
            raise CheckpointError(message, where=place, remedy="Use another one, or images of its bands")
    return place, known


def _model_class() -> Any:
    try:
        from diffusers import AutoencoderKL
    except ModuleNotFoundError as error:
        raise ResourceError(f"a pretrained autoencoder needs diffusers ({error})", remedy=_EXTRA) from error
    return AutoencoderKL

"""Networks: layers and backbones, which know nothing of diffusion."""

from collections.abc import Mapping
from typing import Any

from galdiff.errors import CheckpointError
from galdiff.nn.coder import Decoder, Encoder
from galdiff.nn.conditioning import ConditionEmbedding, ConditionFeatures
from galdiff.nn.dihedral import dihedral, is_reflection
from galdiff.nn.discriminator import PatchDiscriminator
from galdiff.nn.dit import DiT
from galdiff.nn.edm2 import EDM2UNet
from galdiff.nn.unet import UNet
from galdiff.schema.conditions import ConditionSchema

__all__ = [
    "ConditionEmbedding",
    "ConditionFeatures",
    "Decoder",
    "DiT",
    "EDM2UNet",
    "Encoder",
    "PatchDiscriminator",
    "UNet",
    "build_backbone",
    "dihedral",
    "is_reflection",
]

_BACKBONES: dict[str, type[UNet] | type[EDM2UNet] | type[DiT]] = {"unet": UNet, "edm2": EDM2UNet, "dit": DiT}


def build_backbone(spec: Mapping[str, Any], schema: ConditionSchema) -> UNet | EDM2UNet | DiT:
    """Build a backbone from its ``spec``.

    Parameters
    ----------
    spec : mapping
        ``{"kind": "unet" | "edm2" | "dit", "channels": …, <constructor arguments>}``.
    schema : ConditionSchema
        What it is conditioned on.

    Raises
    ------
    CheckpointError
        For an unknown kind.
    """
    arguments = dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in _BACKBONES:
        raise CheckpointError(f"unknown backbone '{kind}'", remedy=f"Known: {', '.join(_BACKBONES)}")
    return _BACKBONES[kind](arguments.pop("channels"), schema, **arguments)

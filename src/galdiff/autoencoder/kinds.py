"""The kinds of autoencoder, by the names that catalog files and saved models give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

from galdiff.atomic import sha256_file, sha256_json
from galdiff.autoencoder.base import PARTS, Autoencoder
from galdiff.autoencoder.fsq import FSQAutoencoder
from galdiff.autoencoder.identity import IdentityAutoencoder
from galdiff.autoencoder.kl import KLAutoencoder
from galdiff.autoencoder.pretrained import PretrainedAutoencoder
from galdiff.autoencoder.vq import VQAutoencoder
from galdiff.errors import CheckpointError, reason

__all__ = ["KINDS", "build_autoencoder", "load_autoencoder", "weights_hash"]

_CLASSES: tuple[type[Autoencoder], ...] = (
    KLAutoencoder,
    VQAutoencoder,
    FSQAutoencoder,
    IdentityAutoencoder,
    PretrainedAutoencoder,
)
_BY_KIND = {c.KIND: c for c in _CLASSES}
KINDS = tuple(_BY_KIND)
"""Names of the kinds."""


def build_autoencoder(spec: Mapping[str, Any]) -> Autoencoder:
    """Build an autoencoder from its ``spec``.

    Parameters
    ----------
    spec : mapping
        ``{"kind": "kl" | "vq" | "fsq" | "identity" | "diffusers", "bands": …, <constructor arguments>}``.

    Raises
    ------
    CheckpointError
        For an unknown kind.
    """
    arguments = dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in _BY_KIND:
        raise CheckpointError(f"unknown autoencoder '{kind}'", remedy=f"Known: {', '.join(KINDS)}")
    return _BY_KIND[kind](arguments.pop("bands"), **arguments)


def load_autoencoder(folder: Path, part: str | None = None) -> Autoencoder:
    """Read what `Autoencoder.save` wrote, in evaluation mode.

    Parameters
    ----------
    folder : Path
        The folder.
    part : {"encoder", "decoder"}, optional
        Read and keep this half alone.

    Raises
    ------
    CheckpointError
        Where a file is missing, damaged or of another architecture.
    """
    try:
        model = build_autoencoder(json.loads((folder / "spec.json").read_text()))
        model.restore(folder, part)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        remedy = "Take a whole copy, or train it again: galdiff-train CATALOG --redo autoencoder"
        raise CheckpointError(f"cannot load the autoencoder: {reason(error)}", where=folder, remedy=remedy) from error
    return model.eval()


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of a saved autoencoder's weights: what a latent store is tied to."""
    return sha256_json([sha256_file(folder / f"{part}.safetensors") for part in PARTS])

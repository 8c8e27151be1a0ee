"""Files of tensors: safetensors with a hash of everything in them, so that no flipped bit goes unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from galdiff.atomic import atomic_write

__all__ = ["load_weights", "pack_weights", "save_weights"]


def pack_weights(tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> bytes:
    """Return the bytes of a file of tensors, whose header holds notes, as JSON, and the SHA-256 of both."""
    held, notes = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, notes or {}
    # One entry: those of a header with several come in any order.
    text = json.dumps({**notes, "sha256": _digest(notes, held)}, allow_nan=False)
    return safetensors.torch.save(held, {"galdiff": text})


def save_weights(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> None:
    """Write a file of tensors, and of notes by choice, whole or not at all."""
    with atomic_write(path) as file:
        file.write(pack_weights(tensors, notes))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a file, on the CPU, and its notes.

    A file without a hash, as versions before and other tools write them, is taken as it is.

    Raises
    ------
    OSError, safetensors.SafetensorError
        Where there is no such file, or it is of another format.
    ValueError
        Where its contents do not match their hash.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        notes = dict(json.loads((file.metadata() or {}).get("galdiff", "{}")))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    expected = notes.pop("sha256", None)
    if expected is not None and expected != _digest(notes, tensors):
        raise ValueError(f"the contents of {path.name} do not match their hash")
    return tensors, notes


def _digest(notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(notes).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # NumPy has no bfloat16
    return digest.hexdigest()

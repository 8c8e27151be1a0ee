"""Checkpoints: whole or absent, two kept, the older one used where the newer is damaged.

One safetensors file holds the tensors; its header holds the JSON of everything else, and the hash of both.
"""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from galdiff.atomic import atomic_write
from galdiff.errors import CheckpointError
from galdiff.weights import load_weights, pack_weights

__all__ = ["fault", "load_latest", "save_checkpoint"]

_KEPT = 2


def fault(point: str) -> None:
    """Die here if the environment's ``GALDIFF_FAULT`` names this point: tests of recovery use it."""
    if os.environ.get("GALDIFF_FAULT") == point:
        os.kill(os.getpid(), signal.SIGKILL)


def save_checkpoint(folder: Path, images: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    """Write ``checkpoint-<images>.safetensors`` and delete all but the newest two.

    Parameters
    ----------
    folder : Path
        Where checkpoints are.
    images : int
        Position of the training.
    tensors : dict
        Tensors, on any device.
    meta : dict
        JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint-{images:012d}.safetensors"
    fault("before-write")
    with atomic_write(path) as file:
        data = pack_weights(tensors, {**meta, "images": images})
        file.write(data[: len(data) // 2])
        fault("mid-write")
        file.write(data[len(data) // 2 :])
    fault("after-rename")
    for old in sorted(folder.glob("checkpoint-*.safetensors"))[:-_KEPT]:
        old.unlink()
    for abandoned in folder.glob(".checkpoint-*.tmp"):
        abandoned.unlink()
    fault("after-prune")
    return path


def load_latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest checkpoint that is whole.

    Returns
    -------
    tuple or None
        Tensors and JSON; None where there is no checkpoint.

    Raises
    ------
    CheckpointError
        Where there are checkpoints and none can be read: training never starts again in silence.
    """
    paths = sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)
    reasons = []
    for path in paths:
        try:
            tensors, meta = load_weights(path)
            if "images" not in meta:
                raise ValueError("this is no checkpoint")
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            reasons.append(f"{path.name}: {error}")
            continue
        if reasons:
            warnings.warn(f"damaged checkpoint ({'; '.join(reasons)}); going on from {path.name}", stacklevel=2)
        return tensors, meta
    if reasons:
        remedy = "Move the folder away to train anew"
        raise CheckpointError(f"no checkpoint can be read ({'; '.join(reasons)})", where=folder, remedy=remedy)
    return None

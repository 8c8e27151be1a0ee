"""Conditional latent diffusion for survey astronomy.

The public face is lazy: ``import galdiff`` imports no torch, and a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galdiff.config import train
    from galdiff.data import (
        DeepLenseDataset,
        FITSDataset,
        GZ2Dataset,
        HDF5Dataset,
        IDXDataset,
        ImageFolderDataset,
    )
    from galdiff.export import write_fits
    from galdiff.latent_diffusion import LatentDiffusion
    from galdiff.latents import LatentStore
    from galdiff.pipeline.external import evaluate

__all__ = [
    "DeepLenseDataset",
    "FITSDataset",
    "GZ2Dataset",
    "HDF5Dataset",
    "IDXDataset",
    "ImageFolderDataset",
    "LatentDiffusion",
    "LatentStore",
    "__version__",
    "evaluate",
    "train",
    "write_fits",
]

__version__ = _version("galdiff")

_HOME = {
    "DeepLenseDataset": "galdiff.data",
    "FITSDataset": "galdiff.data",
    "GZ2Dataset": "galdiff.data",
    "HDF5Dataset": "galdiff.data",
    "IDXDataset": "galdiff.data",
    "ImageFolderDataset": "galdiff.data",
    "LatentDiffusion": "galdiff.latent_diffusion",
    "LatentStore": "galdiff.latents",
    "evaluate": "galdiff.pipeline.external",
    "train": "galdiff.config",
    "write_fits": "galdiff.export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'galdiff' has no attribute '{name}'")
    return globals().setdefault(name, getattr(importlib.import_module(_HOME[name]), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Feature spaces of networks that were trained on photographs: Inception of 2015, and DINOv2 from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from galdiff.atomic import sha256_file
from galdiff.errors import CheckpointError, DataError
from galdiff.metrics.features.inception import SIDE, WIDTH, load_inception
from galdiff.metrics.features.resizing import RESIZERS
from galdiff.metrics.features.space import RenderedFeatures

__all__ = ["DINOv2Features", "InceptionFeatures"]

# Of ImageNet, with which DINOv2 was trained.
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class InceptionFeatures(RenderedFeatures):
    """Features of the Fréchet Inception distance.

    Parameters
    ----------
    protocol : {"tf", "torchmetrics-aa", "clean"}
        How images become 299 pixels wide, and with whose values the distance can be compared: torch-fidelity's (and
        torchmetrics' before 1.8), torchmetrics' of today, clean-fid's.
    weights : path-like, optional
        As in `load_inception`.
    device : str or torch.device
        Where the network runs.

    Raises
    ------
    DataError
        For a protocol that is not known.
    CheckpointError, ResourceError
        As `load_inception`.

    References
    ----------
    Heusel et al. 2017, arXiv:1706.08500; Parmar et al. 2022, arXiv:2104.11222.
    """

    width = WIDTH

    def __init__(
        self, protocol: str = "tf", weights: str | Path | None = None, *, device: str | torch.device = "cpu"
    ) -> None:
        if protocol not in RESIZERS:
            remedy = f"Known: {', '.join(RESIZERS)}"
            raise DataError(f"Inception features have no protocol '{protocol}'", remedy=remedy)
        network, digest = load_inception(weights)
        super().__init__(digest, device)
        self.name, self._resize, self._network = f"inception-2015/{protocol}", RESIZERS[protocol], network.to(device)

    def describe(self, rgb: np.ndarray) -> Tensor:
        """Resize to 299 pixels, scale by (x - 128) / 128, and take the pooled features."""
        x = torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))).to(self.device, torch.float32)
        return self._network((self._resize(x, SIDE) - 128) / 128)


class DINOv2Features(RenderedFeatures):
    """Features of DINOv2 (Oquab et al. 2023, arXiv:2304.07193), as Stein et al. 2023 (arXiv:2306.04675) take them.

    The class token of images that Pillow resized to 224 pixels by its bicubic kernel, in 8 bits.

    Parameters
    ----------
    folder : path-like
        A model in the format of transformers: ``config.json`` and ``model.safetensors``.
    device : str or torch.device
        Where the network runs.

    Raises
    ------
    CheckpointError
        Where transformers is not installed, or the folder holds no such model.
    """

    name = "dinov2"
    SIDE = 224

    def __init__(self, folder: str | Path, *, device: str | torch.device = "cpu") -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            remedy = "Download one, such as facebook/dinov2-large, and name its folder: dinov2=FOLDER"
            raise CheckpointError("holds no config.json and model.safetensors", where=folder, remedy=remedy)
        self._network: Any = _transformer(folder).to(device).eval()
        self.width = int(self._network.config.hidden_size)
        super().__init__(sha256_file(folder / "model.safetensors")[:8], device)

    def describe(self, rgb: np.ndarray) -> Tensor:
        """Resize, standardize as ImageNet, and take the class token after the last norm."""
        resized = [Image.fromarray(x).resize((self.SIDE, self.SIDE), Image.Resampling.BICUBIC) for x in rgb]
        x = np.stack([np.asarray(image, dtype=np.float32) for image in resized]) / 255
        x = ((x - _MEAN) / _STD).transpose(0, 3, 1, 2)
        pixels = torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
        return self._network(pixel_values=pixels).last_hidden_state[:, 0]


def _transformer(folder: Path) -> Any:
    try:
        from transformers import Dinov2Model
    except ImportError as error:
        remedy = "Install it: pip install 'galdiff[dinov2]'"
        raise CheckpointError("DINOv2 features need transformers", remedy=remedy) from error
    try:
        return Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"is no DINOv2 model: {error}", where=folder) from error

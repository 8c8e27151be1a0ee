"""Feature spaces: what is measured of every image before two populations are compared.

A space has a name and a protocol, which says everything that the numbers depend on: distances of different protocols
are different figures and are never compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

from galdiff.metrics.frechet import Whitening
from galdiff.metrics.physical import FEATURES, PROTOCOL, physical_features
from galdiff.metrics.rendering import Rendering

__all__ = ["FeatureSpace", "PhysicalFeatures", "RenderedFeatures"]


class FeatureSpace(ABC):
    """Images to features.

    Attributes
    ----------
    name : str
        Of the space, such as ``"inception-2015/tf"``.
    width : int
        Number of features.
    """

    name: str
    width: int

    @property
    @abstractmethod
    def protocol(self) -> str:
        """Everything the features depend on, once they are fitted."""

    @abstractmethod
    def fit(self, images: np.ndarray, unit: str, *, source: str = "real images") -> None:
        """Fix what must be the same for all images, by real ones; ``source`` says which, for the protocol."""

    @abstractmethod
    def measure(self, images: np.ndarray) -> np.ndarray:
        """Return the features of pixel values ``(n, band, y, x)``, float64 ``(n, width)``."""

    def scale(self, measured: np.ndarray) -> np.ndarray:
        """Give features the scale in which distances are taken."""
        return measured

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Measure and scale."""
        return self.scale(self.measure(images))

    def record(self) -> dict[str, Any]:
        """Return the JSON of what was fixed."""
        return {"name": self.name, "protocol": self.protocol, "width": self.width}


class PhysicalFeatures(FeatureSpace):
    """Features of the object and of its sky (`physical_features`), whitened by real images."""

    name = PROTOCOL
    width = len(FEATURES)

    def __init__(self) -> None:
        self._whitening: Whitening | None = None
        self._source = "nothing"

    @property
    def protocol(self) -> str:
        """The features and their whitening."""
        if self._whitening is None:
            return PROTOCOL
        return f"{PROTOCOL}, whitened by {self._source}, clipped at {self._whitening.clip:g} sigma"

    def fit(self, images: np.ndarray, unit: str, *, source: str = "real images") -> None:
        """Measure the mean and spread of every feature."""
        self._whitening, self._source = Whitening.fit(self.measure(images)), source

    def measure(self, images: np.ndarray) -> np.ndarray:
        """Return the features in their own units."""
        return physical_features(images)

    def scale(self, measured: np.ndarray) -> np.ndarray:
        """Whiten and clip."""
        return measured if self._whitening is None else self._whitening(measured)


class RenderedFeatures(FeatureSpace):
    """Features of a network that takes 8-bit color.

    Pixel values are rendered as three bands of 8 bits, rounded half to even and clipped, the same way for all images
    (`Rendering`); subclasses turn those into features.

    Parameters
    ----------
    weights : str
        Beginning of the hash of the network's weights.
    device : str or torch.device
        Where the network runs.
    """

    BATCH: ClassVar[int] = 32

    def __init__(self, weights: str, device: str | torch.device = "cpu") -> None:
        self._weights, self.device = weights, torch.device(device)
        self.rendering: Rendering | None = None

    @abstractmethod
    def describe(self, rgb: np.ndarray) -> torch.Tensor:
        """Return features ``(n, width)`` of uint8 ``(n, y, x, 3)``."""

    @property
    def protocol(self) -> str:
        """Space, weights and rendering."""
        shown = "" if self.rendering is None else f", {self.rendering}"
        return f"{self.name}, weights {self._weights}, 8 bits by round-half-even{shown}"

    def fit(self, images: np.ndarray, unit: str, *, source: str = "real images") -> None:
        """Fix the rendering."""
        self.rendering = Rendering.fit(images, unit)

    @torch.no_grad()
    def measure(self, images: np.ndarray) -> np.ndarray:
        """Render and describe, a batch at a time."""
        rendering = self.rendering or Rendering.fit(images, "display")
        parts = [images[i : i + self.BATCH] for i in range(0, len(images), self.BATCH)]
        return np.concatenate([self.describe(rendering(part)).double().cpu().numpy() for part in parts])

    def record(self) -> dict[str, Any]:
        """Add weights and rendering."""
        rendering = None if self.rendering is None else self.rendering.to_dict()
        return {**super().record(), "weights": self._weights, "rendering": rendering}

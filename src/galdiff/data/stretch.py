r"""Stretches: invertible maps from pixel values to the range of about [-1, 1] that networks see.

Nothing is clipped, so a stretch undone gives the pixel values back, to float32 precision. `Linear` keeps the shape of
the histogram, `Sqrt` :math:`2\,\mathrm{sign}(v)\sqrt{|v|/s} - 1` makes the Poisson-like grain and the faint outskirts
of 8-bit cutouts count. Stretches of physical units, band by band, are in `galdiff.data.stretches`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError

__all__ = ["Linear", "Sqrt", "Stretch", "robust_maximum"]

Array = TypeVar("Array", np.ndarray, Tensor)


class Stretch(ABC):
    """An invertible map of pixel values; NumPy arrays and tensors alike. A subclass names its ``kind``."""

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Stretch]]] = {}

    def __init_subclass__(cls, kind: str | None = None) -> None:
        if kind is not None:
            cls.kind = kind
            Stretch._kinds[kind] = cls

    @abstractmethod
    def fit(self, pixels: np.ndarray) -> Stretch:
        """Return the stretch with its parameters measured on pixel values ``(n, band, y, x)`` of the training split."""

    @abstractmethod
    def __call__(self, pixels: Array) -> Array:
        """Map pixel values to the network's range."""

    @abstractmethod
    def inverse(self, x: Array) -> Array:
        """Map back to pixel values."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description; `from_dict` is its inverse."""

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Stretch:
        """Build a stretch from its description, or from its kind alone.

        Raises
        ------
        DataError
            For an unknown kind.
        """
        fields = dict(fields)
        kind = fields.pop("kind", None)
        if kind not in Stretch._kinds:
            raise DataError(f"unknown stretch '{kind}'", remedy=f"Known: {', '.join(Stretch._kinds)}")
        return Stretch._kinds[kind](**fields)


def robust_maximum(pixels: np.ndarray) -> float:
    """Return where the brightest thousandth of pixel values starts.

    Raises
    ------
    DataError
        Where a value is not finite.
    """
    if not np.isfinite(pixels).all():
        raise DataError("the pixel values to fit a stretch on are not finite")
    return float(np.quantile(pixels.astype(np.float32), 0.999))


class Linear(Stretch, kind="linear"):
    """``2 (v - low) / (high - low) - 1``.

    Parameters
    ----------
    low, high : float
        Pixel values that map to -1 and 1; without them `fit` takes 0 and the robust maximum.
    """

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        self.low, self.high = low, high

    def fit(self, pixels: np.ndarray) -> Linear:
        """Return self where the range is given, else the range of the pixels."""
        if self.low is not None and self.high is not None:
            return self
        low = min(0.0, float(np.quantile(pixels.astype(np.float32), 0.001)))
        high = robust_maximum(pixels)
        if not high > low:
            raise DataError("the pixel values are constant: there is nothing to stretch")
        return Linear(low, high)

    def __call__(self, pixels: Array) -> Array:
        """Map pixel values to the network's range."""
        low, high = self._range()
        return (pixels - low) * (2 / (high - low)) - 1

    def inverse(self, x: Array) -> Array:
        """Map back to pixel values."""
        low, high = self._range()
        return (x + 1) * ((high - low) / 2) + low

    def _range(self) -> tuple[float, float]:
        if self.low is None or self.high is None:
            raise DataError("the stretch is not fitted", remedy="Call fit with training pixel values")
        return self.low, self.high

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": self.kind, "low": self.low, "high": self.high}


class Sqrt(Stretch, kind="sqrt"):
    """``2 sqrt((v / scale + offset) / (1 + offset)) - 1``, odd below its zero.

    Parameters
    ----------
    scale : float, optional
        Pixel value that maps to 1: 1 for display units; without it `fit` takes the robust maximum.
    offset : float
        In units of the scale. Without one, a sky that is clipped at black has its noise spread without bound, and a
        normal distribution of that spread is far too wide again above black. The default is 1.3 of 255.
    """

    def __init__(self, scale: float | None = None, offset: float = 0.005) -> None:
        self.scale, self.offset = scale, offset

    def fit(self, pixels: np.ndarray) -> Sqrt:
        """Return self where the scale is given, else the stretch of the pixels' robust maximum."""
        if self.scale is not None:
            return self
        high = robust_maximum(pixels)
        if not high > 0:
            raise DataError(
                "the pixel values are not positive: the square-root stretch needs light", remedy="Use asinh"
            )
        return Sqrt(high, self.offset)

    def _scale(self) -> float:
        if self.scale is None:
            raise DataError("the stretch is not fitted", remedy="Call fit with training pixel values")
        return self.scale

    def __call__(self, pixels: Array) -> Array:
        """Map pixel values to the network's range."""
        v = pixels / (self._scale() * (1 + self.offset))
        v += self.offset / (1 + self.offset)
        if isinstance(v, Tensor):  # few passes: in encoding and training this is done to every image
            return torch.copysign(v.abs().sqrt_(), v).mul_(2).sub_(1)
        return 2 * np.copysign(np.sqrt(np.abs(v)), v) - 1

    def inverse(self, x: Array) -> Array:
        """Map back to pixel values."""
        root = (x + 1) / 2
        return self._scale() * ((1 + self.offset) * root * abs(root) - self.offset)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": self.kind, "scale": self.scale, "offset": self.offset}

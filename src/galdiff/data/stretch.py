r"""Stretches: invertible maps from pixel values to the range of about [-1, 1] that networks see.

Nothing is clipped, so a stretch undone gives the pixel values back, to float32 precision. `Linear` keeps the shape of
the histogram, `Sqrt` :math:`2\,\mathrm{sign}(v)\sqrt{|v|/s} - 1` makes the Poisson-like grain and the faint outskirts
of 8-bit cutouts count, `Asinh` (Lupton et al. 1999, AJ 118, 1406) is linear in the noise and logarithmic in the light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError

__all__ = ["Asinh", "Linear", "Sqrt", "Stretch"]

Array = TypeVar("Array", np.ndarray, Tensor)


class Stretch(ABC):
    """An invertible map of pixel values; NumPy arrays and tensors alike."""

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
        kinds: dict[str, type[Stretch]] = {"linear": Linear, "sqrt": Sqrt, "asinh": Asinh}
        kind = fields.pop("kind", None)
        if kind not in kinds:
            raise DataError(f"unknown stretch '{kind}'", remedy=f"Known: {', '.join(kinds)}")
        return kinds[kind](**fields)


def _high(pixels: np.ndarray) -> float:
    """Return a robust maximum: the brightest thousandth starts here."""
    if not np.isfinite(pixels).all():
        raise DataError("the pixel values to fit a stretch on are not finite")
    return float(np.quantile(pixels.astype(np.float32), 0.999))


class Linear(Stretch):
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
        high = _high(pixels)
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
        return {"kind": "linear", "low": self.low, "high": self.high}


class Sqrt(Stretch):
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
        high = _high(pixels)
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
        return {"kind": "sqrt", "scale": self.scale, "offset": self.offset}


class Asinh(Stretch):
    """``2 asinh(v / softening) / asinh(high / softening) - 1``, band by band.

    Parameters
    ----------
    softening : list of float, optional
        Noise-like level of every band; without it `fit` takes twice the robust scatter of the faint half of the pixels.
    high : list of float, optional
        Pixel value of every band that maps to 1; without it the robust maximum.
    """

    def __init__(self, softening: list[float] | None = None, high: list[float] | None = None) -> None:
        self.softening, self.high = softening, high

    def fit(self, pixels: np.ndarray) -> Asinh:
        """Return self where both parameters are given, else those of the pixels."""
        if self.softening is not None and self.high is not None:
            return self
        softening, high = [], []
        for band in np.moveaxis(pixels, 1, 0).astype(np.float32):
            top = _high(band)
            middle = float(np.median(band))
            scatter = 1.4826 * float(np.median(np.abs(band[band <= middle] - middle)))
            softening.append(2 * scatter if scatter > 0 else 0.01 * max(top, 1e-30))
            high.append(max(top, 10 * softening[-1]))
        return Asinh(softening, high)

    def _parameters(self, x: Array) -> tuple[Array, Array]:
        if self.softening is None or self.high is None:
            raise DataError("the stretch is not fitted", remedy="Call fit with training pixel values")
        softening = np.asarray(self.softening, np.float64)[:, None, None]
        norm = np.arcsinh(np.asarray(self.high, np.float64)[:, None, None] / softening)
        if isinstance(x, Tensor):
            there = [torch.from_numpy(array).to(x, non_blocking=True) for array in (softening, norm)]
            return there[0], there[1]
        return softening.astype(x.dtype), norm.astype(x.dtype)

    def __call__(self, pixels: Array) -> Array:
        """Map pixel values to the network's range."""
        softening, norm = self._parameters(pixels)
        v = pixels / softening
        return 2 * (v.asinh() if isinstance(v, Tensor) else np.arcsinh(v)) / norm - 1

    def inverse(self, x: Array) -> Array:
        """Map back to pixel values."""
        softening, norm = self._parameters(x)
        u = (x + 1) / 2 * norm
        return softening * (u.sinh() if isinstance(u, Tensor) else np.sinh(u))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": "asinh", "softening": self.softening, "high": self.high}

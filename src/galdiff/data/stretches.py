r"""Stretches band by band, for images in physical units whose bands differ in noise and brightness.

`Asinh` (Lupton et al. 1999, AJ 118, 1406) is linear in the noise, logarithmic in the light and takes any value. `Log`,
:math:`2 \ln(1 + v/s) / \ln(1 + h/s) - 1` with softening s and bright end h, is defined where :math:`v > -s`.
`Percentile` is linear between two percentiles. All are as precise as float32 allows:
:math:`|x' - x| \le 10^{-5} \max(|x|, s)` after there and back, with the range as the softening of a linear one.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from galdiff.data.stretch import Array, Stretch, robust_maximum
from galdiff.errors import DataError

__all__ = ["Asinh", "Log", "Percentile"]


class _PerBand(Stretch):
    """A stretch with one number a band for each of its parameters."""

    def _columns(self, x: Array, *parameters: list[float] | None) -> list[Array]:
        """Return parameters that broadcast against ``(…, band, y, x)``, in the type and on the device of ``x``."""
        columns: list[Any] = []
        for values in parameters:
            if values is None:
                raise DataError("the stretch is not fitted", remedy="Call fit with training pixel values")
            column = np.asarray(values, np.float64)[:, None, None]
            if isinstance(x, Tensor):
                columns.append(torch.from_numpy(column).to(x, non_blocking=True))
            else:
                columns.append(column.astype(x.dtype))
        return columns


def _bands(pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(pixels, 1, 0).astype(np.float32)


class _Softened(_PerBand):
    """``2 f(v / softening) / f(high / softening) - 1`` with f of the subclass."""

    def __init__(self, softening: list[float] | None = None, high: list[float] | None = None) -> None:
        self.softening, self.high = softening, high

    @staticmethod
    @abstractmethod
    def _f(v: Array) -> Array: ...

    @staticmethod
    @abstractmethod
    def _f_inverse(u: Array) -> Array: ...

    def _soften(self, band: np.ndarray) -> float:
        middle = float(np.median(band))
        scatter = 1.4826 * float(np.median(np.abs(band[band <= middle] - middle)))
        return 2 * scatter if scatter > 0 else 0.01 * max(robust_maximum(band), 1e-30)

    def fit(self, pixels: np.ndarray) -> Self:
        """Return self where both parameters are given, else those of the pixels."""
        if self.softening is not None and self.high is not None:
            return self
        softening, high = [], []
        for band in _bands(pixels):
            top = robust_maximum(band)
            softening.append(self._soften(band))
            high.append(max(top, 10 * softening[-1]))
        return type(self)(softening, high)

    def __call__(self, pixels: Array) -> Array:
        """Map pixel values to the network's range."""
        softening, high = self._columns(pixels, self.softening, self.high)
        return 2 * self._f(pixels / softening) / self._f(high / softening) - 1

    def inverse(self, x: Array) -> Array:
        """Map back to pixel values."""
        softening, high = self._columns(x, self.softening, self.high)
        return softening * self._f_inverse((x + 1) / 2 * self._f(high / softening))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": self.kind, "softening": self.softening, "high": self.high}


class Asinh(_Softened, kind="asinh"):
    """``2 asinh(v / softening) / asinh(high / softening) - 1``, band by band.

    Parameters
    ----------
    softening : list of float, optional
        Noise-like level of every band; without it `fit` takes twice the robust scatter of the faint half of the pixels.
    high : list of float, optional
        Pixel value of every band that maps to 1; without it the robust maximum.
    """

    @staticmethod
    def _f(v: Array) -> Array:
        return v.asinh() if isinstance(v, Tensor) else np.arcsinh(v)

    @staticmethod
    def _f_inverse(u: Array) -> Array:
        return u.sinh() if isinstance(u, Tensor) else np.sinh(u)


class Log(_Softened, kind="log"):
    """``2 ln(1 + v / softening) / ln(1 + high / softening) - 1``, band by band, for values above ``-softening``.

    Parameters
    ----------
    softening : list of float, optional
        Of every band, the end of the domain; without it `fit` takes twice the robust scatter of the faint half of the
        pixels, or twice the depth of the deepest one where that is more.
    high : list of float, optional
        Pixel value of every band that maps to 1; without it the robust maximum.
    """

    @staticmethod
    def _f(v: Array) -> Array:
        return v.log1p() if isinstance(v, Tensor) else np.log1p(v)

    @staticmethod
    def _f_inverse(u: Array) -> Array:
        return u.expm1() if isinstance(u, Tensor) else np.expm1(u)

    def _soften(self, band: np.ndarray) -> float:
        return max(super()._soften(band), -2 * float(band.min()))

    def __call__(self, pixels: Array) -> Array:
        """Map pixel values to the network's range.

        Raises
        ------
        DataError
            For values at or below ``-softening``, where there is no logarithm.
        """
        (softening,) = self._columns(pixels, self.softening)
        if bool((pixels <= -softening).any()):
            limits = ", ".join(f"{-s:g}" for s in self.softening or ())
            message = f"the logarithmic stretch is defined above {limits}, and the values reach {float(pixels.min()):g}"
            raise DataError(message, remedy="Use asinh, which takes any value")
        return super().__call__(pixels)


class Percentile(_PerBand, kind="percentile"):
    """``2 (v - low) / (high - low) - 1`` with percentiles of every band; what lies beyond them is not clipped.

    Parameters
    ----------
    low, high : list of float, optional
        Pixel values of every band that map to -1 and 1; without them `fit` takes the percentiles.
    percentiles : pair of float
        Within [0, 100].
    """

    def __init__(
        self,
        low: list[float] | None = None,
        high: list[float] | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
    ) -> None:
        first, last = percentiles
        if not 0 <= first < last <= 100:
            raise DataError(f"percentiles {first:g} and {last:g} are not in order within [0, 100]")
        self.low, self.high, self.percentiles = low, high, (float(first), float(last))

    def fit(self, pixels: np.ndarray) -> Percentile:
        """Return self where the range is given, else the percentiles of the pixels."""
        if self.low is not None and self.high is not None:
            return self
        low, high = [], []
        for k, band in enumerate(_bands(pixels)):
            robust_maximum(band)  # refuses what is not finite
            ends = np.percentile(band, self.percentiles).tolist()
            if not ends[1] > ends[0]:
                raise DataError(f"the pixel values of band {k} are constant: there is nothing to stretch")
            low.append(ends[0])
            high.append(ends[1])
        return Percentile(low, high, self.percentiles)

    def __call__(self, pixels: Array) -> Array:
        """Map pixel values to the network's range."""
        low, high = self._columns(pixels, self.low, self.high)
        return (pixels - low) * (2 / (high - low)) - 1

    def inverse(self, x: Array) -> Array:
        """Map back to pixel values."""
        low, high = self._columns(x, self.low, self.high)
        return (x + 1) * ((high - low) / 2) + low

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return {"kind": self.kind, "low": self.low, "high": self.high, "percentiles": list(self.percentiles)}

r"""Cropping and resizing that keep centers, scales and surface brightness.

A cutout is the central square of an image, of any side in pixels, whole or not, resampled to another number of pixels
by a matrix along each axis, :math:`Y = A X B^T`. The rows of A are a raised cosine of full width two output pixels (two
input pixels when the image grows), integrated over the part of every input pixel that is inside the square and folded
back at its edges: nonnegative, so that nothing rings around stars. Raised cosines a half width apart add to one, so the
rows of A sum to one and its columns to the covered share of a pixel over the scale; a growing image, whose cosines lie
closer, is balanced to that by Sinkhorn's iteration. A constant stays constant, and the mean surface brightness of the
square is preserved to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from galdiff.data.tables import find_column
from galdiff.errors import DataError

__all__ = ["CONSERVE", "Crop", "RadiusCrop", "around_center", "center_crop", "central_side", "resize", "resize_matrix"]

CONSERVE = ("surface_brightness", "flux")
"""What resizing may preserve: the mean of the pixel values, or their sum."""
_BALANCE = 5000
_BLOCK = 8


@dataclass(frozen=True)
class RadiusCrop:
    """A crop whose side follows the size of the galaxy: ``2 x times x radius``.

    Parameters
    ----------
    radius : str
        The table's column of radii, such as ``petroR90_r``.
    times : float
        Half of the side in radii.
    pixel_scale : float
        Size of a pixel in the unit of the radius [arcsec/pixel]; 1 for radii in pixels.
    """

    radius: str
    times: float = 3.0
    pixel_scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.times > 0 and self.pixel_scale > 0):
            raise DataError(f"a crop of {self.times:g} radii at {self.pixel_scale:g} a pixel is none")

    def sides(self, table: pd.DataFrame) -> np.ndarray:
        """Return the side of every row's crop, float64 ``(n,)`` [pixel]; NaN where the radius is no positive number.

        Raises
        ------
        DataError
            Where the table has no such column, or it does not hold numbers.
        """
        radii = table[find_column(table, self.radius, "crop")]
        if not pd.api.types.is_numeric_dtype(radii):
            raise DataError(f"column '{self.radius}' does not hold numbers", where="crop")
        sides = 2 * self.times / self.pixel_scale * radii.to_numpy(np.float64, na_value=np.nan)
        return np.where(np.isfinite(sides) & (sides > 0), sides, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description: the arguments."""
        return asdict(self)


Crop = float | RadiusCrop | Mapping[str, Any]
"""Share of the shorter side to keep, or a `RadiusCrop` or its arguments."""


def central_side(image: np.ndarray, fraction: float) -> int:
    """Return the whole side of the central square that holds a share of the shorter side.

    Parameters
    ----------
    image : numpy.ndarray
        ``(band, y, x)``.
    fraction : float
        Share to keep, in (0, 1]. The parity follows the shorter side's, so that the center stays where it is: half of
        423 pixels is 211, half of 424 is 212.

    Raises
    ------
    DataError
        For a share outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise DataError(f"crop {fraction:g} is not in (0, 1]")
    side = min(image.shape[-2:])
    kept = round(side * fraction)
    if (side - kept) % 2:
        # The nearer neighbor of the same parity; below, at a tie.
        kept += 1 if side * fraction > kept else -1
    return min(max(kept, 2 - side % 2), side)


def around_center(image: np.ndarray, side: float) -> np.ndarray:
    """Return the smallest view with the same center that holds the central square of a side.

    Parameters
    ----------
    image : numpy.ndarray
        ``(band, y, x)``.
    side : float
        Side of the square [pixel].

    Raises
    ------
    DataError
        Where the image is smaller than the square. There is no padding: a made-up sky without noise, which a network
        would learn, is worse than a row less.
    """
    short = min(image.shape[-2:])
    if not 1 <= side <= short:
        raise DataError(
            f"a crop of {side:.1f} pixels does not fit the image of {image.shape[-1]} x {image.shape[-2]} pixels"
        )
    slices = []
    for length in image.shape[-2:]:
        kept = int(np.ceil(side))
        kept += (length - kept) % 2
        start = (length - kept) // 2
        slices.append(slice(start, start + kept))
    return image[..., slices[0], slices[1]]


def center_crop(image: np.ndarray, fraction: float) -> np.ndarray:
    """Keep the central square of an image, as a view.

    Parameters
    ----------
    image : numpy.ndarray
        ``(band, y, x)``, square or not.
    fraction : float
        Share of the shorter side (`central_side`).

    Raises
    ------
    DataError
        Where one side is odd and the other even: the square's center would lie half a pixel off. `resize` can do it.
    """
    square = around_center(image, central_side(image, fraction))
    if square.shape[-1] != square.shape[-2]:
        raise DataError(
            f"the image of {image.shape[-1]} x {image.shape[-2]} pixels has no central square of whole pixels",
            remedy="Set size: resizing goes by parts of pixels",
        )
    return square


@lru_cache
def resize_matrix(before: int, after: int, side: float | None = None) -> np.ndarray:
    """Return the balanced matrix that resamples the central part of one axis.

    Parameters
    ----------
    before, after : int
        Numbers of pixels.
    side : float, optional
        Length of the central part [pixel]; the whole by default.

    Returns
    -------
    numpy.ndarray
        float32 ``(after, before)``.
    """
    side = before if side is None else side
    if before == after == side:
        return np.eye(before, dtype=np.float32)
    scale = side / after
    low, high = (before - side) / 2, (before + side) / 2
    edges = np.clip(np.arange(before + 1), low, high)
    centers = low + (np.arange(after) + 0.5) * scale
    # The kernel's integral over every pixel; what it holds beyond an edge is folded back by mirror images of centers.
    folded = np.stack([centers, 2 * low - centers, 2 * high - centers])
    a = np.diff(_kernel_integral((edges - folded[..., None]) / max(scale, 1.0)), axis=-1).sum(axis=0)
    covered = np.diff(edges)
    # Sinkhorn's balancing: columns for the mean, rows last, whose sums a constant image sees.
    for _ in range(_BALANCE):
        columns = a.sum(axis=0) * scale
        if np.abs(columns - covered).max() < 1e-8:
            break
        a *= np.divide(covered, columns, out=np.zeros(before), where=columns > 0)
        a /= a.sum(axis=1, keepdims=True)
    return a.astype(np.float32)


def _kernel_integral(u: np.ndarray) -> np.ndarray:
    """Integrate ``cos(pi u / 2) ** 2`` of half width one from 0 to u."""
    u = np.clip(u, -1, 1)
    return (u + np.sin(np.pi * u) / np.pi) / 2


def resize(
    image: np.ndarray, size: int, *, side: float | None = None, conserve: str = "surface_brightness"
) -> np.ndarray:
    """Resample the central square of an image with anti-aliasing.

    Parameters
    ----------
    image : numpy.ndarray
        ``(band, y, x)``, of any type of number.
    size : int
        New number of pixels a side.
    side : float, optional
        Side of the square [pixel], of whole pixels or not; by default all of a square image.
    conserve : {"surface_brightness", "flux"}
        Whether the mean of the pixel values stays, or their sum, which takes them times ``(side / size) ** 2``.

    Returns
    -------
    numpy.ndarray
        float32 ``(band, size, size)``.

    Raises
    ------
    DataError
        Where no side is given and the image is not square, or the side does not fit.
    """
    height, width = image.shape[-2:]
    if side is None:
        if width != height:
            raise DataError(f"the image is {width} x {height} pixels, not square", remedy="Give the side to keep")
        side = width
    image = around_center(image, side)
    if image.shape[-2:] == (size, size) and side == size:
        return np.array(image, dtype=np.float32, order="C")
    bands, height, width = image.shape
    # Bands last, as image files have them: rows are then resampled without moving anything.
    rows = _resample(image.transpose(1, 2, 0).reshape(height, -1), size, side)
    columns = rows.reshape(size, width, bands).transpose(1, 2, 0).reshape(width, -1)
    out = _resample(columns, size, side).reshape(size, bands, size).transpose(1, 2, 0)
    return np.multiply(out, (side / size) ** 2 if conserve == "flux" else 1, dtype=np.float32, order="C")


def _resample(x: np.ndarray, size: int, side: float) -> np.ndarray:
    """Multiply ``(before, m)`` of any type by the matrix, float32 ``(size, m)``."""
    out = np.empty((size, x.shape[1]), np.float32)
    for to, source, part in _blocks(len(x), size, side):
        np.matmul(part, x[source].astype(np.float32, copy=False), out=out[to])
    return out


@lru_cache
def _blocks(before: int, after: int, side: float) -> list[tuple[slice, slice, np.ndarray]]:
    """Cut the matrix into blocks of rows and leave out the columns that are zero: most of them are."""
    matrix = resize_matrix(before, after, side)
    blocks = []
    for start in range(0, after, _BLOCK):
        to = slice(start, min(start + _BLOCK, after))
        used = np.flatnonzero(matrix[to].any(axis=0))
        source = slice(used[0], used[-1] + 1)
        blocks.append((to, source, np.ascontiguousarray(matrix[to, source])))
    return blocks

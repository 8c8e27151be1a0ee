r"""Cropping and resizing that keep centers and surface brightness.

Resizing is a matrix along each axis, :math:`Y = A X A^T`. The rows of A are a raised cosine of full width two output
pixels (two input pixels when the image grows), integrated over the input pixels: nonnegative, so that nothing rings
around stars. A is balanced so that its rows sum to one and its columns to the ratio of the sizes: a constant stays
constant, and the mean surface brightness of every image is preserved.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from galdiff.errors import DataError

__all__ = ["center_crop", "resize", "resize_matrix"]

_SUPPORT = 1.0  # half width of the kernel in output pixels
_BALANCE = 5000


def center_crop(image: np.ndarray, fraction: float) -> np.ndarray:
    """Keep the central part of an image.

    Parameters
    ----------
    image : numpy.ndarray
        ``(band, y, x)``.
    fraction : float
        Share of each side to keep, in (0, 1]. The side's parity follows the image's, so that the center stays where it
        is: half of 423 pixels is 211, half of 424 is 212.

    Returns
    -------
    numpy.ndarray
        A view.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"crop {fraction:g} is not in (0, 1]")
    slices = []
    for side in image.shape[-2:]:
        kept = round(side * fraction)
        if (side - kept) % 2:
            # The nearer neighbor of the same parity; below, at a tie.
            kept += 1 if side * fraction > kept else -1
        kept = min(max(kept, 2 - side % 2), side)
        start = (side - kept) // 2
        slices.append(slice(start, start + kept))
    return image[..., slices[0], slices[1]]


@lru_cache
def resize_matrix(before: int, after: int) -> np.ndarray:
    """Return the balanced matrix that resizes one axis, float32 ``(after, before)``."""
    if before == after:
        return np.eye(before, dtype=np.float32)
    scale = before / after
    width = max(scale, 1.0) * _SUPPORT
    fine = 16  # points an input pixel, for the integral of the kernel
    x = (np.arange(before * fine) + 0.5) / fine
    center = (np.arange(after) + 0.5) * scale
    u = (x[None] - center[:, None]) / width
    kernel = np.where(np.abs(u) < 1, np.cos(np.pi * u / 2) ** 2, 0.0)
    a = kernel.reshape(after, before, fine).mean(axis=2)
    # Sinkhorn's balancing: columns for the mean, rows last, whose sums a constant image sees.
    for _ in range(_BALANCE):
        columns = a.sum(axis=0, keepdims=True)
        a = a / np.maximum(columns * scale, 1e-12)
        a /= a.sum(axis=1, keepdims=True)
        if np.abs(columns * scale - 1).max() < 1e-8:
            break
    return a.astype(np.float32)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize with anti-aliasing; mean surface brightness is preserved.

    Parameters
    ----------
    image : numpy.ndarray
        float32 ``(band, y, x)``.
    size : int
        New side; the image is square.

    Returns
    -------
    numpy.ndarray
        float32 ``(band, size, size)``.

    Raises
    ------
    DataError
        Where the image is not square.
    """
    if image.shape[-1] != image.shape[-2]:
        raise DataError(f"the image is {image.shape[-1]} x {image.shape[-2]} pixels, not square")
    if image.shape[-1] == size:
        return np.ascontiguousarray(image, dtype=np.float32)
    a = resize_matrix(image.shape[-1], size)
    return np.matmul(np.matmul(a, image.astype(np.float32, copy=False)), a.T)

r"""Where an object lies on its stamp: its flux centroid, and the circles or ellipses around it.

The centroid is that of the light in a window that follows it,

.. math:: c = \frac{\sum_i W(|x_i - c|)\, (I_i - s)_+ x_i}{\sum_i W(|x_i - c|)\, (I_i - s)_+}

iterated from the stamp's center, with W a circle of a radius of a quarter of the stamp's side and s the sky, the median
of the stamp's corners, plus three times its noise: neighbors and noise further out have no say.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_numbers, as_square_images, as_valid, per_image

__all__ = ["Isophotes", "centers_of", "flux_centroid"]

WINDOW = 0.25
"""Radius of the window in sides of the stamp."""
_BATCH = 32
_ITERATIONS = 5


def flux_centroid(images: Any, *, mask: Any = None, window: float = WINDOW) -> np.ndarray:
    """Return every image's centroid, of the mean of its bands.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square.
    mask : array_like of bool, optional
        True where a pixel is valid, of a shape that broadcasts to the images'.
    window : float
        Radius of the window in sides of the stamp; rings want the whole stamp, 1.

    Returns
    -------
    numpy.ndarray
        Row and column [pixel], 0 the middle of the first pixel, float64 ``(sample, 2)``; the stamp's center where
        nothing stands above the sky.
    """
    valid = as_valid(mask)
    return _centroids(as_square_images(images, valid=valid), valid, window).cpu().numpy()


class Isophotes(NamedTuple):
    """Center (row, column), axis ratio and angle of every image, float64; None what is the stamp's and a circle's."""

    center: Tensor | None
    axis_ratio: Tensor | None
    angle: Tensor | None

    @classmethod
    def of(cls, x: Tensor, center: Any, axis_ratio: Any, angle: Any, valid: Tensor | None) -> Isophotes:
        """Read what users may give, with an error for what does not fit the images."""
        ratio = per_image(axis_ratio, x, "axis ratio")
        if ratio is None:
            return cls(centers_of(x, center, valid), None, None)
        if (ratio > 1).any():
            raise DataError("an axis ratio is above 1", remedy="Give minor over major axis")
        turn = as_numbers(angle, x.device)
        if turn.shape not in ((), (len(x),)) or not torch.isfinite(turn).all():
            raise DataError(
                f"angles of shape {tuple(turn.shape)} are not one finite number for each of {len(x)} images"
            )
        return cls(centers_of(x, center, valid), ratio, turn.expand(len(x)))

    def part(self, part: slice) -> Isophotes:
        """Return those of some images."""
        return Isophotes(*(None if value is None else value[part] for value in self))


def centers_of(x: Tensor, center: Any, valid: Tensor | None = None, *, window: float = WINDOW) -> Tensor | None:
    """Read what users may give as centers: rows and columns, float64 ``(sample, 2)``; None are the stamps' own."""
    if isinstance(center, str):
        if center not in ("stamp", "centroid"):
            raise DataError(f"unknown center '{center}'", remedy="Known: stamp, centroid, positions (sample, 2)")
        return None if center == "stamp" else _centroids(x, valid, window)
    at = as_numbers(center, x.device)
    if at.shape != (len(x), 2) or not torch.isfinite(at).all():
        raise DataError(f"centers of shape {tuple(at.shape)} for {len(x)} images are not finite rows and columns")
    return at


def _centroids(x: Tensor, valid: Tensor | None, window: float) -> Tensor:
    use = torch.ones(1, 1, 1, 1, dtype=torch.bool) if valid is None else valid
    masks = use.to(x.device).expand_as(x).split(_BATCH)
    return torch.cat([_centroid(part, mask, window) for part, mask in zip(x.split(_BATCH), masks, strict=True)])


def _centroid(x: Tensor, valid: Tensor, window: float) -> Tensor:
    size = x.shape[-1]
    gray, use = x.double().mean(dim=1), valid.all(dim=1)
    grid = torch.arange(size, dtype=torch.float64, device=x.device)
    corner = torch.hypot(grid[:, None] - (size - 1) / 2, grid - (size - 1) / 2) > size / 2
    sky = torch.where(use, gray, torch.nan)[:, corner]
    if sky.shape[1]:
        level = sky.nanmedian(dim=1, keepdim=True).values
        noise = 1.4826 * (sky - level).abs().nanmedian(dim=1, keepdim=True).values
        gray = gray - (level + 3 * noise).nan_to_num(0.0)[..., None]
    light = gray.clamp_min(0) * use
    center = torch.full((len(x), 2), (size - 1) / 2, dtype=torch.float64, device=x.device)
    for _ in range(_ITERATIONS):
        y, x_ = grid - center[:, :1], grid - center[:, 1:]
        inside = light * (y[:, :, None] ** 2 + x_[:, None] ** 2 <= (window * size) ** 2)
        total = inside.sum(dim=(1, 2))
        step = torch.stack([(inside.sum(2) * y).sum(1), (inside.sum(1) * x_).sum(1)], dim=1)
        center = center + torch.where(total > 0, 1.0, 0.0)[:, None] * step / total.clamp_min(1e-300)[:, None]
    return center

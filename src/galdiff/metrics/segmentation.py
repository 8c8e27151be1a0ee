r"""Which pixels of a cutout are the object, which are other sources, which are sky.

The sky is measured in the corners of the stamp, outside the largest ellipse that fits: its level by the median, its
noise by the median absolute deviation (times 1.4826). A pixel is bright where the mean of its 3 x 3 neighborhood
stands above the sky by three times the noise of such means, which holds for correlated noise as well, and by 0.002 of
the peak, so that a sky clipped at black is no light. The object (label 1) is what is bright and connected to the
middle of the stamp, eight neighbors at a time; other sources (label 2) are the further bright regions that somewhere
stand twice as high. A lens ring, with nothing at its center, has no object.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from galdiff.metrics.arrays import as_stamps

__all__ = ["MINIMUM_AREA", "corners", "grow", "segment", "sky", "sky_level"]

MINIMUM_AREA = 5
"""Pixels below which a bright region is no object."""
_THRESHOLD, _OTHERS, _FLOOR = 3.0, 6.0, 0.002


def segment(images: Any) -> Tensor:
    """Label every pixel as sky 0, object 1 or other sources 2.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``; the mean of the bands is segmented. Pixels that are not finite belong to other
        sources.

    Returns
    -------
    torch.Tensor
        int64 ``(sample, y, x)`` on the images' device; all 0 or 2 where there is no object.

    Raises
    ------
    DataError
        For another rank, no image, or fewer than four pixels a side.
    """
    gray = as_stamps(images).mean(dim=1)
    finite = torch.isfinite(gray)
    level = sky_level(gray)
    light = torch.where(finite, gray - level[:, None, None], 0.0)
    local = _mean_of_nine(light)
    _, noise = sky(local, ~finite)
    floor = _FLOOR * light.abs().amax(dim=(1, 2))
    bright = (local > torch.maximum(_THRESHOLD * noise, floor)[:, None, None]) & finite
    height, width = gray.shape[1:]
    y, x = _centered(height, gray.device), _centered(width, gray.device)
    core = torch.hypot(y[:, None], x) <= max(2.0, min(height, width) / 16)
    found = grow(bright, core)
    found &= (found.sum(dim=(1, 2)) >= MINIMUM_AREA)[:, None, None]
    others = grow(bright & ~found, local > torch.maximum(_OTHERS * noise, 2 * floor)[:, None, None])
    return found.long() + 2 * (others | ~finite)


def _mean_of_nine(light: Tensor) -> Tensor:
    """Return every pixel's mean with its neighbors, of which the border has fewer."""

    def total(values: Tensor) -> Tensor:
        wide = functional.pad(values, (1, 1, 1, 1))
        wide = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
        return wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]

    return total(light) / total(torch.ones_like(light[:1]))


def sky(gray: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return level and noise of the sky in the corners, ``(sample,)`` each; NaN without a pixel to measure them in.

    Parameters
    ----------
    gray : Tensor
        ``(sample, y, x)``.
    masked : Tensor, optional
        Pixels to leave out, as those that are not finite are.
    """
    corner = _in_corners(gray, masked)
    level = corner.nanmedian(dim=1).values
    return level, 1.4826 * (corner - level[:, None]).abs().nanmedian(dim=1).values


def sky_level(gray: Tensor, masked: Tensor | None = None) -> Tensor:
    """Return the level alone, as `sky` does."""
    return _in_corners(gray, masked).nanmedian(dim=1).values


def _in_corners(gray: Tensor, masked: Tensor | None) -> Tensor:
    """Return the pixels of the corners, NaN where they are masked or not finite, ``(sample, pixel)``."""
    index = _corner_index(gray.shape[1], gray.shape[2], gray.device)
    corner = gray.flatten(1).index_select(1, index)
    if masked is not None:
        corner = corner.masked_fill(masked.flatten(1).index_select(1, index), torch.nan)
    return corner.masked_fill(~torch.isfinite(corner), torch.nan)


@lru_cache
def _corner_index(height: int, width: int, device: torch.device) -> Tensor:
    return torch.nonzero(corners(height, width, device).flatten())[:, 0]


def corners(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return where a stamp is outside the largest ellipse that fits it, bool ``(y, x)``."""
    y, x = _centered(height, device) / (height / 2), _centered(width, device) / (width / 2)
    return y.square()[:, None] + x.square() > 1


def grow(mask: Tensor, seeds: Tensor, *, limit: int | None = None) -> Tensor:
    """Return what of a mask is connected to seeds in it, eight neighbors at a time, bool ``(sample, y, x)``.

    Parameters
    ----------
    mask, seeds : Tensor
        bool, broadcast together.
    limit : int, optional
        Steps of a pixel after which growing ends; by default it ends when nothing is added.
    """
    mask, seeds = torch.broadcast_tensors(mask, seeds)
    n, height, width = mask.shape
    stride, steps = width + 1, 0
    mask, region = (_packed(part) for part in (mask, mask & seeds))
    while limit is None or steps < limit:
        # Whether anything was added is asked every few steps: the answer has to come back from the device.
        before = region
        for _ in range(4 if limit is None else min(4, limit - steps)):
            for away in (1, stride):
                wide = region.clone()
                # In place by name: `|=` on a slice copies it onto itself once more.
                wide[away:].bitwise_or_(region[:-away])
                wide[:-away].bitwise_or_(region[away:])
                region = wide
            region &= mask
            steps += 1
        if torch.equal(region, before):
            break
    images = torch.cat([(region >> k & 1).view(-1, height + 1, stride) for k in range(8)])
    return images[:n, :-1, :-1].bool()


def _packed(mask: Tensor) -> Tensor:
    """Return masks flat, eight images the bits of one: all eight grow by the same instructions."""
    # A dark column and row end every image: neighbors are then at fixed distances in one flat array.
    parts = functional.pad(mask.to(torch.uint8), (0, 1, 0, 1, 0, -len(mask) % 8)).chunk(8)
    bits = parts[0].clone()
    for k, part in enumerate(parts[1:], 1):
        bits |= part << k
    return bits.flatten()


def _centered(n: int, device: torch.device | None) -> Tensor:
    return torch.arange(n, device=device, dtype=torch.float64) - (n - 1) / 2

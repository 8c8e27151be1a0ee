"""What morphology is measured on: the light of one object a cutout, with its sky taken off and all else masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_stamps
from galdiff.metrics.segmentation import corners, segment, sky_level

__all__ = ["Sources", "as_labels"]


def as_labels(segmentation: Any, images: Tensor) -> Tensor:
    """Return a segmentation of images as a tensor on their device.

    Raises
    ------
    DataError
        Where its shape is not the images' ``(sample, y, x)``.
    """
    labels = torch.as_tensor(segmentation if isinstance(segmentation, Tensor) else np.asarray(segmentation))
    if labels.shape != (len(images), *images.shape[2:]):
        raise DataError(f"the segmentation has shape {tuple(labels.shape)}, not {(len(images), *images.shape[2:])}")
    return labels.to(images.device)


@dataclass(frozen=True)
class Sources:
    """Objects in cutouts.

    Attributes
    ----------
    bands : Tensor
        Light above the sky, of the images' precision ``(sample, band, y, x)``, 0 where masked.
    light : Tensor
        Its mean over bands, float64 ``(sample, y, x)``.
    object : Tensor
        The object's own pixels, bool ``(sample, y, x)``.
    masked : Tensor
        Pixels of other sources and such as are not finite, bool ``(sample, y, x)``.
    background : Tensor
        Pixels of the corners that are neither, bool ``(sample, y, x)``.
    noise : Tensor
        Standard deviation of the background, ``(sample,)``; 0 where there is none.
    """

    bands: Tensor
    light: Tensor
    object: Tensor
    masked: Tensor
    background: Tensor
    noise: Tensor

    @classmethod
    def find(cls, images: Any, *, segmentation: Any = None, subtract_sky: bool = True) -> Sources:
        """Take images apart.

        Parameters
        ----------
        images : array_like
            ``(sample, band, y, x)``.
        segmentation : array_like, optional
            ``(sample, y, x)``: 0 sky, 1 the object, anything else other sources; by default `segment`'s.
        subtract_sky : bool
            Whether to take the median of the corners off every band.

        Raises
        ------
        DataError
            For another rank, no image, fewer than four pixels a side, or a segmentation of another shape.
        """
        x = as_stamps(images)
        labels = segment(x) if segmentation is None else as_labels(segmentation, x)
        masked = (labels != 0) & (labels != 1) | ~torch.isfinite(x.abs().amax(dim=1))
        found = (labels == 1) & ~masked
        background = corners(x.shape[2], x.shape[3], x.device) & (labels == 0) & ~masked
        if subtract_sky:
            sky = ~background[:, None].expand_as(x)
            level = sky_level(x.flatten(0, 1), sky.flatten(0, 1)).view(x.shape[:2])
            x = x - level.nan_to_num()[..., None, None]
        bands = torch.where(masked[:, None], 0.0, x)
        light = bands.mean(dim=1, dtype=torch.float64)
        count = background.sum(dim=(1, 2)).clamp_min(1)
        mean = torch.where(background, light, 0.0).sum(dim=(1, 2)) / count
        deviation = torch.where(background, light - mean[:, None, None], 0.0)
        noise = (deviation.square().sum(dim=(1, 2)) / count).sqrt()
        return cls(bands, light, found, masked, background, noise)

    def __len__(self) -> int:
        return len(self.light)

    def __getitem__(self, rows: Any) -> Sources:
        return Sources(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

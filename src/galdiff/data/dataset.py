"""The contract of every loader: pixel values, conditions and ids, row by row."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from galdiff.atomic import sha256_file
from galdiff.data.geometry import CONSERVE, Crop, RadiusCrop, around_center, center_crop, central_side, resize
from galdiff.data.stretch import Linear, Sqrt, Stretch
from galdiff.errors import DataError
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["CutoutDataset", "file_sizes"]


class CutoutDataset(Dataset[dict[str, Any]], ABC):
    """Cutouts with what a catalog knows of them; an ordinary `torch.utils.data.Dataset`.

    Subclasses call the initializer and define `load`.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an object, in order.
    ids : numpy.ndarray
        int64 or str, one an object; never float.
    schema : ConditionSchema
        The condition fields.
    conditions : Conditions
        Their values for all rows.
    bands : tuple of str
        Names of the bands.
    unit : str
        "display" for 8-bit images as value / 255, else the unit of the pixel values.
    size : int, optional
        Side of the cutouts after resizing; None keeps the files' own.
    crop : float, RadiusCrop or mapping
        What to keep of the image, before resizing: the central square of a share of the shorter side, or of a side that
        follows a radius in the table (`RadiusCrop` or its arguments).
    conserve : {"surface_brightness", "flux"}
        What resizing preserves. Display units have no flux: their values are no sums of light.
    stretch : str or Stretch
        "linear", "sqrt", "asinh", or a stretch; fitted stretches are used as they are.

    Attributes
    ----------
    table, ids, schema, conditions, bands, unit, size, stretch
        As given.
    skipped : list of (str, str)
        Rows that were left out, with the reason.
    storage_dtype : str
        Type in which a cache may keep the pixel values without loss that matters.
    zero_point, psf_fwhm : tuple of float, optional
        Magnitude of a pixel value of 1 and width of the point-spread function [arcsec], band by band, where known.
    pixel_scale : float, optional
        Side of a pixel as `read` returns it [arcsec], where known.
    masked : bool
        Whether some pixels may be invalid: `read_masked` then says which.
    """

    zero_point: tuple[float, ...] | None = None
    psf_fwhm: tuple[float, ...] | None = None
    pixel_scale: float | None = None
    masked: bool = False

    def __init__(
        self,
        *,
        table: pd.DataFrame,
        ids: np.ndarray,
        schema: ConditionSchema,
        conditions: Conditions,
        bands: tuple[str, ...],
        unit: str,
        size: int | None,
        crop: Crop,
        stretch: str | Stretch,
        conserve: str = "surface_brightness",
    ) -> None:
        if not len(ids):
            raise DataError("not one object is left", remedy="Look at the table, the images folder and 'where'")
        self.table, self.ids, self.schema, self.conditions = table, ids, schema, conditions
        self.bands, self.unit = bands, unit
        self.crop = RadiusCrop(**crop) if isinstance(crop, Mapping) else crop
        if isinstance(self.crop, RadiusCrop):
            if size is None:
                raise DataError("a crop by radius gives cutouts of many sizes", where="crop", remedy="Set size")
            self._sides = self.crop.sides(table)
        self.conserve = _conserve(conserve, unit)
        self.skipped: list[tuple[str, str]] = []
        self.storage_dtype = "float16" if unit == "display" else "float32"
        self.stretch = self._stretch(stretch)
        self._size = size

    def _stretch(self, stretch: str | Stretch) -> Stretch:
        if isinstance(stretch, Stretch):
            return stretch
        if self.unit == "display" and stretch in ("linear", "sqrt"):
            # The range of 8-bit images is known; nothing is to be fitted.
            return Linear(0.0, 1.0) if stretch == "linear" else Sqrt(1.0)
        return Stretch.from_dict({"kind": stretch})

    @property
    def size(self) -> int:
        """Side of the cutouts in pixels."""
        if self._size is None:
            self._size = self.read(0).shape[-1]
        return self._size

    @abstractmethod
    def load(self, i: int) -> np.ndarray:
        """Read a file's own pixel values, float32 ``(band, y, x)``.

        8-bit images may be given as uint8, which stands for display units of value / 255: `read` has less to convert
        once they are resized.

        Raises
        ------
        DataError
            Where the file is missing, damaged or not what the others are.
        """

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return the JSON of everything that determines pixel values and conditions, independent of where files lie."""

    def read(self, i: int) -> np.ndarray:
        """Read pixel values after cropping and resizing, float32 ``(band, y, x)``.

        Raises
        ------
        DataError
            As `load`, and where values are not finite.
        """
        image, side = self._crop(self.load(i), i)
        pixels = self._resize(image, side)
        # A value that is not finite spoils what it is averaged into.
        if not np.isfinite(pixels).all():
            bad = int((~np.isfinite(image)).sum())
            raise DataError(f"{bad} pixel values are NaN or infinite", where=self.ids[i])
        return np.divide(pixels, 255, out=pixels) if image.dtype == np.uint8 else pixels

    def read_masked(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Read pixel values as `read` does, and where they are valid, bool of the same shape; None is everywhere."""
        return self.read(i), None

    def _crop(self, image: np.ndarray, i: int) -> tuple[np.ndarray, float]:
        """Return the part of a row's image that holds the square to keep, and the square's side."""
        crop = self.crop
        try:
            if isinstance(crop, RadiusCrop):
                side = float(self._sides[i])
                if np.isnan(side):
                    raise DataError(f"{crop.radius} is not a positive number")
            elif self._size is None:
                image = center_crop(image, crop)
                return image, image.shape[-1]
            else:
                side = central_side(image, crop)
            return around_center(image, side), side
        except DataError as error:
            raise DataError(error.message, where=self.ids[i], remedy=error.remedy) from error

    def _resize(self, image: np.ndarray, side: float) -> np.ndarray:
        """Resample the square of a side; without a size, copy it."""
        if self._size is None:
            return np.array(image, dtype=np.float32, order="C")
        return resize(image, self._size, side=side, conserve=self.conserve)

    def source(self, i: int) -> Path | None:
        """Return the file that holds this row and no other, or None where many share one."""
        return None

    def content_hash(self, i: int) -> str:
        """Return the SHA-256 of what a row was made from: its own file's bytes, else its pixel values as loaded."""
        path = self.source(i)
        if path is not None:
            return sha256_file(path)
        image = self.load(i)
        return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return ``image`` (stretched float32 tensor), ``id``, and every condition field with its ``<name>_mask``."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self._item(i, self.read(i))

    def _item(self, i: int, pixels: np.ndarray) -> dict[str, Any]:
        row = self.conditions[i]
        fields = {**row.values, **{f"{name}_mask": mask for name, mask in row.masks.items()}}
        return {"image": self.stretch(torch.from_numpy(pixels)), "id": self.ids[i].item(), **fields}

    def check(self) -> list[str]:
        """Return problems that can be found without decoding every image: the first image, and what was left out."""
        problems = [f"{name}: {why}" for name, why in self.skipped[:10]]
        if isinstance(self.crop, RadiusCrop) and np.isnan(self._sides).any():
            lost = self.ids[np.isnan(self._sides)]
            problems.append(f"{len(lost)} rows have no {self.crop.radius} to crop by, the first is {lost[0]}")
        try:
            self.read(0)
        except DataError as error:
            problems.append(str(error))
        return problems

    def _geometry(self) -> dict[str, Any]:
        crop = self.crop.to_dict() if isinstance(self.crop, RadiusCrop) else self.crop
        return {"size": self._size, "crop": crop, "conserve": self.conserve, "stretch": self.stretch.to_dict()}


def _conserve(conserve: str, unit: str) -> str:
    if conserve not in CONSERVE:
        raise DataError(f"nothing conserves '{conserve}'", where="conserve", remedy=f"Known: {', '.join(CONSERVE)}")
    if conserve == "flux" and unit == "display":
        reason = "display units were stretched and clipped for the eye, so that their sum is no flux"
        raise DataError(reason, where="conserve", remedy="Use surface_brightness")
    return conserve


def file_sizes(paths: Iterable[Path | str]) -> list[tuple[str, int]]:
    """Names and sizes of files: enough to see that a data set changed, and quick for 300,000 of them."""
    try:
        return sorted((os.path.basename(p), os.stat(p).st_size) for p in paths)
    except FileNotFoundError as error:
        raise DataError("the image is missing", where=error.filename) from error

"""The contract of every loader: pixel values, conditions and ids, row by row."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
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

__all__ = ["CutoutDataset", "check_arguments", "file_sizes"]

_PROBES = 25  # images that say what the usual size is
_PARITY = 1  # pixels by which cutouts of one survey differ: 423 beside 424


class CutoutDataset(Dataset[dict[str, Any]], ABC):
    """Cutouts with what a catalog knows of them; an ordinary `torch.utils.data.Dataset`.

    Subclasses call the initializer and define `load`.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an object, in order.
    ids : numpy.ndarray
        int64, or text of any dtype, one an object; never float.
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
    one_size : bool
        Whether images of another size than most (by more than a pixel) are bad, as among a survey's cutouts. In any
        dataset those are that are not square, or have too few pixels for ``size``, where two thirds are not so.
    """

    zero_point: tuple[float, ...] | None = None
    psf_fwhm: tuple[float, ...] | None = None
    pixel_scale: float | None = None
    masked: bool = False
    one_size: bool = False

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
        self.table, self.schema, self.conditions = table, schema, conditions
        self.ids = ids.astype(str) if ids.dtype.kind == "O" else ids
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
            As `load`, where values are not finite, and where the image is not as large as others are (``one_size``).
        """
        image, side = self._crop(self._load_usual(i), i)
        pixels = self._resize(image, side)
        # A value that is not finite spoils what it is averaged into.
        if not np.isfinite(pixels).all():
            bad = int((~np.isfinite(image)).sum())
            raise DataError(f"{bad} pixel values are NaN or infinite", where=self.ids[i])
        return np.divide(pixels, 255, out=pixels) if image.dtype == np.uint8 else pixels

    def read_masked(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Read pixel values as `read` does, and where they are valid, bool of the same shape; None is everywhere."""
        return self.read(i), None

    def _load_usual(self, i: int) -> np.ndarray:
        """Load an image, and refuse sides that are not those of the others: resizing would hide them."""
        image = self.load(i)
        # A crop by radius knows every image's scale, and without a size nothing is resized.
        if self._size is None or isinstance(self.crop, RadiusCrop):
            return image
        sides, usual = image.shape[-2:], self._usual_sides
        what = f"the image is {sides[1]} x {sides[0]} pixels"
        remedy = "Bring all to one size and pixel scale, or leave it out"
        if usual is not None and not _alike(sides, usual):
            raise DataError(f"{what}, most are {usual[1]} x {usual[0]}", where=self.ids[i], remedy=remedy)
        rules = {f"not enough for {self._size}": self._grows, "not square": _is_oblong} if usual is None else {}
        for why, applies in rules.items():
            if applies(sides) and 3 * sum(map(applies, self._probes.elements())) < self._probes.total():
                raise DataError(f"{what}, {why} as most are", where=self.ids[i], remedy=remedy)
        return image

    @cached_property
    def _probes(self) -> Counter[tuple[int, ...]]:
        """Sides (y, x) of some images that lie evenly among all, counted."""
        found: Counter[tuple[int, ...]] = Counter()
        for i in np.unique(np.linspace(0, len(self) - 1, _PROBES).astype(int)).tolist():
            with suppress(DataError):  # which is raised where the image is read
                found[self._sides_of(i)] += 1
        return found

    @cached_property
    def _usual_sides(self) -> tuple[int, ...] | None:
        """Sides (y, x) of most images; None where sizes are mixed, or may be."""
        if not self.one_size:
            return None
        usual = max(self._probes, key=self._probes.__getitem__, default=(0, 0))
        alike = sum(n for sides, n in self._probes.items() if _alike(sides, usual))
        return usual if 2 * alike > self._probes.total() else None

    def _grows(self, sides: tuple[int, ...]) -> bool:
        """Whether resizing makes up more than a pixel."""
        return not isinstance(self.crop, RadiusCrop) and (min(sides) + _PARITY) * self.crop < (self._size or 0)

    def _sides_of(self, i: int) -> tuple[int, ...]:
        """Return the sides (y, x) of an image as `load` reads it."""
        return self.load(i).shape[-2:]

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


def _alike(sides: tuple[int, ...], usual: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= _PARITY for a, b in zip(sides, usual, strict=True))


def _is_oblong(sides: tuple[int, ...]) -> bool:
    return max(sides) - min(sides) > _PARITY


def check_arguments(on_bad: str, limit: int | None) -> None:
    """Refuse what `on_bad` and `limit` of a loader cannot be.

    Raises
    ------
    DataError
        For another way than "fail" and "skip", and a limit that is no positive whole number.
    """
    if on_bad not in ("fail", "skip"):
        raise DataError(f"on_bad is '{on_bad}'", remedy="Known: fail, skip")
    if limit is not None and (not isinstance(limit, int | np.integer) or limit < 1):
        raise DataError(f"limit is {limit!r}", remedy="Give a whole number above 0, or None for all")


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

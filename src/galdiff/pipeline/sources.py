"""Images from wherever they are: folders, files, Zarr groups, runs and arrays, this package's or anyone else's.

A source is opened before it is read: shape, bands, unit and number of its images are known at once, so that what does
not go together is refused before anything takes long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from galdiff.data import CutoutDataset, DeepLenseDataset, FITSDataset, ImageFolderDataset
from galdiff.data.fits_files import COMPRESSED, read_fits
from galdiff.data.fits_files import SUFFIXES as FITS_SUFFIXES
from galdiff.data.geometry import resize
from galdiff.data.images import SUFFIXES as IMAGE_SUFFIXES
from galdiff.data.npy import open_array, read_npy
from galdiff.errors import DataError, StoreError
from galdiff.latents import CutoutStore
from galdiff.latents.arrays import is_array, open_numbers
from galdiff.latents.cutouts import SKIPPED
from galdiff.latents.metadata import damage_errors, read_metadata
from galdiff.latents.place import Place, place_of
from galdiff.pipeline.samples import held_out_rows, read_samples
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["ImageSource", "open_images"]

_ARRAYS = (".npy", ".npz")
_MOST_BANDS = 32
_KNOWN = "a folder of images, .npy or FITS files, a file of an array, a Zarr group, a run folder, or an array"


@dataclass(frozen=True)
class ImageSource:
    """Images that are not read yet.

    Attributes
    ----------
    name : str
        Where they are.
    n : int
        How many.
    shape : tuple of int
        ``(band, y, x)`` of each.
    bands : tuple of str or None
        Names of the bands, where they are known.
    unit : str or None
        "display" (8 bits as value / 255), or that of the pixel values; None where nobody says.
    read : callable
        From row numbers to pixel values, float32 ``(n, band, y, x)``.
    sized : bool
        Whether they are cropped and resized as was asked for.
    schema : ConditionSchema or None
        What is known of the objects, or was asked for; None where the source does not say.
    conditions : Conditions or None
        The same, a row an image.
    """

    name: str
    n: int
    shape: tuple[int, ...]
    bands: tuple[str, ...] | None
    unit: str | None
    read: Callable[[np.ndarray], np.ndarray]
    sized: bool = False
    schema: ConditionSchema | None = None
    conditions: Conditions | None = None


def open_images(images: Any, *, generated: bool = False, size: int | None = None, crop: float = 1.0) -> ImageSource:
    """Open a source of images.

    Parameters
    ----------
    images : path, URL, array_like, Tensor, DataArray or CutoutDataset
        A folder of JPEG, PNG, TIFF or WebP images, of ``.npy`` files or of FITS stamps; one ``.npy``, ``.npz`` or FITS
        file of many images; a Zarr group with an array ``image``, or ``path.zarr:array``; a cutout store, whose splits
        are ``cutouts.zarr:test`` and ``:held-out``; samples of a run; a run folder. Arrays are
        ``(sample, band, y, x)``, ``(sample, y, x, band)`` or ``(sample, y, x)``; 8 bits are display units.
    generated : bool
        Of a run folder take its samples instead of its held-out images.
    size : int, optional
        Resize the central square of every image to so many pixels a side; by default they keep their own.
    crop : float
        Of which share of the shorter side the central square is, where images are resized.

    Raises
    ------
    DataError, StoreError
        Where there are no such images.
    """
    if not 0 < crop <= 1 or (crop != 1 and size is None):
        raise DataError(f"crop is {crop}", remedy="Give a share of at most 1, and a size")
    source = _open(images, generated, size, crop)
    # Folders were resized file by file, since theirs may be of any size.
    if size is None or (source.shape[1:] == (size, size) and (crop == 1 or source.sized)):
        return source
    bands, *sides = source.shape

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([resize(image, size, side=crop * min(sides)) for image in source.read(rows)])

    return replace(source, shape=(bands, size, size), read=read, sized=True)


def _open(images: Any, generated: bool, size: int | None, crop: float) -> ImageSource:
    if isinstance(images, CutoutDataset):
        return _dataset(images, type(images).__name__)
    if not isinstance(images, str | os.PathLike):
        return _array(images)
    text = os.fspath(images)
    if match := re.fullmatch(r"(.*\.zarr)/?(?::(.+))?", text):
        if "://" not in text and not Path(match[1]).expanduser().is_dir():
            raise DataError("there is no such folder", where=match[1])
        return _zarr(match[1], match[2])
    path = Path(text).expanduser()
    if (path / "stages").is_dir():
        return _samples(path) if generated else _zarr(f"{path / 'cutouts.zarr'}", "held-out")
    if path.suffix.lower() in _ARRAYS:
        return _stacked(open_array(path), text)
    if path.is_file() and path.suffix.lower() in FITS_SUFFIXES:
        return _stacked(read_fits(path).pixels, text)
    if path.is_dir():
        return _zarr(text, None) if _is_group(path) else _folder(path, size, crop)
    raise DataError("there are no images here", where=text, remedy=f"Give {_KNOWN}")


def _is_group(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _folder(path: Path, size: int | None, crop: float) -> ImageSource:
    found = {p.suffix.lower() for p in path.rglob("*") if not p.name.startswith(".") and p.is_file()}
    kinds = {
        "images": found & set(IMAGE_SUFFIXES),
        "arrays": found & {".npy"},
        "FITS files": found & {*FITS_SUFFIXES, *COMPRESSED},
    }
    there = [kind for kind, suffixes in kinds.items() if suffixes]
    if len(there) != 1:
        what = f"holds {' and '.join(there)}" if there else "holds no images"
        raise DataError(what, where=path, remedy=f"Give {_KNOWN}")
    if there == ["images"]:
        data: CutoutDataset = ImageFolderDataset(path, folders="ignore", size=size, crop=crop)
        return replace(_dataset(data, str(path)), sized=size is not None)
    if there == ["FITS files"]:
        catalog: dict[str, Any] = {"table": "catalog.fits", "images": "images"}
        own = catalog if (path / "catalog.fits").is_file() else {}
        data = FITSDataset(path, size=size, crop=crop, stretch="linear", **own)
        return replace(_dataset(data, str(path)), sized=size is not None)
    files = sorted(p for p in path.rglob("*.npy") if not p.name.startswith("."))
    if lenses := _lenses(path, len(files), size, crop):
        return lenses

    def read(rows: np.ndarray) -> np.ndarray:
        parts = [_one(files[i]) for i in rows]
        for i, part in zip(rows, parts, strict=True):
            if (part.shape, part.unit) != (first.shape, first.unit):
                message = f"has the shape {part.shape} and unit {part.unit}, others {first.shape} and {first.unit}"
                raise DataError(message, where=files[i])
        return np.concatenate([part.read(np.zeros(1, int)) for part in parts])

    first = _one(files[0])
    return replace(first, name=str(path), n=len(files), read=read)


def _lenses(path: Path, n: int, size: int | None, crop: float) -> ImageSource | None:
    """Open the files of DeepLense, if all say their substructure by folder or name."""
    try:
        data = DeepLenseDataset(path, allow_object_arrays=True, size=size, crop=crop, stretch="linear", on_bad="skip")
        source = replace(_dataset(data, str(path)), bands=None, unit=None, sized=size is not None)
    except DataError:
        return None
    return source if source.n == n else None


def _samples(run: Path) -> ImageSource:
    """Open the samples of a run with the conditions of the held-out objects that they were asked to be like."""
    path, store = run / "samples.zarr", CutoutStore.open(run / "cutouts.zarr")
    drawn = read_samples(path, "evaluation", "row")
    with damage_errors("'evaluation/row'", place_of(path)):
        conditions = store.conditions()[torch.from_numpy(drawn["row"].to_numpy())]
    return replace(_array(drawn["image"]), name=str(path), schema=store.schema, conditions=conditions)


def _one(path: Path) -> ImageSource:
    """Open a file of one image, which may be an object array of DeepLense."""
    image: np.ndarray | None
    try:
        image = open_array(path)
    except DataError:  # an object array, or one that the other reader refuses too
        image = None
    if image is None or image.dtype != np.uint8:
        image = read_npy(path, allow_object_arrays=True)[0]  # of finite numbers
    if image.ndim not in (2, 3):
        remedy = "Give a file of many images itself"
        raise DataError(f"has the shape {image.shape}, not that of one image", where=path, remedy=remedy)
    return _stacked(image[None], str(path))


def _dataset(data: CutoutDataset, name: str) -> ImageSource:
    first = data.read(0)

    def read(rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *first.shape), np.float32)
        for k, i in enumerate(rows):
            image = data.read(int(i))
            if image.shape != first.shape:
                where = data.source(int(i)) or data.ids[i]
                remedy = "Resize them all alike: --size"
                raise DataError(f"the image is {image.shape}, others are {first.shape}", where=where, remedy=remedy)
            out[k] = image
        return out

    known: dict[str, Any] = {"schema": data.schema, "conditions": data.conditions} if data.schema.fields else {}
    return ImageSource(name, len(data), first.shape, tuple(data.bands), data.unit, read, **known)


def _array(images: Any) -> ImageSource:
    if isinstance(images, xr.DataArray):
        bands = tuple(str(b) for b in images["band"].to_numpy()) if "band" in images.coords else None
        return _stacked(images.to_numpy(), "an array", bands=bands, unit=images.attrs.get("units"))
    array = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    if array.dtype.kind not in "iufb":
        raise DataError(f"the images are {array.dtype}, not numbers", remedy=f"Give {_KNOWN}")
    return _stacked(array, "an array")


def _stacked(array: Any, name: str, *, bands: tuple[str, ...] | None = None, unit: str | None = None) -> ImageSource:
    """Open an array in memory, mapped, or of Zarr's; nothing but the rows asked for is read."""
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(f"the images have the shape {array.shape}, not (sample, band, y, x)", where=name)
    bytes_ = array.dtype == np.uint8
    # One pixel of every axis but the bands says where the bands are.
    shape = _band_first(np.broadcast_to(np.float32(0), (1, *array.shape[1:])), name).shape[1:]

    def read(rows: np.ndarray) -> np.ndarray:
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        taken = array.oindex[ascending] if hasattr(array, "oindex") else array[ascending]
        values = np.empty((len(rows), *taken.shape[1:]), np.float32)
        values[order] = taken
        return _band_first(values / 255 if bytes_ else values, name)

    return ImageSource(name, int(array.shape[0]), shape, bands, "display" if bytes_ else unit, read)


def _band_first(images: np.ndarray, name: str) -> np.ndarray:
    """Bring ``(n, y, x)`` and ``(n, y, x, band)`` into the order ``(n, band, y, x)``."""
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1], images.shape[3]
    if first <= min(_MOST_BANDS, images.shape[2] - 1, last - 1) or images.shape[2] == last:
        return images
    if last <= min(_MOST_BANDS, first - 1) and first == images.shape[2]:
        return images.transpose(0, 3, 1, 2)
    raise DataError(f"which axis of {images.shape[1:]} is the band?", where=name, remedy="Use (sample, band, y, x)")


def _zarr(target: str, part: str | None) -> ImageSource:
    place = place_of(target)
    name = target if part is None else f"{target}:{part}"
    attributes: dict[str, Any] = {}
    if place.exists("zarr.json"):
        attributes = read_metadata(place).get("attributes", {})
    if attributes.get("kind") == CutoutStore.KIND:
        return _cutouts(CutoutStore.open(place), part, name)
    tried = [part, f"{part}/image"] if part else ["", "image", "evaluation/image"]
    for path in tried:
        if is_array(place, path):
            array = open_numbers(place, path)
            group = path.rpartition("/")[0]
            unit = array.attrs.get("units")
            unit = None if unit is None else str(unit)
            return _guarded(_stacked(array, name, bands=_bands(place, group), unit=unit), path or "array", place)
    remedy = "Name it: path.zarr:array"
    raise StoreError(f"there is no array '{part or 'image'}' here", where=target, remedy=remedy)


def _bands(place: Place, group: str) -> tuple[str, ...] | None:
    """Names of the bands, from the coordinate beside the images."""
    path = f"{group}/band" if group else "band"
    if not place.exists(f"{path}/zarr.json"):
        return None
    read_metadata(place, f"{path}/zarr.json")
    with damage_errors(f"group '{group}'", place):
        data = xr.open_zarr(place.store, group=group or None, consolidated=False)
        return tuple(str(b) for b in data["band"].to_numpy())


def _guarded(source: ImageSource, what: str, place: Place) -> ImageSource:
    """Name the array where its values cannot be decoded: what codecs raise can be anything."""

    def read(rows: np.ndarray) -> np.ndarray:
        with damage_errors(f"'{what}'", place):
            return source.read(rows)

    return replace(source, read=read)


def _cutouts(store: CutoutStore, split: str | None, name: str) -> ImageSource:
    splits = {*np.unique(store.split).tolist(), "held-out"}
    if split is not None and split not in splits:
        raise StoreError(f"there is no split '{split}'", where=name, remedy=f"There are {', '.join(sorted(splits))}")
    rows = np.flatnonzero(store.split != SKIPPED) if split is None else store.rows(split)
    if split == "held-out":
        rows = held_out_rows(store)
    if not len(rows):
        raise DataError("there are no images here", where=name)

    def read(wanted: np.ndarray) -> np.ndarray:
        return store.images(rows[wanted]).astype(np.float32)

    shape = tuple(int(side) for side in store.array("image").shape[1:])
    known: dict[str, Any] = {}
    if store.schema.fields:
        known = {"schema": store.schema, "conditions": store.conditions()[torch.from_numpy(rows)]}
    return ImageSource(name, len(rows), shape, tuple(store.attrs["bands"]), str(store.attrs["unit"]), read, **known)

"""Images in an HDF5 file, such as Galaxy10, with their labels and numbers beside them.

HDF5's own chunk cache is made as large as one row of chunks, so that reading image by image decodes every chunk once.
A process opens the file when it first reads: no handle is pickled, and none is used on the other side of a fork.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from galdiff.atomic import sha256_json
from galdiff.data.dataset import CutoutDataset, check_arguments
from galdiff.data.geometry import Crop
from galdiff.data.labels import class_column, join_columns, label_column, scalar_columns
from galdiff.data.stretch import Stretch
from galdiff.data.tables import find_table, id_column, select
from galdiff.errors import DataError, all_at_once

__all__ = ["GALAXY10_DECALS", "GALAXY10_SDSS", "HDF5Dataset"]

# Both lists: Leung and Bovy, astroNN's documentation of Galaxy10 SDSS and Galaxy10 DECaLS; labels of Galaxy Zoo.
GALAXY10_SDSS = {
    0: "Disk, Face-on, No Spiral",
    1: "Smooth, Completely round",
    2: "Smooth, in-between round",
    3: "Smooth, Cigar shaped",
    4: "Disk, Edge-on, Rounded Bulge",
    5: "Disk, Edge-on, Boxy Bulge",
    6: "Disk, Edge-on, No Bulge",
    7: "Disk, Face-on, Tight Spiral",
    8: "Disk, Face-on, Medium Spiral",
    9: "Disk, Face-on, Loose Spiral",
}
"""Classes of ``Galaxy10.h5``, by the values of ``ans``."""
GALAXY10_DECALS = {
    0: "Disturbed",
    1: "Merging",
    2: "Round Smooth",
    3: "In-between Round Smooth",
    4: "Cigar Shaped Smooth",
    5: "Barred Spiral",
    6: "Unbarred Tight Spiral",
    7: "Unbarred Loose Spiral",
    8: "Edge-on without Bulge",
    9: "Edge-on with Bulge",
}
"""Classes of ``Galaxy10_DECals.h5``, by the values of ``ans``."""
_NAMED = {"galaxy10_sdss": GALAXY10_SDSS, "galaxy10_decals": GALAXY10_DECALS}
_PATTERNS = ("*.h5", "*.hdf5", "*.hdf")
_MOST_CACHE = 1 << 29
_BANDS = {1: ("grey",), 3: ("r", "g", "b")}
_MOST_IMAGES, _MOST_PIXELS = 10**8, 64_000_000
_INSIDE = "Copy the values into one file"


class HDF5Dataset(CutoutDataset):
    """Images of an HDF5 file, by default in Galaxy10's layout.

    Parameters
    ----------
    root : path-like
        The folder of the file, or the file.
    file : str, optional
        Name of the file; by default the only ``.h5`` or ``.hdf5``.
    images : str
        Dataset of the images: ``(n, y, x)``, ``(n, y, x, band)`` or ``(n, band, y, x)``.
    label : str, optional
        Dataset of the labels ``(n,)``, the condition ``name``; None is unconditional.
    scalars : sequence of str or mapping of str to str
        Numeric datasets ``(n,)`` that are each a scalar condition, or from such datasets to their units.
    id : str, optional
        Dataset of the ids, int64 or text; by default the row numbers.
    classes : mapping, "galaxy10_sdss" or "galaxy10_decals", optional
        From labels to names, or the names of Galaxy10; by default the labels as they are.
    mirror : sequence of pairs
        Names of classes that are each other's mirror image.
    name : str
        Name of the condition of labels.
    layout : {"bands_first", "bands_last"}, optional
        Where the bands are; by default seen from the shape.
    bands : sequence of str, optional
        Their names.
    unit : str
        "display" scales 8 and 16 bits to [0, 1]; any other unit keeps the file's own numbers.
    size, crop, conserve, where, limit, stretch
        As in `GZ2Dataset`. The table has every dataset that lies beside the images and has one value an image.
    on_bad : str
        Of no effect: there is no row without an image.

    Raises
    ------
    DataError
        For a missing or damaged file or dataset, links to other files, or a shape that is not clear.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        file: str | None = None,
        images: str = "images",
        label: str | None = "ans",
        scalars: Sequence[str] | Mapping[str, str] = (),
        id: str | None = None,
        classes: Mapping[Any, str] | str | None = None,
        mirror: Sequence[Sequence[str]] = (),
        name: str = "morphology",
        layout: str | None = None,
        bands: Sequence[str] | None = None,
        unit: str = "display",
        size: int | None = 64,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        where: str | None = None,
        limit: int | None = None,
        stretch: str | Stretch = "sqrt",
        on_bad: str = "fail",
    ) -> None:
        check_arguments(on_bad, limit)
        root = Path(root)
        self._path = root if root.is_file() else find_table(root, file, _PATTERNS)
        self._images = images
        self._handle: tuple[int, h5py.Dataset] | None = None
        wanted = [column for column in (label, id, *scalars) if column is not None]
        with _damage(self._path), h5py.File(self._path, "r") as opened, all_at_once() as part:
            with part():
                classes = _named_classes(classes)
            asked = {}
            for column in wanted:
                with part():
                    asked[column] = _dataset(opened, column, self._path)
            with part():
                pixels = _dataset(opened, images, self._path)
                with part():
                    self._axes, count = _axes(pixels.shape, layout, self._path)
                    bands = _band_names(bands, count, self._path)
                with part():
                    self._white = _white(pixels.dtype, unit, self._path)
                self._cache = _cache(pixels)
                shape = list(map(int, pixels.shape))
                frame = _table(opened, images, asked, len(pixels), self._path)
        self._shape = tuple(shape[1:])
        key = id or "row"
        if id is None:
            frame = frame.assign(row=np.arange(len(frame), dtype=np.int64))
        else:
            frame = frame.assign(**{id: id_column(frame, id, self._path)})
        self._rows = np.arange(len(frame))
        frame = select(frame.set_index(self._rows), where, self._path)[:limit]
        self._rows, frame = frame.index.to_numpy(), frame.reset_index(drop=True)
        ids = frame[key].to_numpy()
        more = {"classes": classes, "mirror": mirror, "where": self._path, "ids": ids}
        found = None if label is None else class_column(label_column(frame, label, where=self._path), name, **more)
        schema, conditions = join_columns([found, *scalar_columns(frame, scalars, where=self._path)])
        super().__init__(
            table=frame,
            ids=ids,
            schema=schema,
            conditions=conditions,
            bands=tuple(bands),
            unit=unit,
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        if self._white == 65_535:
            self.storage_dtype = "float32"  # float16 would keep 11 of 16 bits
        facts = [self._path.name, self._path.stat().st_size, images, shape, unit, list(bands), self._axes]
        table = sha256_json([frame.to_csv(index=False), self._rows.tolist()])
        self._described = {"file": facts, "table": table, "schema": schema.to_dict()}

    def load(self, i: int) -> np.ndarray:
        """Read an image, ``(band, y, x)``."""
        with _damage(self._path):
            image = self._open()[int(self._rows[i])].astype(np.float32)
        image = image[None] if image.ndim == 2 else image.transpose(self._axes)
        return image if self._white is None else image / np.float32(self._white)

    def _sides_of(self, i: int) -> tuple[int, ...]:
        # Those of all: reading some would decode as many chunks.
        return self._shape if len(self._shape) == 2 else tuple(self._shape[axis] for axis in self._axes[1:])

    def fingerprint(self) -> dict[str, Any]:
        """Describe file, table and geometry."""
        return {"kind": "hdf5", **self._described, **self._geometry()}

    def _open(self) -> h5py.Dataset:
        """Return the images, opened by this very process."""
        handle = self._handle
        if handle is None or handle[0] != os.getpid():
            opened = h5py.File(self._path, "r", **self._cache)
            handle = self._handle = (os.getpid(), opened[self._images])
        return handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """HDF5 meets damaged files with errors of many kinds."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, MemoryError) as error:
        raise DataError(f"cannot be read as HDF5: {error}", where=path) from error


def _dataset(opened: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Return a dataset whose values lie in this very file."""
    here: Any = opened
    for part in filter(None, name.split("/")):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            names = ", ".join(list(opened)[:12])
            raise DataError(f"there is no dataset '{name}'", where=path, remedy=f"It has: {names}")
        if isinstance(link, h5py.ExternalLink):
            raise DataError(f"'{name}' is a link to another file, {link.filename}", where=path, remedy=_INSIDE)
        here = here[part]
    if not isinstance(here, h5py.Dataset):
        raise DataError(f"'{name}' is a group, not a dataset", where=path)
    elsewhere = here.file.filename != opened.filename or here.external
    if elsewhere or (here.is_virtual and any(source.file_name != "." for source in here.virtual_sources())):
        raise DataError(f"the values of '{name}' lie in another file", where=path, remedy=_INSIDE)
    return here


def _table(opened: h5py.File, images: str, asked: Mapping[str, h5py.Dataset], n: int, path: Path) -> pd.DataFrame:
    """Read what has one value an image: what is asked for, and what lies beside the images."""
    folder = images.rpartition("/")[0]
    group = opened[folder] if folder else opened
    names = [f"{folder}/{name}" if folder else name for name in group]
    held = [name for name in names if isinstance(opened.get(name, getlink=True), h5py.HardLink)]
    beside = {n: _dataset(opened, n, path) for n in held if n not in asked and isinstance(opened[n], h5py.Dataset)}
    columns = {}
    with all_at_once() as part:
        for name, found in {**asked, **beside}.items():
            text = h5py.check_string_dtype(found.dtype) is not None
            if found.shape == (n,) and (text or found.dtype.kind in "iufb"):
                # pandas takes no numbers of the other byte order.
                columns[name] = found.asstr()[:] if text else found[:].astype(found.dtype.newbyteorder("="))
            elif name in asked:
                with part():
                    message = f"'{name}' has shape {found.shape}, not one number or text for {n} images"
                    raise DataError(message, where=path)
    return pd.DataFrame(columns, index=range(n))


def _named_classes(classes: Mapping[Any, str] | str | None) -> Mapping[Any, str] | None:
    if not isinstance(classes, str):
        return classes
    if classes not in _NAMED:
        raise DataError(f"unknown classes '{classes}'", remedy=f"Known: {', '.join(_NAMED)}, or a mapping")
    return _NAMED[classes]


def _band_names(bands: Sequence[str] | None, count: int, path: Path) -> Sequence[str]:
    if bands is None:
        return _BANDS.get(count, tuple(f"band{i}" for i in range(count)))
    if len(bands) != count:
        raise DataError(f"{len(bands)} names for {count} bands", where=path)
    return bands


def _axes(shape: tuple[int, ...], layout: str | None, path: Path) -> tuple[tuple[int, int, int], int]:
    """Return the order that brings an image's axes to ``(band, y, x)``, and the number of bands."""
    known = {"bands_first": (0, 1, 2), "bands_last": (2, 0, 1)}
    if layout is not None and layout not in known:
        raise DataError(f"unknown layout '{layout}'", remedy=f"Known: {', '.join(known)}")
    if shape and (shape[0] > _MOST_IMAGES or math.prod(shape[1:]) > _MOST_PIXELS):
        raise DataError(f"the images have shape {shape}, over 64 million pixels or 100 million images", where=path)
    if len(shape) == 3 and min(shape):
        return (0, 1, 2), 1
    if len(shape) == 4 and min(shape):
        fits = {"bands_first": shape[2] == shape[3] != shape[1], "bands_last": shape[1] == shape[2] != shape[3]}
        clear = [name for name, fit in fits.items() if fit]
        layout = layout or (clear[0] if len(clear) == 1 else None)
        if layout is None:
            raise DataError(f"the shape {shape} does not say where the bands are", where=path, remedy="Set layout")
        return known[layout], shape[1] if layout == "bands_first" else shape[3]
    raise DataError(f"the images have shape {shape}, not (n, y, x) or four axes", where=path)


def _white(dtype: np.dtype, unit: str, path: Path) -> int | None:
    """Return the number that is white in display units, or None for numbers that are kept."""
    if dtype.kind not in "iuf":
        raise DataError(f"the images are of type {dtype}, not numbers", where=path)
    if unit != "display":
        return None
    if dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        remedy = "Say which unit they have, such as unit: nanomaggy"
        raise DataError(f"the images have no display range: {dtype}", where=path, remedy=remedy)
    return int(np.iinfo(dtype).max)


def _cache(pixels: h5py.Dataset) -> dict[str, int]:
    """Return the size of a chunk cache that holds the chunks of one image, and room for as many again."""
    if pixels.chunks is None:
        return {}
    across = [math.ceil(n / c) for n, c in zip(pixels.shape[1:], pixels.chunks[1:], strict=True)]
    one = math.prod(pixels.chunks) * pixels.dtype.itemsize
    # HDF5 advises a hundred slots a chunk, and a prime number of them.
    slots = 1_000_003 if math.prod(across) > 1000 else 100_003
    return {"rdcc_nbytes": min(_MOST_CACHE, max(1 << 20, 2 * one * math.prod(across))), "rdcc_nslots": slots}

"""MNIST's IDX files, gzipped or not.

An IDX file is ``0 0 type rank``, the sizes as big-endian 32-bit numbers, and the values (LeCun, Cortes and Burges, "The
MNIST database"). Its sizes are checked against the file's before anything is allocated; deflate makes nothing more
than 1032 times smaller, so that a few bytes cannot claim gigabytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from galdiff.atomic import sha256_file
from galdiff.data.dataset import CutoutDataset, check_arguments
from galdiff.data.geometry import Crop
from galdiff.data.labels import class_column, join_columns
from galdiff.data.stretch import Stretch
from galdiff.data.tables import select
from galdiff.errors import DataError, all_at_once

__all__ = ["IDXDataset", "read_idx"]

_UBYTE = 0x08
_DEFLATE = 1032


class IDXDataset(CutoutDataset):
    """MNIST and its kin: grey images of one size with a label each; ids are row numbers.

    Parameters
    ----------
    root : path-like
        The folder.
    images : str, optional
        File of the images; by default the only ``*images*idx3*`` of the folder.
    labels : str, optional
        File of the labels; by default the one that is called as the images are, if it is there.
    classes : mapping, optional
        From labels to names; by default the labels as they are.
    mirror : sequence of pairs
        Names of classes that are each other's mirror image.
    name : str
        Name of the condition.
    size, crop, conserve, where, limit, stretch
        As in `GZ2Dataset`; the table has the columns ``id`` and ``label``.
    on_bad : str
        Of no effect: there is no row without an image.

    Raises
    ------
    DataError
        For a missing or damaged file, or counts of images and labels that differ.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        images: str | None = None,
        labels: str | None = None,
        classes: Mapping[Any, str] | None = None,
        mirror: Sequence[Sequence[str]] = (),
        name: str = "digit",
        size: int | None = 32,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        where: str | None = None,
        limit: int | None = None,
        stretch: str | Stretch = "linear",
        on_bad: str = "fail",
    ) -> None:
        check_arguments(on_bad, limit)
        root = Path(root)
        place, labeled = root / (images or "images"), None
        with all_at_once() as part:
            with part():
                place = _find_images(root, images)
                pixels = read_idx(place, rank=3)
            with part():
                labeled = _find_labels(place, labels)
                values = None if labeled is None else read_idx(labeled, rank=1)
        frame = pd.DataFrame({"id": np.arange(len(pixels), dtype=np.int64)})
        if labeled is not None and values is not None:
            if len(values) != len(pixels):
                remedy = f"{labeled.name} is of other images"
                raise DataError(f"{len(pixels)} images and {len(values)} labels", where=place, remedy=remedy)
            frame["label"] = values.astype(np.int64)
        frame = select(frame, where, labeled or place)[:limit].reset_index(drop=True)
        ids = frame["id"].to_numpy()
        found = None
        if labeled is not None:
            found = class_column(frame["label"], name, classes=classes, mirror=mirror, where=labeled, ids=ids)
        schema, conditions = join_columns([found])
        self._pixels = pixels if len(ids) == len(pixels) else pixels[ids]
        super().__init__(
            table=frame,
            ids=ids,
            schema=schema,
            conditions=conditions,
            bands=("grey",),
            unit="display",
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        files = [sha256_file(path) for path in (place, labeled) if path is not None]
        self._described = {"files": files, "schema": schema.to_dict(), "where": where, "limit": limit}

    def _sides_of(self, i: int) -> tuple[int, ...]:
        return self._pixels.shape[1:]

    def load(self, i: int) -> np.ndarray:
        """Return an image, display units ``(1, y, x)``."""
        return self._pixels[i][None].astype(np.float32) / 255

    def fingerprint(self) -> dict[str, Any]:
        """Describe files, selection and geometry."""
        return {"kind": "idx", **self._described, **self._geometry()}


def read_idx(path: Path, *, rank: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        The file; whether it is gzipped is seen from its first bytes.
    rank : int
        Number of axes: 3 for images, 1 for labels.

    Returns
    -------
    numpy.ndarray
        uint8.

    Raises
    ------
    DataError
        Where the file is absent, no IDX file of this type and rank, or longer or shorter than its header says.
    """
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            most = raw.seek(0, 2) * (_DEFLATE if zipped else 1)
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if zipped else raw as file:
                return _read_values(file, path, rank, most)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", where=path) from error


def _read_values(file: IO[bytes] | gzip.GzipFile, path: Path, rank: int, most: int) -> np.ndarray:
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise DataError("is not an IDX file: it does not begin with two zeros", where=path)
    if header[2] != _UBYTE or header[3] != rank:
        message = f"has type 0x{header[2]:02x} and {header[3]} axes, not unsigned bytes (0x08) and {rank}"
        raise DataError(message, where=path)
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError("the file ends inside its header", where=path)
    shape = struct.unpack(f">{rank}I", sizes)
    count = math.prod(shape)
    if count == 0 or count > most:
        remedy = "It is damaged or was not fully downloaded"
        raise DataError(f"the header says {' x '.join(map(str, shape))} values", where=path, remedy=remedy)
    values = file.read(count + 1)  # one more, to see that nothing follows; gzip then checks its checksum
    if len(values) != count:
        found = "more" if len(values) > count else f"{len(values)}"
        raise DataError(f"the header says {count} values, the file has {found}", where=path)
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _find_images(root: Path, name: str | None) -> Path:
    if not root.is_dir():
        raise DataError("the data folder is missing", where=root, remedy="Set data.root")
    if name is not None:
        path = root / name
        if path.is_file():
            return path
        labels = _partner(path)
        alone = "" if labels is None else f"; their labels are there, {labels.name}"
        raise DataError(f"the images are missing{alone}", where=path)
    found = _listed(root, "*images*idx3*")
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"there are {len(found)} files of images: {_names(found)}", where=root, remedy="Name one")
    lonely = _listed(root, "*labels*idx1*")
    alone = f"; there are labels without images: {_names(lonely)}" if lonely else ""
    raise DataError(f"there is no file of images like *images*idx3*{alone}", where=root)


def _find_labels(images: Path, name: str | None) -> Path | None:
    if name is None:
        return _partner(images)
    path = images.parent / name
    if not path.is_file():
        raise DataError("the labels are missing", where=path)
    return path


def _partner(images: Path) -> Path | None:
    """Return the labels that are called as the images are, gzipped or not."""
    stem = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    candidates = (images.with_name(stem), images.with_name(f"{stem}.gz"))
    return next((p for p in candidates if p.is_file() and p != images), None)


def _listed(root: Path, pattern: str) -> list[Path]:
    return sorted(p for p in root.glob(pattern) if p.is_file())


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(p.name for p in paths)

"""Any folder of images: nested class folders, or a table of files, labels and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from galdiff.atomic import sha256_file, sha256_json
from galdiff.data.celeba import ANSWERS, FILE, read_attributes
from galdiff.data.dataset import CutoutDataset, check_arguments, file_sizes
from galdiff.data.files import FileIndex
from galdiff.data.geometry import Crop
from galdiff.data.images import SUFFIXES, decode_image, image_type
from galdiff.data.labels import class_column, join_columns, label_column, scalar_columns
from galdiff.data.stretch import Stretch
from galdiff.data.tables import find_column, find_table, id_column, read_table, refuse_absent, select
from galdiff.errors import DataError, all_at_once

__all__ = ["ImageFolderDataset"]


class ImageFolderDataset(CutoutDataset):
    """Images of a folder with what folders or a table say of them.

    Parameters
    ----------
    root : path-like
        The folder.
    table : str, optional
        File name of a table with one row an image: CSV, parquet, FITS, or CelebA's ``list_attr_celeba.txt``. Images
        without a row are counted in `skipped`.
    id : str, optional
        The table's column of ids, int64 or text: "id", or where there is a ``file``, that. Without ``file`` the ids
        are the stems of the files; their suffix is found whatever it is.
    file : str, optional
        The table's column of paths relative to ``images``, or of paths on another machine that end in the right name.
    label : str, optional
        The table's column of labels, the condition ``name``.
    attributes : sequence of str, optional
        Columns that are each a class condition of their own; of CelebA's table all, by default, with the classes "no"
        and "yes".
    scalars : sequence of str or mapping of str to str
        Numeric columns that are each a scalar condition, or from such columns to their units.
    images : str
        Folder of the images, relative to the root.
    folders : {"classes", "ignore"}
        Without a table: whether the folder that an image lies in is its class (images directly in ``images`` have
        none), or only a place, as FFHQ's folders of a thousand are.
    classes : mapping, optional
        From the values in the label column to names; by default the values as they are, in order.
    mirror : sequence of pairs
        Names of classes that are each other's mirror image.
    name : str
        Name of the condition of labels.
    grey : bool
        Read one band instead of three.
    unit : str
        "display" scales 8 and 16 bits to [0, 1]; any other unit keeps the file's own numbers, as those of
        floating-point TIFF.
    size, crop, conserve, where, limit, stretch, on_bad
        As in `GZ2Dataset`; here a missing image is an error by default.

    Raises
    ------
    DataError
        For a missing file, image or column, a label that is not among the classes, or a name that two files have.

    Notes
    -----
    Without a table the ids are the files' stems, or their paths relative to ``images`` where stems repeat. Whether a
    cache keeps 16 bits is decided by the first image.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        table: str | None = None,
        id: str | None = None,
        file: str | None = None,
        label: str | None = None,
        attributes: Sequence[str] | None = None,
        scalars: Sequence[str] | Mapping[str, str] = (),
        images: str = ".",
        folders: str = "classes",
        classes: Mapping[Any, str] | None = None,
        mirror: Sequence[Sequence[str]] = (),
        name: str = "morphology",
        grey: bool = False,
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
        if folders not in ("classes", "ignore"):
            raise DataError(f"folders is '{folders}'", remedy="Known: classes, ignore")
        root = Path(root)
        skipped: list[tuple[str, str]] = []
        described: dict[str, Any] = {}
        if table is None:
            wants = {
                "id": id,
                "file": file,
                "label": label,
                "attributes": attributes,
                "scalars": scalars,
                "where": where,
            }
            if needless := [argument for argument, value in wants.items() if value]:
                raise DataError(
                    f"there is no table for {', '.join(needless)}", where=root, remedy="Name it with 'table'"
                )
            files = FileIndex(root / images, SUFFIXES)
            place, names = root, files.names[:limit]
            own = [PurePosixPath(n).parent.name or None if folders == "classes" else None for n in names]
            frame = pd.DataFrame({"id": files.ids()[:limit], "folder": own})
            ids, labels, attributes = frame["id"].to_numpy(), frame["folder"], ()
        else:
            with all_at_once() as part:
                with part():
                    files = FileIndex(root / images, SUFFIXES)
                with part():
                    place = find_table(root, table, ())
                    frame, key, file, attributes = _read(place, id, file, attributes)
                    refuse_absent(frame, [c for c in (label, *attributes, *scalars) if c is not None], place)
                    frame = select(frame.assign(**{key: id_column(frame, key, place)}), where, place)
            found = [files.find(str(v), by_path=file is not None) for v in frame[file or key]]
            frame, names, skipped = _join(frame, key, found, files, place, on_bad)
            frame, names = frame[:limit], names[:limit]
            ids = frame[key].to_numpy()
            described = {"table": sha256_file(place)}
            labels = None if label is None else label_column(frame, label, where=place)
        more = {"where": place, "ids": ids}
        columns = [] if labels is None else [class_column(labels, name, classes=classes, mirror=mirror, **more)]
        answers = ANSWERS if _is_celeba(place) else None
        columns += [class_column(label_column(frame, a, where=place), a, classes=answers, **more) for a in attributes]
        schema, conditions = join_columns([*columns, *scalar_columns(frame, scalars, where=place)])
        self._files, self._names, self._mode = files, names, "L" if grey else "RGB"
        super().__init__(
            table=frame,
            ids=ids,
            schema=schema,
            conditions=conditions,
            bands=("grey",) if grey else ("r", "g", "b"),
            unit=unit,
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        self.skipped = skipped
        if unit == "display" and _is_deep(self.source(0)):
            self.storage_dtype = "float32"  # float16 would keep 11 of 16 bits
        self._described = {**described, "schema": schema.to_dict(), "mode": self._mode, "unit": unit}

    def load(self, i: int) -> np.ndarray:
        """Decode an image, ``(band, y, x)``."""
        pixels = decode_image(self.source(i), mode=self._mode, unit=self.unit)
        if self.storage_dtype == "float16" and pixels.dtype != np.uint8:  # whose last bits a cache would lose
            remedy = "Put images of one depth into a folder, or one of 16 bits first"
            raise DataError("has 16 bits where the first image has 8", where=self.source(i), remedy=remedy)
        return pixels

    def source(self, i: int) -> Path:
        """Return the row's file."""
        return self._files.path(self._names[i])

    def fingerprint(self) -> dict[str, Any]:
        """Describe table, files and geometry."""
        files = sha256_json(file_sizes(f"{self._files.folder}/{name}" for name in self._names))
        return {"kind": "image_folder", **self._described, **self._geometry(), "files": files}


def _read(
    place: Path, id: str | None, file: str | None, attributes: Sequence[str] | None
) -> tuple[pd.DataFrame, str, str | None, Sequence[str]]:
    """Read the table; return it with the names of its columns of ids, of files, and of attributes."""
    if _is_celeba(place):
        frame = read_attributes(place)
        return frame, id or FILE, file or FILE, frame.columns[1:] if attributes is None else attributes
    key = id or file or "id"
    frame = read_table(place, ids=(key,) if file is None else (key, file))
    for column in filter(None, (key, file)):
        find_column(frame, column, place)
    return frame, key, file, attributes or ()


def _is_celeba(place: Path) -> bool:
    return place.suffix.lower() == ".txt"


def _join(
    frame: pd.DataFrame, key: str, found: Sequence[str | None], files: FileIndex, place: Path, on_bad: str
) -> tuple[pd.DataFrame, list[str], list[tuple[str, str]]]:
    """Keep the rows that have an image; return what is left out, on either side."""
    present = np.array([name is not None for name in found], dtype=bool)
    missing = frame[key][~present]
    if len(missing) and (on_bad == "fail" or not present.any()):
        remedy = "Set on_bad: skip to go on without such rows"
        message = f"{len(missing)} rows of {place.name} have no image, the first is '{missing.iloc[0]}'"
        raise DataError(message, where=files.folder, remedy=remedy)
    names = [name for name in found if name is not None]
    skipped = [(str(i), "no image") for i in missing]
    if extra := len(files.names) - len(set(names)):
        skipped.append((f"{extra} images", "no row in the table"))
    return frame[present].reset_index(drop=True), names, skipped


def _is_deep(path: Path) -> bool:
    try:
        return image_type(path) != "uint8"
    except DataError:
        return False  # a damaged image is reported where it is read

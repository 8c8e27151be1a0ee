"""Any folder of images: nested class folders, or a table of ids and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from galdiff.atomic import sha256_file, sha256_json
from galdiff.data.dataset import CutoutDataset, file_sizes, index_files
from galdiff.data.geometry import Crop
from galdiff.data.images import SUFFIXES, decode_image
from galdiff.data.stretch import Stretch
from galdiff.data.tables import find_column, find_table, id_column, read_table, select
from galdiff.errors import DataError
from galdiff.schema.conditions import Class, Conditions, ConditionSchema

__all__ = ["ImageFolderDataset"]


class ImageFolderDataset(CutoutDataset):
    """Images of a folder with their classes.

    Parameters
    ----------
    root : path-like
        The folder.
    table : str, optional
        File name of a table with one row an image; without it the folders of the images are their classes, and those
        of images that lie directly in ``images`` are unknown.
    id : str
        The table's column of ids: int64 or text, the stems of the files; their suffix is found whatever it is.
    label : str, optional
        The table's column of labels; None is unconditional.
    images : str
        Folder of the images, relative to the root.
    classes : mapping, optional
        From the values in the label column to names; by default the values as they are, in order.
    mirror : sequence of pairs
        Names of classes that are each other's mirror image.
    name : str
        Name of the condition.
    grey : bool
        Read one band instead of three.
    size, crop, conserve, where, limit, stretch, on_bad
        As in `GZ2Dataset`; here a missing image is an error by default.

    Raises
    ------
    DataError
        For a missing file, image or column, or a label that is not among the classes.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        table: str | None = None,
        id: str = "id",
        label: str | None = None,
        images: str = ".",
        classes: Mapping[Any, str] | None = None,
        mirror: Sequence[Sequence[str]] = (),
        name: str = "morphology",
        grey: bool = False,
        size: int | None = 64,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        where: str | None = None,
        limit: int | None = None,
        stretch: str | Stretch = "sqrt",
        on_bad: str = "fail",
    ) -> None:
        root = Path(root)
        files = index_files(root / images, SUFFIXES)
        skipped: list[tuple[str, str]] = []
        described: dict[str, Any] = {}
        column: str | None = "folder"
        if table is None:
            paths = list(files.values())
            ids = np.array(list(files))
            folders = [p.parent.name if p.parent != root / images else None for p in paths]
            frame = pd.DataFrame({id: ids, "folder": folders})
            place = root
            if limit is not None:
                frame, ids, paths = frame[:limit], ids[:limit], paths[:limit]
        else:
            place = find_table(root, table, ())
            frame = read_table(place, ids=(id,))
            find_column(frame, id, place)
            frame = select(frame.assign(**{id: id_column(frame, id, place)}), where, place)
            present = np.array([_stem(i) in files for i in frame[id]], dtype=bool)
            if not present.all():
                missing = frame[id][~present]
                if on_bad == "fail" or not present.any():
                    remedy = "Set on_bad: skip to go on without such rows"
                    message = f"{len(missing)} rows of {place.name} have no image, the first is '{missing.iloc[0]}'"
                    raise DataError(message, where=root / images, remedy=remedy)
                skipped = [(str(i), "no image") for i in missing]
            frame = frame[present][:limit].reset_index(drop=True)
            ids = frame[id].to_numpy() if frame[id].dtype.kind == "i" else frame[id].to_numpy(dtype=str)
            paths = [files[_stem(i)] for i in ids]
            column = None if label is None else find_column(frame, label, place)
            described = {"table": sha256_file(place)}
        schema, conditions = _classes(frame, column, classes, mirror, name, place)
        self._paths, self._mode = paths, "L" if grey else "RGB"
        super().__init__(
            table=frame,
            ids=ids,
            schema=schema,
            conditions=conditions,
            bands=("grey",) if grey else ("r", "g", "b"),
            unit="display",
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        self.skipped = skipped
        self._described = {**described, "schema": schema.to_dict(), "mode": self._mode}

    def load(self, i: int) -> np.ndarray:
        """Decode an image, ``(band, y, x)``."""
        return decode_image(self._paths[i], mode=self._mode)

    def source(self, i: int) -> Path:
        """Return the row's file."""
        return self._paths[i]

    def fingerprint(self) -> dict[str, Any]:
        """Describe table, files and geometry."""
        files = sha256_json(file_sizes(self._paths))
        return {"kind": "image_folder", **self._described, **self._geometry(), "files": files}


def _stem(value: Any) -> str:
    """Return the stem that an id names: ids of some tables carry an image suffix, which need not be the file's."""
    text = str(value)
    suffix = Path(text).suffix.lower()
    return text[: -len(suffix)] if suffix in SUFFIXES else text


def _classes(
    frame: pd.DataFrame,
    column: str | None,
    classes: Mapping[Any, str] | None,
    mirror: Sequence[Sequence[str]],
    name: str,
    place: Path,
) -> tuple[ConditionSchema, Conditions]:
    if column is None:
        return ConditionSchema(), Conditions({}, {})
    labels = frame[column]
    known = labels.notna().to_numpy()
    values = sorted(labels.dropna().unique(), key=lambda v: (isinstance(v, str), v)) if classes is None else classes
    index = {_label_text(v): i for i, v in enumerate(values)}
    names = tuple(index) if classes is None else tuple(map(str, classes.values()))
    if not names:
        return ConditionSchema(), Conditions({}, {})
    text = [_label_text(v) if k else "" for v, k in zip(labels, known, strict=True)]
    for row, (value, k) in enumerate(zip(text, known, strict=True)):
        if k and value not in index:
            remedy = f"Known labels: {', '.join(index)}"
            message = f"'{frame.iloc[row, 0]}': label '{value}' in column '{column}' is not known"
            raise DataError(message, where=place, remedy=remedy)
    field = Class(name, names, tuple((str(a), str(b)) for a, b in mirror))
    coded = torch.tensor([index.get(v, 0) for v in text], dtype=torch.int64)
    return ConditionSchema([field]), Conditions({name: coded}, {name: torch.from_numpy(known.copy())})


def _label_text(value: Any) -> str:
    """Labels as text; a column with gaps turns 3 into 3.0, which is still class 3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

"""Galaxy Zoo: image cutouts, the volunteers' votes, and the ids by which they join.

Two systems of ids look alike: the Kaggle challenge's GalaxyID and Galaxy Zoo 2's asset_id both call a file
``100008.jpg``, of different galaxies. A table that names its objects in one system never joins images of the other: a
Kaggle table refuses a mapping beside it, and names of images that cannot be of the system are an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from galdiff.atomic import sha256_file, sha256_json
from galdiff.data.dataset import CutoutDataset, check_arguments, file_sizes
from galdiff.data.files import FileIndex, file_stems
from galdiff.data.geometry import Crop
from galdiff.data.images import SUFFIXES, decode_image
from galdiff.data.stretch import Stretch
from galdiff.data.tables import find_column, find_table, id_column, read_table, selected, take_rows
from galdiff.data.votes import detect_format, outside, read_votes, vote_columns
from galdiff.errors import DataError, all_at_once
from galdiff.schema.conditions import ConditionSchema, Votes
from galdiff.schema.voteformats import VOTE_FORMATS, VoteFormat

__all__ = ["GZ2Dataset"]

_IDS = tuple(dict.fromkeys(column for layout in VOTE_FORMATS.values() for column in layout.ids))
_SDSS = ("dr7objid", "objid", "OBJID")
_MAPPING = "gz2_filename_mapping.csv"
_TABLES = (
    *("gz2_hart16.csv*", "*hart16*.csv*", "*hart16*.parquet", "*hart16*.fits"),
    *("training_solutions_rev1.csv*", "gz_decals_volunteers*.csv*", "gz_decals_volunteers*.parquet"),
)
_GALAXY_IDS = range(100_000, 1_000_000)  # of the Kaggle challenge: six digits
_ASSET_IDS = range(1, 355_991)  # of Galaxy Zoo 2: its published mapping has so many rows
_ALIKE = "Kaggle's GalaxyID and Galaxy Zoo 2's asset_id look alike and name different galaxies"


class GZ2Dataset(CutoutDataset):
    """Galaxy Zoo cutouts joined to their votes: Galaxy Zoo 2, its Kaggle challenge, Galaxy Zoo DECaLS.

    The votes of a question are its volunteers' count times the fractions, normalized within the question (debiased
    fractions do not sum to one; the raw sum stays in the table as ``<question>_sum``). A question that nobody reached,
    or that the table lacks, is masked. Images without a row and rows without an image are listed in `skipped`; Zenodo
    record 3565489 documents both. Sources: Willett et al. 2013 (MNRAS 435, 2835), Hart et al. 2016 (MNRAS 461, 3663),
    Walmsley et al. 2022 (MNRAS 509, 3966).

    Parameters
    ----------
    root : path-like
        Folder of the table, the mapping and the images.
    table : str, optional
        File name of the votes, CSV (gzipped), parquet or FITS; by default ``*hart16*``, else
        ``training_solutions_rev1.csv``, else ``gz_decals_volunteers*``.
    table_format : str, optional
        "hart16" (``dr7objid``), "willett13" (``objid``), "kaggle" (``GalaxyID``, probabilities of the whole path),
        "decals", "decals_dr5" or "decals_dr8" (``iauname``, ``id_str``, …); by default told from the columns.
    id : str, optional
        Column that names the images, where it is none of the format's; paths and suffixes of files are cut off.
    mapping : str, optional
        For ids of SDSS: ``gz2_filename_mapping.csv`` (objid, sample, asset_id), where images are called
        ``<asset_id>.jpg``. By default used if it is there; without it images are called by the object's id.
    images : str
        Folder of the images, relative to the root.
    size : int, optional
        Side after resizing; None keeps the images' own.
    crop, conserve
        As in `CutoutDataset`: ``0.5`` keeps the central half, ``{"radius": "petroR90_r", "times": 3.0}`` six radii.
    votes : {"debiased", "weighted", "fraction"}, optional
        Which fractions; by default debiased ones for Galaxy Zoo 2, else the only or the plain ones.
    columns : mapping, optional
        For tables with other names: from answers (``"spiral"``) to columns of fractions.
    count : float or mapping, optional
        Votes a question, for tables without counts; a mapping says it question by question. For a Kaggle table the
        volunteers an object, of whom a question has those who reached it.
    where : str, optional
        A pandas query, such as ``"t04_spiral_a08_spiral_debiased > 0.6 and sample == 'original'"``.
    limit : int, optional
        Keep this many rows.
    stretch : str or Stretch
        "sqrt" by default.
    on_bad : {"fail", "skip"}
        Whether an image that the table names but the folder lacks is an error or is listed in `skipped`.

    Raises
    ------
    DataError
        For a missing file or column, ids that are not int64, votes outside [0, 1], ids and images of different
        systems, or where nothing joins.
    """

    one_size = True

    def __init__(
        self,
        root: str | Path,
        *,
        table: str | None = None,
        table_format: str | None = None,
        id: str | None = None,
        mapping: str | None = None,
        images: str = "images",
        size: int | None = 64,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        votes: str | None = None,
        columns: Mapping[str, str] | None = None,
        count: float | Mapping[str, float] | None = None,
        where: str | None = None,
        limit: int | None = None,
        stretch: str | Stretch = "sqrt",
        on_bad: str = "skip",
    ) -> None:
        check_arguments(on_bad, limit)
        root = Path(root)
        with all_at_once() as part:
            with part():
                path = find_table(root, table, _TABLES)
                frame = read_table(path, ids=(*_IDS, "asset_id", *([id] if id else [])))
                layout, key = detect_format(frame, path, name=table_format, id=id, own=columns is not None)
                found = vote_columns(frame, layout, path, kind=votes, columns=columns, count=count)
            with part():
                index = FileIndex(root / images, SUFFIXES)
                index.refuse_twins()
            with part():
                if mapping is not None:
                    _refuse_no_table(root / mapping)
        if not pd.api.types.is_float_dtype(frame[key]) and not frame[key].isna().any():
            frame[key] = file_stems(frame[key], SUFFIXES)
        frame[key] = id_column(frame, key, path)
        if key in _SDSS and frame[key].dtype.kind != "i":
            raise DataError(f"column '{key}' does not hold SDSS object ids", where=path)
        rows = selected(frame, where, path)
        chosen = frame[key].iloc[rows]
        files = index.stems
        names, source = _file_names(root, mapping, chosen, files, layout)
        present = np.array([name in files for name in names], dtype=bool)
        if not present.any():
            lacking = key in _SDSS and source is None
            hint = f"There is no {_MAPPING} here, by which images are called by their asset_id. " if lacking else ""
            remedy = f"{hint}Look at 'images', 'id' and 'mapping': {_ALIKE}"
            raise DataError(f"no row of {path.name} has an image in '{images}'", where=root, remedy=remedy)
        bad = outside(frame, path, found)[rows]
        if on_bad == "fail":
            _refuse(chosen, ~present, "has no image", root / images, names)
            _refuse(chosen, bad, "has votes outside [0, 1]", path)
        lost = [(name, "no image") for name, there in zip(names, present, strict=True) if not there]
        lost += [(str(i), "votes outside [0, 1]") for i in chosen[bad & present]]
        kept = np.flatnonzero(present & ~bad)[:limit]
        self._folder, self._names = index.folder, [files[names[row]] for row in kept]
        frame = take_rows(frame, rows[kept])
        conditions, sums = read_votes(frame, layout, path, found, count=count)
        super().__init__(
            table=pd.concat([frame, sums], axis=1),
            ids=frame[key].to_numpy(),
            schema=ConditionSchema([Votes("votes", layout.tree)]),
            conditions=conditions,
            bands=("r", "g", "b"),
            unit="display",
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        self.skipped = lost
        extra = len(files) - int(present.sum())
        if extra:
            self.skipped.append((f"{extra} images", "no votes in the table"))
        self._tables = {
            "tables": [sha256_file(p) for p in (path, source) if p is not None],
            "format": layout.name,
            "id": key,
            "votes": votes or next(iter(layout.fractions)),
            "columns": dict(columns or {}),
            "count": dict(count) if isinstance(count, Mapping) else count,
        }

    def load(self, i: int) -> np.ndarray:
        """Decode an image, ``(3, y, x)``."""
        return decode_image(self.source(i))

    def source(self, i: int) -> Path:
        """Return the row's file."""
        return self._folder / self._names[i]

    def fingerprint(self) -> dict[str, Any]:
        """Describe tables, files and geometry."""
        sizes = file_sizes(f"{self._folder}/{name}" for name in self._names)
        return {"kind": "gz2", **self._tables, **self._geometry(), "files": sha256_json(sizes)}


def _refuse(ids: pd.Series, rows: np.ndarray, what: str, where: Path, names: list[str] | None = None) -> None:
    if rows.any():
        row = int(rows.argmax())
        name = f" '{names[row]}'" if names else ""
        remedy = "Set on_bad: skip to go on without such rows"
        raise DataError(f"object {ids.iloc[row]} {what}{name}", where=where, remedy=remedy)


def _refuse_no_table(mapping: Path) -> None:
    if not mapping.is_file():
        missing = "is a folder, not a table" if mapping.is_dir() else "the filename mapping is missing"
        raise DataError(missing, where=mapping)


def _file_names(
    root: Path, mapping: str | None, ids: pd.Series, files: Mapping[str, str], layout: VoteFormat
) -> tuple[list[str], Path | None]:
    """Stems of the images of the objects, in order, and the mapping by which they were found."""
    path, key = root / (mapping or _MAPPING), ids.name
    if layout.name == "kaggle":  # whatever its column of ids is called
        if mapping is not None or path.is_file():
            remedy = f"Keep the challenge's table and images in a folder of their own: {_ALIKE}"
            raise DataError(
                "this mapping is of asset ids, and the table's ids are GalaxyIDs", where=path, remedy=remedy
            )
        _refuse_strangers(files, _GALAXY_IDS, "GalaxyID", root)
    elif key == "asset_id":
        _refuse_strangers(files, _ASSET_IDS, "asset_id", root, known=map(str, ids))
    if key not in _SDSS or (mapping is None and not path.is_file()):
        if mapping is not None:
            raise DataError(f"a mapping is for ids of SDSS, and the table's are '{key}'", where=path)
        return [str(i) for i in ids], None
    frame = read_table(path, ids=("objid", "asset_id"))
    for column in ("objid", "asset_id"):
        find_column(frame, column, path)
    assets = file_stems(frame["asset_id"], SUFFIXES)
    _refuse_strangers(files, _ASSET_IDS, "asset_id", root, known=assets)
    try:
        objects = frame["objid"].astype("int64")
    except (TypeError, ValueError) as error:
        raise DataError(f"column 'objid' does not hold SDSS object ids: {error}", where=path) from error
    # An object that has several assets has the first one that is there.
    order = np.array([asset not in files for asset in assets.tolist()]).argsort(kind="stable")
    by_object = pd.Series(assets.to_numpy()[order], objects.to_numpy()[order])
    return ids.map(by_object[~by_object.index.duplicated()]).fillna("?").tolist(), path


def _refuse_strangers(
    files: Mapping[str, str], possible: range, system: str, root: Path, known: Iterable[str] = ()
) -> None:
    """Refuse numbers in the names of images that cannot be ids of the system: the whole folder is of another one."""
    strangers = {name for name in files if name.isdecimal() and int(name) not in possible}
    if strangers:
        strangers -= set(known)
    if strangers:
        name = Path(files[min(strangers)]).name
        message = f"image '{name}' ({len(strangers)} such) cannot be called by its {system}"
        raise DataError(message, where=root, remedy=f"{_ALIKE}: which are these?")

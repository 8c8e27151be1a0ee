"""Galaxy Zoo 2: JPEG cutouts, the volunteers' votes, and the mapping between their two kinds of id."""

from __future__ import annotations

from collections.abc import Mapping
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
from galdiff.schema.conditions import Conditions, ConditionSchema, Votes
from galdiff.schema.trees import GZ2_TREE

__all__ = ["GZ2Dataset"]

_ID_COLUMNS = ("dr7objid", "objid", "OBJID")
_TABLES = ("gz2_hart16.csv*", "*hart16*.csv*", "*hart16*.parquet", "*hart16*.fits")
_KINDS = {"debiased": "_debiased", "weighted": "_weighted_fraction", "fraction": "_fraction"}


class GZ2Dataset(CutoutDataset):
    """Galaxy Zoo 2 cutouts joined to their votes by the int64 SDSS DR7 object id.

    The votes of a question are its volunteers' count times the fractions, normalised within the question (debiased
    fractions do not sum to one; the raw sum stays in the table as ``<question>_sum``). A question that nobody reached
    is masked. Images without a row and rows without an image are counted in `skipped`; Zenodo record 3565489 documents
    both. Sources: Willett et al. 2013 (MNRAS 435, 2835), Hart et al. 2016 (MNRAS 461, 3663).

    Parameters
    ----------
    root : path-like
        Folder of the table, the mapping and the images.
    table : str, optional
        File name of the votes: Hart16 (``dr7objid``) or Willett13 Table 5 (``objid``); by default ``*hart16*``.
    mapping : str, optional
        ``gz2_filename_mapping.csv`` (objid, sample, asset_id): images are called ``<asset_id>.jpg``. By default used if
        it is there; without it images are called by the object id.
    images : str
        Folder of the images, relative to the root.
    size : int, optional
        Side after resizing; None keeps the images' own.
    crop, conserve
        As in `CutoutDataset`: ``0.5`` keeps the central half, ``{"radius": "petroR90_r", "times": 3.0}`` six radii.
    votes : {"debiased", "weighted", "fraction"}
        Which fractions.
    columns : mapping, optional
        For tables with other names: from answers (``"spiral"``) to columns of fractions.
    count : float, optional
        Votes a question, for tables without counts.
    where : str, optional
        A pandas query, such as ``"t04_spiral_a08_spiral_debiased > 0.6"``.
    limit : int, optional
        Keep this many rows.
    stretch : str or Stretch
        "sqrt" by default.
    on_bad : {"fail", "skip"}
        Whether an image that the table names but the folder lacks is an error or is listed in `skipped`.

    Raises
    ------
    DataError
        For a missing file or column, ids that are not int64, votes outside [0, 1], or where nothing joins.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        table: str | None = None,
        mapping: str | None = None,
        images: str = "images",
        size: int | None = 64,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        votes: str = "debiased",
        columns: Mapping[str, str] | None = None,
        count: float | None = None,
        where: str | None = None,
        limit: int | None = None,
        stretch: str | Stretch = "sqrt",
        on_bad: str = "skip",
    ) -> None:
        root = Path(root)
        if votes not in _KINDS:
            raise DataError(f"unknown kind of votes '{votes}'", remedy=f"Known: {', '.join(_KINDS)}")
        path = find_table(root, table, _TABLES)
        frame = read_table(path, ids=(*_ID_COLUMNS, "asset_id"))
        key = next((name for name in _ID_COLUMNS if name in frame.columns), None)
        if key is None:
            find_column(frame, _ID_COLUMNS[0], path)
        ids = id_column(frame, str(key), path)
        if ids.dtype.kind != "i":
            raise DataError(f"column '{key}' does not hold SDSS object ids", where=path)
        frame = select(frame.assign(**{str(key): ids}), where, path)
        answers = _vote_columns(frame, path, _KINDS[votes], columns)
        files = index_files(root / images, SUFFIXES)
        names, source = _file_names(root, mapping, frame[key].to_numpy())
        present = np.array([name in files for name in names], dtype=bool)
        if not present.any():
            remedy = "Look at the mapping: Kaggle's GalaxyID and GZ2's asset_id look alike and are not the same"
            raise DataError(f"no row of {path.name} has an image in '{images}'", where=root, remedy=remedy)
        if on_bad == "fail" and not present.all():
            row = int((~present).argmax())
            remedy = "Set on_bad: skip to go on without such rows"
            raise DataError(
                f"object {frame[key].iloc[row]} has no image '{names[row]}'", where=root / images, remedy=remedy
            )
        outside = _outside(frame, path, answers)
        if on_bad == "fail" and outside.any():
            row = int(outside.argmax())
            remedy = "Set on_bad: skip to go on without such rows"
            raise DataError(f"object {frame[key].iloc[row]} has votes outside [0, 1]", where=path, remedy=remedy)
        lost = [(str(name), "no image") for name in np.asarray(names)[~present]]
        lost += [(str(i), "votes outside [0, 1]") for i in frame[key][outside & present]]
        kept = present & ~outside
        frame = frame[kept][:limit].reset_index(drop=True)
        self._paths = [files[name] for name, there in zip(names, kept, strict=True) if there][:limit]
        schema = ConditionSchema([Votes("votes", GZ2_TREE)])
        conditions, sums = _votes(frame, path, answers, count)
        frame = pd.concat([frame, pd.DataFrame(sums)], axis=1)
        super().__init__(
            table=frame,
            ids=frame[key].to_numpy(),
            schema=schema,
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
        tables = [sha256_file(p) for p in (path, source) if p is not None]
        self._tables = {"tables": tables, "votes": votes, "columns": dict(columns or {}), "count": count}

    def load(self, i: int) -> np.ndarray:
        """Decode an image, ``(3, y, x)``."""
        return decode_image(self._paths[i])

    def source(self, i: int) -> Path:
        """Return the row's file."""
        return self._paths[i]

    def fingerprint(self) -> dict[str, Any]:
        """Describe tables, files and geometry."""
        return {"kind": "gz2", **self._tables, **self._geometry(), "files": sha256_json(file_sizes(self._paths))}


def _file_names(root: Path, mapping: str | None, objids: np.ndarray) -> tuple[list[str], Path | None]:
    """Stems of the images of the objects, in order: asset ids by the mapping, else the object ids."""
    path = root / (mapping or "gz2_filename_mapping.csv")
    if mapping is None and not path.is_file():
        return [str(i) for i in objids], None
    if not path.is_file():
        raise DataError("the filename mapping is missing", where=path)
    frame = read_table(path, ids=("objid", "asset_id"))
    for column in ("objid", "asset_id"):
        find_column(frame, column, path)
    assets = frame["asset_id"].astype(str).str.removesuffix(".jpg")
    try:
        objects = frame["objid"].astype("int64")
    except (TypeError, ValueError) as error:
        raise DataError(f"column 'objid' does not hold SDSS object ids: {error}", where=path) from error
    by_object = dict(zip(objects, assets, strict=True))
    return [by_object.get(int(i), "?") for i in objids], path


def _vote_columns(
    frame: pd.DataFrame, path: Path, suffix: str, columns: Mapping[str, str] | None
) -> dict[int, dict[int, str]]:
    """Columns of fractions, by question and answer."""
    named = {GZ2_TREE.find(answer): column for answer, column in (columns or {}).items()}
    out = {}
    for q, question in enumerate(GZ2_TREE.questions):
        start = GZ2_TREE.answer_slice(q).start
        if columns is None:
            here = {start + k: f"{answer.name}{suffix}" for k, answer in enumerate(question.answers)}
        else:
            here = {k: column for (of, k), column in named.items() if of == q}
        if here:
            out[q] = {k: find_column(frame, column, path) for k, column in here.items()}
    return out


def _outside(frame: pd.DataFrame, path: Path, answers: Mapping[int, Mapping[int, str]]) -> np.ndarray:
    """Rows with a fraction outside [0, 1]; one that is absent is not."""
    wanted = [column for here in answers.values() for column in here.values()]
    try:
        fractions = frame[wanted].to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the votes are not numbers: {error}", where=path) from error
    return np.asarray(((fractions < 0) | (fractions > 1 + 1e-6)).any(axis=1))


def _votes(
    frame: pd.DataFrame, path: Path, answers: Mapping[int, Mapping[int, str]], count: float | None
) -> tuple[Conditions, dict[str, np.ndarray]]:
    """Votes per answer and masks per question, and the raw sums of the fractions."""
    n = len(frame)
    values = np.zeros((n, len(GZ2_TREE.answers)), np.float32)
    masks = np.zeros((n, len(GZ2_TREE.questions)), bool)
    sums = {}
    for q, here in answers.items():
        question, span = GZ2_TREE.questions[q], GZ2_TREE.answer_slice(q)
        fractions = frame[list(here.values())].to_numpy(np.float64)
        known = np.isfinite(fractions).all(axis=1)
        total = np.where(known, fractions.sum(axis=1), 0.0)
        sums[f"{question.name}_sum"] = total
        if len(here) == 1 and len(question.answers) == 2:
            # A table that gives one of two answers gives the other too.
            other = next(k for k in range(span.start, span.stop) if k not in here)
            fractions, here = np.hstack([fractions, 1 - fractions]), {**here, other: ""}
            total = np.where(known, 1.0, 0.0)
        counts = _question_counts(frame, question, path) if count is None else np.full(n, count)
        reached = known & (total > 0) & (counts > 0)
        share = np.where(reached[:, None], fractions / np.maximum(total, 1e-9)[:, None], 0.0)
        values[:, list(here)] = (counts[:, None] * share).astype(np.float32)
        masks[:, q] = reached
    return Conditions({"votes": torch.from_numpy(values)}, {"votes": torch.from_numpy(masks)}), sums


def _question_counts(frame: pd.DataFrame, question: Any, path: Path) -> np.ndarray:
    columns = [f"{answer.name}_count" for answer in question.answers]
    if not set(columns) <= set(frame.columns):
        remedy = "Declare how many votes a question has with 'count'"
        raise DataError(f"there are no counts for '{question.name}'", where=path, remedy=remedy)
    return np.asarray(frame[columns].to_numpy(np.float64).sum(axis=1))

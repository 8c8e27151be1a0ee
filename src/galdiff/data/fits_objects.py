"""The objects of a FITS data set: their rows, and where the pixels of each are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from galdiff.data.fits_files import fits_stem
from galdiff.data.fits_index import Place, find_stamps, locate
from galdiff.data.tables import find_column, find_table, id_column, read_table, refuse_absent, select
from galdiff.errors import DataError, all_at_once

__all__ = ["Objects", "objects_in_mosaics", "objects_with_stamps", "without_bad"]

Objects = tuple[Path, pd.DataFrame, list[Place]]
"""The file or folder that says which objects there are, their rows, and where each one's pixels are."""


def objects_with_stamps(
    root: Path,
    table: str | None,
    folder: Path,
    files: str | Mapping[str, str] | None,
    *,
    id: str,
    where: str | None,
    needed: Sequence[str],
) -> Objects:
    """Find the stamps of a table's rows or, without a table, of all objects, whose folders are a column ``folder``.

    Parameters
    ----------
    root : Path
        The folder of the data.
    table : str, optional
        The table's name.
    folder, files
        As in `galdiff.data.fits_index.find_stamps`.
    id : str
        The column of ids.
    where : str, optional
        Which rows to take.
    needed : sequence of str
        Columns that the table must have.

    Raises
    ------
    DataError
        For what is wrong with the table and what is wrong with the stamps, both at once.
    """
    source, frame, stamps = root if table is None else root / table, None, {}
    with all_at_once() as part:
        if table is not None:
            with part():
                source, frame = _read_rows(root, table, id, where, needed)
        with part():
            stamps = find_stamps(folder, files, leave=source)
    if frame is None:
        frame = pd.DataFrame({id: list(stamps), "folder": [stamp.label for stamp in stamps.values()]})
        frame = select(frame, where, source)
    return source, frame, [stamps.get(fits_stem(str(key)), Place((), problem="no file")) for key in frame[id]]


def objects_in_mosaics(
    root: Path,
    table: str | None,
    mosaic: str,
    bands: Sequence[str],
    *,
    sky: tuple[str, str],
    pixels: tuple[str | None, str | None],
    side: int | None,
    id: str,
    where: str | None,
    needed: Sequence[str],
) -> Objects:
    """Find the windows of mosaics about the positions in a table.

    Parameters
    ----------
    root, table, id, where, needed
        As in `objects_with_stamps`.
    mosaic, bands, side
        As in `galdiff.data.fits_index.locate`.
    sky : pair of str
        Columns of right ascension and declination.
    pixels : pair of str
        Columns of x and y, which are taken instead where they are named.

    Raises
    ------
    DataError
        Where the table, the side or one of x and y is not given, and for what is wrong with table and mosaics.
    """
    x, y = pixels
    if table is None or side is None or (x is None) != (y is None):
        remedy = "Set table, side, and ra and dec or both x and y"
        raise DataError("a mosaic needs a table of positions and the side of the cutouts", remedy=remedy)
    source, frame = _read_rows(root, table, id, where, needed)
    position, by_sky = (sky, True) if x is None or y is None else ((x, y), False)
    return source, frame, locate(root, frame, mosaic, bands, position=position, sky=by_sky, side=side, source=source)


def _read_rows(root: Path, table: str, id: str, where: str | None, needed: Sequence[str]) -> tuple[Path, pd.DataFrame]:
    """Read the chosen rows of a table, their ids as integers or text."""
    source = find_table(root, table, ())
    frame = read_table(source, ids=(id,))
    find_column(frame, id, source)
    frame = select(frame.assign(**{id: id_column(frame, id, source)}), where, source)
    refuse_absent(frame, needed, source)
    return source, frame


def without_bad(
    frame: pd.DataFrame, id: str, places: Sequence[Place], source: Path, on_bad: str
) -> tuple[pd.DataFrame, list[Place], list[tuple[str, str]]]:
    """Leave out objects that cannot be read, and say of each why; refuse them where ``on_bad`` is "fail"."""
    good = np.array([place.problem is None for place in places], dtype=bool)
    skipped = [(str(key), place.problem) for key, place in zip(frame[id], places, strict=True) if place.problem]
    if skipped and (on_bad == "fail" or not good.any()):
        message = f"{len(skipped)} objects cannot be read, the first is '{skipped[0][0]}': {skipped[0][1]}"
        raise DataError(message, where=source, remedy="Set on_bad: skip to go on without such rows")
    return frame[good], [place for place in places if place.problem is None], skipped

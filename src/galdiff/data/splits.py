"""Splits that never move: a row's split is a function of its id, of its place on the sky, or of a column alone."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pandas as pd

from galdiff.data.sky import nearest, sky_positions
from galdiff.data.tables import find_column
from galdiff.errors import DataError

__all__ = [
    "DROPPED",
    "SPELLINGS",
    "SPLITS",
    "near_held_out",
    "sky_cells",
    "split_by_column",
    "split_by_hash",
    "split_rows",
]

SPLITS = ("train", "validation", "test")
DROPPED = "dropped"
"""The split of training rows that are too close to held-out ones; no stage uses it."""
SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What columns and folders call the splits."""


def split_by_hash(ids: np.ndarray, train: float = 0.8, validation: float = 0.1, test: float = 0.1) -> np.ndarray:
    """Assign rows to splits by the SHA-256 of their ids.

    Parameters
    ----------
    ids : numpy.ndarray
        int64 or str ``(n,)``.
    train, validation, test : float
        Shares; they sum to one.

    Returns
    -------
    numpy.ndarray
        str ``(n,)``: "train", "validation" or "test". Adding, removing or shuffling rows moves no row.

    Raises
    ------
    DataError
        Where the shares do not sum to one or are negative.
    """
    if min(train, validation, test) < 0 or abs(train + validation + test - 1) > 1e-6:
        raise DataError(f"split shares {train:g}, {validation:g}, {test:g} do not sum to one")
    digests = (hashlib.sha256(str(i).encode()).digest() for i in np.asarray(ids).tolist())
    u = np.fromiter((int.from_bytes(d[:8], "big") / 2**64 for d in digests), float, count=len(ids))
    return np.array(SPLITS)[np.digitize(u, [train, train + validation])]


def sky_cells(positions: np.ndarray, cell: float) -> np.ndarray:
    """Return the HEALPix cells (nested order; Górski et al. 2005, ApJ 622, 759) of positions.

    Parameters
    ----------
    positions : numpy.ndarray
        Degrees ``(n, 2)``.
    cell : float
        Wanted side of a cell [deg]; the nearest that a power of two gives is taken: 58.6 / nside.

    Returns
    -------
    numpy.ndarray
        int64 ``(n,)``.
    """
    from astropy import units
    from astropy_healpix import lonlat_to_healpix

    level = round(math.log2(math.degrees(math.sqrt(math.pi / 3)) / cell))
    longitude, latitude = positions.T * units.deg
    return np.asarray(lonlat_to_healpix(longitude, latitude, 2 ** min(max(level, 0), 29), order="nested"))


def split_by_column(ids: np.ndarray, values: pd.Series) -> np.ndarray:
    """Read splits from a column of train, val (or validation) and test.

    Parameters
    ----------
    ids : numpy.ndarray
        int64 or str ``(n,)``.
    values : pandas.Series
        The column ``(n,)``.

    Returns
    -------
    numpy.ndarray
        str ``(n,)``.

    Raises
    ------
    DataError
        For any other value, with its object.
    """
    text = values.astype(object).map(lambda value: str(value).strip().lower())
    splits = text.map(SPELLINGS)
    if splits.isna().any():
        row = int(splits.isna().to_numpy().argmax())
        raise DataError(
            f"object {ids[row]}: '{values.iloc[row]}' in column '{values.name}' is no split",
            where="split",
            remedy=f"Known: {', '.join(SPELLINGS)}",
        )
    return splits.to_numpy(dtype=str)


def near_held_out(positions: np.ndarray, split: np.ndarray, separation: float) -> np.ndarray:
    """Find the training rows with a held-out row closer by: cells and fields have edges, and neighbors leak over them.

    Parameters
    ----------
    positions : numpy.ndarray
        Degrees ``(n, 2)``.
    split : numpy.ndarray
        str ``(n,)``.
    separation : float
        Arcseconds.

    Returns
    -------
    numpy.ndarray
        bool ``(n,)``.
    """
    train, held_out = split == "train", np.isin(split, SPLITS[1:])
    near = np.zeros(len(split), bool)
    near[train] = nearest(positions[train], positions[held_out], separation) >= 0
    return near


def split_rows(
    ids: np.ndarray,
    table: pd.DataFrame,
    *,
    by: str = "hash",
    train: float = 0.8,
    validation: float = 0.1,
    test: float = 0.1,
    column: str = "split",
    cell: float = 1.0,
    separation: float = 0.0,
    ra: str | None = None,
    dec: str | None = None,
) -> np.ndarray:
    """Assign the rows of a catalog to splits.

    Parameters
    ----------
    ids : numpy.ndarray
        int64 or str ``(n,)``.
    table : pandas.DataFrame
        The catalog, aligned with the ids.
    by : {"hash", "sky", "column"}
        By the hash of the id (`split_by_hash`), by the hash of the sky cell that an object is in, which keeps neighbors
        together, or as a column says (`split_by_column`).
    train, validation, test : float
        Shares, of objects or of cells.
    column : str
        Of the splits.
    cell : float
        Side of a cell [deg], see `sky_cells`.
    separation : float
        Training rows closer to a held-out row than this [arcsec] are "dropped"; 0 drops none.
    ra, dec : str, optional
        Columns of positions [deg]; by default ``ra`` and ``dec`` in any case.

    Returns
    -------
    numpy.ndarray
        str ``(n,)``: "train", "validation", "test" or "dropped".

    Raises
    ------
    DataError
        Where a column is missing, or a row has no place on the sky and needs one.
    """
    shares = (train, validation, test)
    positions = sky_positions(table, ra, dec) if by == "sky" or separation else np.empty((len(ids), 2))
    if by == "hash":
        split = split_by_hash(ids, *shares)
    elif by == "sky":
        lost = np.isnan(positions[:, 0])
        if lost.any():
            raise DataError(f"{lost.sum()} rows have no place on the sky, the first is {ids[lost][0]}", where="split")
        split = split_by_hash(sky_cells(positions, cell), *shares)
    elif by == "column":
        split = split_by_column(ids, table[find_column(table, column, "split")])
    else:
        raise DataError(f"nothing splits by '{by}'", where="split", remedy="Known: hash, sky, column")
    return np.where(near_held_out(positions, split, separation), DROPPED, split) if separation else split

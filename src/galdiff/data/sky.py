r"""Positions on the sky: which columns hold them, and which are close.

Neighbors are found among unit vectors in a k-d tree: an angle :math:`\theta` is a chord of :math:`2 \sin(\theta / 2)`,
so poles and the meridian are places like any other.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from galdiff.errors import DataError

__all__ = ["find_positions", "nearest", "sky_positions"]


def find_positions(table: pd.DataFrame, ra: str | None = None, dec: str | None = None) -> tuple[str, str] | None:
    """Return the names of the columns of right ascension and declination, or None where there are none.

    Parameters
    ----------
    table : pandas.DataFrame
        The catalog.
    ra, dec : str, optional
        Their names; by default ``ra`` and ``dec`` in any case.
    """
    known = {str(name).lower(): str(name) for name in reversed(table.columns)}
    found = [name if name in table.columns else None for name in (ra, dec)] if ra or dec else []
    found = found or [known.get("ra"), known.get("dec")]
    return None if None in found else (str(found[0]), str(found[1]))


def sky_positions(table: pd.DataFrame, ra: str | None = None, dec: str | None = None) -> np.ndarray:
    """Return right ascension and declination of every row, float64 ``(n, 2)`` [deg]; NaN where unknown.

    Raises
    ------
    DataError
        Where there are no such columns, or they do not hold degrees.
    """
    names = find_positions(table, ra, dec)
    if names is None:
        remedy = f"Name them with ra and dec; the table has: {', '.join(map(str, table.columns[:12]))}"
        raise DataError(f"there are no columns '{ra or 'ra'}' and '{dec or 'dec'}'", where="split", remedy=remedy)
    columns = table[list(names)]
    if not all(map(pd.api.types.is_numeric_dtype, columns.dtypes)):
        raise DataError(f"columns {' and '.join(names)} do not hold degrees", where="split")
    degrees = columns.to_numpy(np.float64, na_value=np.nan)
    wrong = (degrees[:, 0] < 0) | (degrees[:, 0] > 360) | (np.abs(degrees[:, 1]) > 90)
    if wrong.any():
        row = int(wrong.argmax())
        place = f"({degrees[row, 0]:g}, {degrees[row, 1]:g})"
        raise DataError(f"{place} in columns {' and '.join(names)} is no place on the sky, in degrees", where="split")
    return np.where(np.isfinite(degrees).all(axis=1, keepdims=True), degrees, np.nan)


def nearest(positions: np.ndarray, among: np.ndarray | None, separation: float) -> np.ndarray:
    """Find for every position the nearest of others, if it is close.

    Parameters
    ----------
    positions : numpy.ndarray
        Degrees ``(n, 2)``; unknown ones are close to nothing.
    among : numpy.ndarray, optional
        Degrees ``(m, 2)``; None looks among the positions themselves for another one.
    separation : float
        Largest distance [arcsec].

    Returns
    -------
    numpy.ndarray
        int64 ``(n,)`` rows of ``among``, or -1.
    """
    from scipy.spatial import cKDTree

    rows, others = (
        np.flatnonzero(np.isfinite(p).all(axis=1)) for p in (positions, positions if among is None else among)
    )
    found = np.full(len(positions), -1)
    if not len(rows) or not len(others):
        return found
    chord = 2 * np.sin(np.radians(separation / 3600) / 2)
    tree = cKDTree(_vectors((positions if among is None else among)[others]))
    ranks = [1, 2] if among is None else [1]
    _, index = tree.query(_vectors(positions[rows]), k=ranks, distance_upper_bound=np.nextafter(chord, np.inf))
    hits = np.append(others, -1)[index]  # what has no neighbor points behind the last
    # Of two at the same place either may come first.
    found[rows] = hits[:, 0] if among is not None else np.where(hits[:, 0] == rows, hits[:, 1], hits[:, 0])
    return found


def _vectors(degrees: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(degrees.T)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)

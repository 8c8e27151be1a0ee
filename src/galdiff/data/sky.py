r"""Positions on the sky: which columns hold them, and which are close.

Neighbors are found among unit vectors in a k-d tree: an angle :math:`\theta` is a chord of :math:`2 \sin(\theta / 2)`,
so poles and the meridian are places like any other.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from galdiff.errors import DataError

__all__ = ["close_pairs", "find_positions", "nearest", "sky_positions"]


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


def nearest(positions: np.ndarray, among: np.ndarray, separation: float) -> np.ndarray:
    """Find for every position the nearest of others, if it is close.

    Parameters
    ----------
    positions, among : numpy.ndarray
        Degrees ``(n, 2)``, ``(m, 2)``; unknown ones are close to nothing.
    separation : float
        Largest distance [arcsec].

    Returns
    -------
    numpy.ndarray
        int64 ``(n,)`` rows of ``among``, of some at one place the first, or -1.
    """
    known, (places, _) = np.isfinite(positions).all(axis=1), _places(among)
    found = np.full(len(positions), -1)
    found[known] = _query(positions[known], among[places], separation, 1)[:, 0]
    return np.append(places, -1)[found]


def close_pairs(positions: np.ndarray, separation: float) -> np.ndarray:
    """Pair rows that are close: every row with the first at its place, and every place with the nearest other one.

    Parameters
    ----------
    positions : numpy.ndarray
        Degrees ``(n, 2)``; unknown ones are close to nothing.
    separation : float
        Largest distance [arcsec].

    Returns
    -------
    numpy.ndarray
        int64 ``(k, 2)``, the later row of a pair first.
    """
    places, same = _places(positions)
    near = _query(positions[places], positions[places], separation, 2)
    # Of two places that differ by a rounding error either may come first.
    other = np.where(near[:, 0] == np.arange(len(places)), near[:, 1], near[:, 0])
    pairs = np.stack([places, np.append(places, -1)[other]], axis=1)[other >= 0]
    return np.concatenate([same, np.unique(np.sort(pairs, axis=1)[:, ::-1], axis=0)])


def _places(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row at every known place, and the pairs of later rows with them.

    A tree cannot part what is at one place, such as the origin that stands for unknown in some catalogs.
    """
    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    _, first, inverse = np.unique(positions[known] @ np.array([1, 1j]), return_index=True, return_inverse=True)
    pairs = np.stack([known, known[first[inverse]]], axis=1)
    return known[first], pairs[pairs[:, 0] != pairs[:, 1]]


def _query(positions: np.ndarray, places: np.ndarray, separation: float, number: int) -> np.ndarray:
    """Return the nearest so many places of every position, int64 ``(n, number)``, -1 where they are not close."""
    from scipy.spatial import cKDTree

    if not len(positions) or not len(places):
        return np.full((len(positions), number), -1)
    chord = 2 * np.sin(np.radians(separation / 3600) / 2)
    tree = cKDTree(_vectors(places))
    _, index = tree.query(_vectors(positions), k=range(1, number + 1), distance_upper_bound=np.nextafter(chord, np.inf))
    return np.where(index == len(places), -1, index)


def _vectors(degrees: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(degrees.T)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)

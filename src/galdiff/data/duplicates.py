"""Rows that are there twice: by id, by content, and by place on the sky.

A held-out row whose twin is trained on is no test of anything. Work is bounded: rows with files of their own are
compared where the files have one size, first by a kilobyte from the middle and only then by SHA-256; of rows without,
the first so many are loaded; on the sky, every row looks for its nearest neighbor alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from galdiff.data.dataset import CutoutDataset
from galdiff.data.sky import close_pairs, find_positions, nearest, sky_positions
from galdiff.data.splits import SPLITS
from galdiff.errors import DataError

__all__ = ["LOADED", "SAME_PLACE", "Duplicates", "find_duplicates"]

SAME_PLACE = 1.0
"""Rows closer than this are the same object [arcsec]."""
LOADED = 20_000
"""So many rows without files of their own are compared by content."""
_PROBE = 1024
_SHOWN = 3


@dataclass(frozen=True)
class Duplicates:
    """Pairs of rows that are the same by one criterion.

    Attributes
    ----------
    by : str
        "id", "content" or "place on the sky".
    leaks : numpy.ndarray
        int64 ``(k, 2)``: every held-out row that has a twin in the training split, with the first or nearest such twin.
    others : numpy.ndarray
        int64 ``(m, 2)``: pairs in one split, or in two of which none is trained on.
    """

    by: str
    leaks: np.ndarray
    others: np.ndarray

    def describe(self, pairs: np.ndarray, ids: np.ndarray, split: np.ndarray) -> str:
        """Name the first few of some pairs, with their splits."""
        shown = [" = ".join(f"{ids[row]} ({split[row]})" for row in pair) for pair in pairs[:_SHOWN]]
        return ", ".join(shown) + (", …" if len(pairs) > _SHOWN else "")


def find_duplicates(
    dataset: CutoutDataset, split: np.ndarray, *, ra: str | None = None, dec: str | None = None
) -> list[Duplicates]:
    """Find rows that are there twice.

    Parameters
    ----------
    dataset : CutoutDataset
        The data.
    split : numpy.ndarray
        str ``(n,)``: the rows' splits; those in none of train, validation and test are left out.
    ra, dec : str, optional
        Columns of positions [deg]; by default ``ra`` and ``dec`` in any case, if they are there.

    Returns
    -------
    list of Duplicates
        One a criterion that found any.
    """
    found = [_by_key("id", pd.Series(dataset.ids), split), _by_key("content", _contents(dataset), split)]
    if find_positions(dataset.table, ra, dec) is not None:
        found.append(_by_place(sky_positions(dataset.table, ra, dec), split))
    return [duplicates for duplicates in found if len(duplicates.leaks) + len(duplicates.others)]


def _by_key(by: str, keys: pd.Series, split: np.ndarray) -> Duplicates:
    """Pair every row with the first of its key, training rows first; rows without a key have no twin."""
    rows = _repeated(keys[np.isin(split[keys.index], SPLITS)])
    rows = rows.iloc[np.argsort(split[rows.index] != "train", kind="stable")]
    first = rows.drop_duplicates()
    twins = rows.map(pd.Series(first.index, index=first.array))
    twins = twins[twins != twins.index]
    return _sorted(by, twins.index.to_numpy(), twins.to_numpy(np.int64), split)


def _by_place(positions: np.ndarray, split: np.ndarray) -> Duplicates:
    train, held_out = np.flatnonzero(split == "train"), np.flatnonzero(np.isin(split, SPLITS[1:]))
    twin = nearest(positions[held_out], positions[train], SAME_PLACE)
    pairs = [np.stack([held_out, train[twin]], axis=1)[twin >= 0]] if len(train) else []
    pairs += [rows[close_pairs(positions[rows], SAME_PLACE)] for rows in (train, held_out)]
    rows, twins = np.concatenate(pairs).T
    return _sorted("place on the sky", rows, twins, split)


def _sorted(by: str, rows: np.ndarray, twins: np.ndarray, split: np.ndarray) -> Duplicates:
    leak = (split[rows] != "train") & (split[twins] == "train")
    pairs = np.stack([rows, twins], axis=1)
    return Duplicates(by, pairs[leak], pairs[~leak])


def _contents(dataset: CutoutDataset) -> pd.Series:
    """Return the content hash of the rows that another row may equal, by row; None where it cannot be read."""
    sources = [dataset.source(i) for i in range(len(dataset))]
    filed = {i: path for i, path in enumerate(sources) if path is not None}
    # Of many images most share their size with another, but next to none the bytes in its middle.
    sizes = _repeated(pd.Series({i: _tried(_size, path) for i, path in filed.items()}, dtype=object))
    probes = _repeated(pd.Series({i: _tried(_probe, filed[i], size) for i, size in sizes.items()}, dtype=object))
    rows = [*probes.index, *[i for i, path in enumerate(sources) if path is None][:LOADED]]
    return pd.Series({i: _tried(dataset.content_hash, i) for i in rows}, dtype=object)


def _repeated(keys: pd.Series) -> pd.Series:
    keys = keys.dropna()
    return keys[keys.duplicated(keep=False)]


def _tried(look: Callable[..., Hashable], *arguments: Any) -> Hashable:
    try:
        return look(*arguments)
    except (DataError, OSError):
        return None  # a bad file is reported as one, elsewhere


def _size(path: Path) -> int:
    return path.stat().st_size


def _probe(path: Path, size: int) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        file.seek(max(0, (size - _PROBE) // 2))
        return size, file.read(_PROBE)

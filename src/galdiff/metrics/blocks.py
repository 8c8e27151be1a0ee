"""Rows of an array that may be larger than memory, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from galdiff.errors import DataError

__all__ = ["Blocks"]


class Blocks:
    """Some rows of an array, a Zarr or Dask array, or a store of cutouts, read in their order and flat memory.

    Parameters
    ----------
    source : array_like or store
        Anything with a ``shape`` and slices along its first axis, or with a length and ``images(rows)``, such as
        `galdiff.latents.CutoutStore`.
    rows : array_like of int, optional
        Which; all by default.
    size : int
        Rows of the source in a block.
    """

    def __init__(self, source: Any, rows: Any = None, *, size: int = 1024) -> None:
        self._source = source
        self._reads = hasattr(source, "images")
        if not self._reads and not hasattr(source, "shape"):
            self._source = source = np.asarray(source)
        every = len(source) if self._reads else (source.shape[0] if len(source.shape) else 0)
        self.rows = np.arange(every) if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
        if len(self.rows) and (self.rows[0] < 0 or self.rows[-1] >= every):
            raise DataError(f"rows {self.rows[0]} to {self.rows[-1]} are asked for of {every}")
        self._starts = np.unique(self.rows // size) * size
        self._size = size

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield row numbers and values."""
        return (self._read(start) for start in self._starts)

    def sample(self, count: int) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield as many blocks, or all, evenly over the source."""
        chosen = np.unique(np.linspace(0, len(self._starts) - 1, min(count, len(self._starts))).round().astype(int))
        return (self._read(start) for start in self._starts[chosen])

    def _read(self, start: int) -> tuple[np.ndarray, Any]:
        first, last = np.searchsorted(self.rows, [start, start + self._size])
        rows = self.rows[first:last]
        if self._reads:
            return rows, self._source.images(rows)
        values = self._source[rows[0] : rows[-1] + 1]
        return rows, values if len(values) == len(rows) else values[rows - rows[0]]

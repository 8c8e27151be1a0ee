"""The cutout cache: every image decoded, cropped and resized once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from galdiff.errors import StoreError
from galdiff.latents.layout import Layout
from galdiff.latents.place import Target
from galdiff.latents.rows import RowStore
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["SKIPPED", "CutoutStore"]

SKIPPED = "skipped"
"""The split of rows whose file could not be read; no stage trains on or compares with it."""

_CHUNK_BYTES = 1_000_000
_CHUNKS_A_SHARD = 16


class CutoutStore(RowStore):
    """Pixel values ``image (sample, band, y, x)`` with ids, split and conditions, and where they are valid."""

    KIND = "cutouts"
    ARRAYS = ("image", "mask")

    @classmethod
    def create(
        cls,
        path: Target,
        *,
        shape: Sequence[int],
        bands: Sequence[str],
        dtype: str,
        ids: np.ndarray,
        split: np.ndarray,
        conditions: Conditions,
        schema: ConditionSchema,
        masks: bool = False,
        attrs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a store, or go on with the one that is here, of the same rows and attributes.

        One that is `complete` is open for reading.

        Parameters
        ----------
        path : path-like or zarr.abc.store.Store
            The group's folder, a URL, or a Zarr store.
        shape : sequence of int
            ``(band, y, x)``.
        bands : sequence of str
            Names of the bands.
        dtype : str
            "float16" for images of 8 bits, else "float32".
        ids, split, conditions, schema
            The rows.
        masks : bool
            Keep an array ``mask (sample, band, y, x)`` too, 1 where a pixel is valid.
        attrs : mapping, optional
            JSON.

        Raises
        ------
        StoreError
            Where another store is there, or another writer is at it.
        """
        chunk = max(1, _CHUNK_BYTES // (math.prod(shape) * np.dtype(dtype).itemsize))
        row, dims = tuple(shape), ("band", "y", "x")
        layouts = {"image": Layout(row, dtype, dims, chunk, _CHUNKS_A_SHARD * chunk)}
        if masks:
            layouts["mask"] = layouts["image"]._replace(dtype="uint8")
        return cls._create(
            path,
            arrays=layouts,
            ids=ids,
            split=split,
            conditions=conditions,
            schema=schema,
            attrs={**(attrs or {}), "bands": list(bands)},
        )

    def write_shard(self, k: int, image: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Write a shard whole, then its journal entry; refuses values that are not finite.

        ``mask`` is bool ``(len, band, y, x)``, True where a pixel is valid: of a store made with ``masks``; there, all
        pixels by default.
        """
        if mask is not None and "mask" not in self.arrays:
            raise StoreError("this store keeps no masks", where=self.place, remedy="Make it with masks=True")
        whole = np.ones(image.shape, bool) if mask is None else np.asarray(mask, bool)
        self._write_shard(k, image=image, mask=whole)

    def finish(self, *, skipped: Sequence[int] = ()) -> None:
        """Verify every shard and mark the store complete; ``skipped`` rows leave their split."""
        if len(skipped):
            split = self.split.astype(object)  # text of fixed width would cut the word
            split[list(skipped)] = SKIPPED
            self.array("split")[:] = split
            del self.split  # read again when it is asked for
        self._finish(skipped=len(skipped))

    def images(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Read pixel values ``(len(rows), band, y, x)`` in the stored type; all rows by default."""
        return self.read("image", rows)

    def masks(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Read where pixels are valid, bool ``(len(rows), band, y, x)``; everywhere in a store without masks."""
        if "mask" in self.arrays:
            return self.read("mask", rows).astype(bool)
        n = len(self) if rows is None else len(rows)
        return np.ones((n, *self.array("image").shape[1:]), bool)

"""The cutout cache: every image decoded, cropped and resized once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from galdiff.latents.rows import RowStore
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["CutoutStore"]

_CHUNK_BYTES = 1_000_000
_CHUNKS_A_SHARD = 16


class CutoutStore(RowStore):
    """Pixel values ``image (sample, band, y, x)`` with ids, split and conditions."""

    KIND = "cutouts"
    ARRAYS = ("image",)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        shape: Sequence[int],
        bands: Sequence[str],
        dtype: str,
        ids: np.ndarray,
        split: np.ndarray,
        conditions: Conditions,
        schema: ConditionSchema,
        attrs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a store, or go on with an unfinished one of the same rows and attributes.

        Parameters
        ----------
        path : Path
            The group's folder.
        shape : sequence of int
            ``(band, y, x)``.
        bands : sequence of str
            Names of the bands.
        dtype : str
            "float16" for images of 8 bits, else "float32".
        ids, split, conditions, schema
            The rows.
        attrs : mapping, optional
            JSON.

        Raises
        ------
        StoreError
            Where another store is there, or another writer is at it.
        """
        chunk = max(1, _CHUNK_BYTES // (math.prod(shape) * np.dtype(dtype).itemsize))
        layout = (tuple(shape), dtype, ("band", "y", "x"), (chunk, _CHUNKS_A_SHARD * chunk))
        described = {**(attrs or {}), "bands": list(bands)}
        return cls._create(
            path,
            arrays={"image": layout},
            ids=ids,
            split=split,
            conditions=conditions,
            schema=schema,
            attrs=described,
        )

    def write_shard(self, k: int, image: np.ndarray) -> None:
        """Write a shard whole, then its journal line; refuses values that are not finite."""
        self._write_shard(k, image=image)

    def finish(self, *, skipped: Sequence[int] = ()) -> None:
        """Verify every shard and mark the store complete; ``skipped`` rows leave their split."""
        if len(skipped):
            split = self.split.astype(object)  # text of fixed width would cut the word
            split[list(skipped)] = "skipped"
            self.group["split"][:] = split  # type: ignore[index]
            self.split = split.astype(str)
        self._finish(skipped=len(skipped))

    def images(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Read pixel values ``(len(rows), band, y, x)`` in the stored type; all rows by default."""
        return self.read("image", rows)

"""How the arrays of a store lie: in shards of chunks of whole rows, every chunk with a checksum.

The fill value, which Zarr gives for a chunk that is lost, is one that is never written (NaN, or 255 where there are
only 0 and 1), so that what is lost cannot look like what was stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import zarr
import zarr.codecs

__all__ = ["Layout", "lost_values"]


class Layout(NamedTuple):
    """How an array lies: shape of a row, type, names of the row's dimensions, rows of a chunk and of a shard."""

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    chunk: int
    shard: int

    def create(self, group: zarr.Group, name: str, rows: int) -> None:
        """Make an array of so many rows in a group."""
        group.create_array(
            name,
            shape=(rows, *self.shape),
            chunks=(self.chunk, *self.shape),
            shards=(self.shard, *self.shape),
            dtype=self.dtype,
            fill_value=255 if self.dtype == "uint8" else float("nan"),
            compressors=zarr.codecs.Crc32cCodec(),
            serializer=zarr.codecs.BytesCodec(),
            filters=None,
            dimension_names=("sample", *self.dims),
        )


def lost_values(values: np.ndarray) -> bool:
    """Whether a chunk of these rows is lost; its first value in a row tells, since chunks are of whole rows."""
    probe = values.reshape(len(values), -1)[:, 0]
    return bool(not np.isfinite(probe).all() or (probe.dtype == np.uint8 and probe.max(initial=0) > 1))

r"""The latent store: posteriors of every cutout, with statistics and the hash of their autoencoder.

The channel statistics are those of *sampled* latents of the training split,

.. math:: \mathrm{Var}[z] = \mathrm{Var}[\mu] + \mathrm{E}[e^{\log \sigma^2}],

summed in float64 shard by shard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from galdiff.errors import StoreError
from galdiff.latents.layout import Layout
from galdiff.latents.place import Target
from galdiff.latents.readers import LatentBlocks, LatentTable, choose_reader, split_counts
from galdiff.latents.rows import RowStore
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["LatentStore"]

_CHUNK, _SHARDS = 256, (4096, 1024)
_SHARD_BYTES = 32 * 2**20


class LatentStore(RowStore):
    """Latent posteriors ``mean`` and ``log_var`` ``(sample, channel, y, x)`` with ids, split and conditions.

    With eight views they are ``(sample, view, channel, y, x)``: view e is the latent of the image turned by element e
    of the dihedral group (`galdiff.nn.dihedral`).
    """

    KIND = "latents"
    ARRAYS = ("mean", "log_var")

    @classmethod
    def create(
        cls,
        path: Target,
        *,
        shape: Sequence[int],
        ids: np.ndarray,
        split: np.ndarray,
        conditions: Conditions,
        schema: ConditionSchema,
        views: int = 1,
        attrs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a store, or go on with the one that is here, of the same rows and attributes.

        One that is `complete` is open for reading.

        Parameters
        ----------
        path : path-like or zarr.abc.store.Store
            The group's folder, a URL, or a Zarr store.
        shape : sequence of int
            ``(channel, y, x)``.
        ids, split, conditions, schema
            The rows.
        views : int
            1, or 8 with an axis of views.
        attrs : mapping, optional
            JSON; ``autoencoder`` with its ``sha256`` belongs here.

        Raises
        ------
        StoreError
            Where another store is there, or another writer is at it.
        """
        row: tuple[int, ...] = tuple(shape)
        dims: tuple[str, ...] = ("channel", "y", "x")
        if views > 1:
            row, dims = (views, *row), ("view", *dims)
        shard = _SHARDS[_SHARDS[0] * math.prod(row) * 2 > _SHARD_BYTES]
        arrays = dict.fromkeys(cls.ARRAYS, Layout(row, "float16", dims, _CHUNK, shard))
        return cls._create(
            path, arrays=arrays, ids=ids, split=split, conditions=conditions, schema=schema, attrs=attrs or {}
        )

    @property
    def views(self) -> int:
        """Views of every image, 1 or 8."""
        array = self.array("mean")
        return int(array.shape[1]) if array.ndim == 5 else 1

    def write_shard(self, k: int, *, mean: np.ndarray, log_var: np.ndarray) -> None:
        """Write a shard whole, then its journal entry; refuses values that are not finite in float16."""
        self._write_shard(k, mean=mean, log_var=log_var)

    def finish(self) -> None:
        """Verify every shard, measure the channel statistics and mark the store complete."""
        count, total, square, variance = 0, 0.0, 0.0, 0.0
        for k in range(self.shards):
            part = self.shard_rows(k)
            chosen = self.column("split", part) == "train"
            mean, log_var = (self.read_slice(name, part)[chosen].astype(np.float64) for name in self.ARRAYS)
            mean, log_var = (np.moveaxis(x, -3, 0).reshape(x.shape[-3], -1) for x in (mean, log_var))
            count += mean[0].size
            total = total + mean.sum(axis=1)
            square = square + (mean**2).sum(axis=1)
            variance = variance + np.exp(log_var).sum(axis=1)
        if not count:
            raise StoreError("the training split is empty", where=self.place)
        center = np.asarray(total) / count
        spread = np.asarray(square) / count - center**2 + np.asarray(variance) / count
        self._finish(channel_mean=center.tolist(), channel_std=np.sqrt(spread).tolist())

    def memory(self, split: str, device: torch.device | str = "cpu") -> LatentTable:
        """Read a split whole onto a device."""
        rows = self.rows(split)
        mean, log_var = (torch.from_numpy(self.read(name, rows)).to(device) for name in self.ARRAYS)
        return LatentTable(mean, log_var, self.conditions()[torch.from_numpy(rows)].to(device), rows)

    def reader(
        self, split: str, device: torch.device | str = "cpu", *, reader: str = "auto"
    ) -> LatentTable | LatentBlocks:
        """Return what gives a split's batches as tensors on a device.

        Parameters
        ----------
        split : str
            Which rows.
        device : torch.device or str
            Where batches are wanted.
        reader : {"auto", "resident", "device", "memory", "blocks"}
            The split on the device, in memory, or in the store, of which a few blocks at a time are in memory; by
            default the first that fits (`galdiff.latents.readers.choose_reader`); "resident": the first of the first
            two, which share an order of the rows.
        """
        device = torch.device(device)
        if reader in ("auto", "resident"):
            resident = reader == "resident"
            row = sum(self.array(name).nbytes for name in self.ARRAYS) // max(1, len(self))
            reader = choose_reader(row * int(split_counts(self, split).sum()), device)
            reader = "memory" if resident and reader == "blocks" else reader
        if reader == "blocks":
            return LatentBlocks(self, split, device)
        return self.memory(split, device if reader == "device" else "cpu").on(device)

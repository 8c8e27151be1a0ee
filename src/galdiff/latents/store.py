r"""The latent store: posteriors of every cutout, with statistics and the hash of their autoencoder.

The channel statistics are those of *sampled* latents of the training split,

.. math:: \mathrm{Var}[z] = \mathrm{Var}[\mu] + \mathrm{E}[e^{\log \sigma^2}],

summed in float64 shard by shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import StoreError
from galdiff.latents.rows import RowStore
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["LatentStore", "LatentTable"]

_CHUNK, _SHARD = 256, 4096


@dataclass(frozen=True)
class LatentTable:
    """A split in memory: float16 ``mean`` and ``log_var`` ``(n, channel, y, x)``, conditions and row numbers."""

    mean: Tensor
    log_var: Tensor
    conditions: Conditions
    rows: np.ndarray


class LatentStore(RowStore):
    """Latent posteriors ``mean`` and ``log_var`` ``(sample, channel, y, x)`` with ids, split and conditions."""

    KIND = "latents"
    ARRAYS = ("mean", "log_var")

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        shape: Sequence[int],
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
            ``(channel, y, x)``.
        ids, split, conditions, schema
            The rows.
        attrs : mapping, optional
            JSON; ``autoencoder`` with its ``sha256`` belongs here.

        Raises
        ------
        StoreError
            Where another store is there, or another writer is at it.
        """
        layout = (tuple(shape), "float16", ("channel", "y", "x"), (_CHUNK, _SHARD))
        arrays = dict.fromkeys(cls.ARRAYS, layout)
        return cls._create(
            path, arrays=arrays, ids=ids, split=split, conditions=conditions, schema=schema, attrs=attrs or {}
        )

    def write_shard(self, k: int, *, mean: np.ndarray, log_var: np.ndarray) -> None:
        """Write a shard whole, then its journal line; refuses values that are not finite in float16."""
        self._write_shard(k, mean=mean, log_var=log_var)

    def finish(self) -> None:
        """Verify every shard, measure the channel statistics and mark the store complete."""
        count, total, square, variance = 0, 0.0, 0.0, 0.0
        for k in range(self.shards):
            part = self.shard_rows(k)
            chosen = self.split[part] == "train"
            mean = self._read_shard("mean", k)[chosen].astype(np.float64)
            log_var = self._read_shard("log_var", k)[chosen].astype(np.float64)
            count += mean[:, 0].size
            total = total + mean.sum(axis=(0, 2, 3))
            square = square + (mean**2).sum(axis=(0, 2, 3))
            variance = variance + np.exp(log_var).sum(axis=(0, 2, 3))
        if not count:
            raise StoreError("the training split is empty", where=self.path)
        center = np.asarray(total) / count
        spread = np.asarray(square) / count - center**2 + np.asarray(variance) / count
        self._finish(channel_mean=center.tolist(), channel_std=np.sqrt(spread).tolist())

    def memory(self, split: str, device: torch.device | str = "cpu") -> LatentTable:
        """Read a split whole onto a device."""
        rows = self.rows(split)
        mean, log_var = (torch.from_numpy(self.read(name, rows)).to(device) for name in self.ARRAYS)
        return LatentTable(mean, log_var, self.conditions()[torch.from_numpy(rows)].to(device), rows)

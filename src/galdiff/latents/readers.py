r"""Readers: batches of a split of the latents, as tensors on a device, from wherever they fit.

A `LatentTable` holds the split whole, on the device or in the machine's memory, and shows it in an order drawn from
all permutations. `LatentBlocks` leaves it in the store. There, epoch e is a permutation :math:`\pi_e` of the blocks of
`RUN` rows, cut into groups of G; rows are permuted within a group, and while one group is used the next is read in a
thread. Memory is that of three groups, however many rows there are: ids, split and conditions are read block by block
too. Both orders are functions of (seed, epoch), so that a resumed run sees the rows it would have seen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from galdiff.latents.columns import RUN
from galdiff.memory import machine_memory
from galdiff.randomness import permutation
from galdiff.schema.conditions import Conditions

if TYPE_CHECKING:
    from galdiff.latents.store import LatentStore

__all__ = ["BlockOrder", "LatentBatch", "LatentBlocks", "LatentTable", "SplitIds", "choose_reader", "split_counts"]

_DEVICE_SHARE, _MEMORY_SHARE = 0.25, 0.4
_GROUP_BYTES, _GROUP_BLOCKS = 32 * 2**20, (2, 8)
_GROUPS = 3
"""In memory: the one in use, the one that is read ahead, and where an epoch ends within a batch, the one before."""


@dataclass(frozen=True)
class LatentBatch:
    """Float16 ``mean`` and ``log_var`` ``(batch, channel, y, x)`` with their conditions."""

    mean: Tensor
    log_var: Tensor
    conditions: Conditions

    def to(self, device: torch.device) -> LatentBatch:
        """Move it to a device."""
        if self.mean.device.type == device.type:
            return self
        mean, log_var = (x.to(device, non_blocking=True) for x in (self.mean, self.log_var))
        return LatentBatch(mean, log_var, self.conditions.to(device))


@dataclass(frozen=True)
class LatentTable:
    """A split in memory.

    Attributes
    ----------
    mean, log_var : Tensor
        float16 ``(n, channel, y, x)``, or ``(n, view, channel, y, x)``.
    conditions : Conditions
        Of all rows.
    rows : numpy.ndarray
        Row numbers in the store, ascending.
    device : torch.device, optional
        Where batches are wanted; by default where the tensors are.
    """

    mean: Tensor
    log_var: Tensor
    conditions: Conditions
    rows: np.ndarray
    device: torch.device | None = None

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def views(self) -> int:
        """Views of every image, 1 or 8."""
        return self.mean.shape[1] if self.mean.ndim == 5 else 1

    def on(self, device: torch.device) -> LatentTable:
        """Return the same table, with batches on another device."""
        return replace(self, device=device)

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the order of the rows in an epoch, int64 ``(n,)``."""
        return torch.from_numpy(permutation(seed, epoch, len(self)))

    def take(self, rows: Tensor, view: Tensor | None = None) -> LatentBatch:
        """Return rows (int64 ``(batch,)``, 0 to n - 1), of each its view (int64 ``(batch,)``) or else the first."""
        here = self.mean.device
        rows = rows.to(here, non_blocking=True)
        at: Any = rows
        if self.mean.ndim == 5:
            at = (rows, 0 if view is None else view.to(here))
        batch = LatentBatch(self.mean[at], self.log_var[at], self.conditions[rows])
        return batch if self.device is None else batch.to(self.device)


class BlockOrder:
    """The order of the rows in an epoch, made group by group as it is sliced.

    Parameters
    ----------
    blocks : LatentBlocks
        Whose rows; told to read what was sliced, and what comes next.
    seed, epoch : int
        What the order is a function of.
    """

    def __init__(self, blocks: LatentBlocks, seed: int, epoch: int) -> None:
        self._blocks, self._seed, self._epoch = blocks, seed, epoch
        order, size = permutation(seed, epoch, len(blocks.counts)), blocks.group
        self.groups = [tuple(sorted(order[g : g + size].tolist())) for g in range(0, len(order), size)]
        sizes = [int(blocks.counts[list(group)].sum()) for group in self.groups]
        self._edges = np.concatenate([[0], np.cumsum(sizes)])
        self._drawn: dict[int, np.ndarray] = {}

    def __getitem__(self, span: slice) -> Tensor:
        start, stop, _ = span.indices(int(self._edges[-1]))
        touched = [g for g in range(len(self.groups)) if self._edges[g] < stop and self._edges[g + 1] > start]
        if touched:
            last = touched[-1]
            following = self.groups[last + 1] if last + 1 < len(self.groups) else self._next_epoch()
            self._blocks.expect([*(self.groups[g] for g in touched), following])
        self._drawn = {g: self._drawn[g] if g in self._drawn else self._draw(g) for g in touched}
        parts = [self._drawn[g][max(0, start - self._edges[g]) : stop - self._edges[g]] for g in touched]
        return torch.from_numpy(np.concatenate(parts) if parts else np.empty(0, np.int64))

    def _draw(self, g: int) -> np.ndarray:
        rows = self._blocks.members(self.groups[g])
        return rows[permutation(self._seed, self._epoch, len(rows), part=g)]

    def _next_epoch(self) -> tuple[int, ...]:
        first = permutation(self._seed, self._epoch + 1, len(self._blocks.counts))[: self._blocks.group]
        return tuple(sorted(first.tolist()))


class LatentBlocks:
    """A split that stays in its store, with a few groups of blocks in memory.

    It may be sent to another process, or be there after a fork: each reads for itself.

    Parameters
    ----------
    store : LatentStore
        Finished.
    split : str
        Which rows.
    device : torch.device
        Where batches are wanted.
    """

    def __init__(self, store: LatentStore, split: str, device: torch.device) -> None:
        self.store, self.split, self.device = store, split, device
        self.counts = split_counts(store, split)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        few, many = _GROUP_BLOCKS
        row = sum(store.array(name).nbytes for name in store.ARRAYS) // max(1, len(store))
        self.group = min(many, max(few, _GROUP_BYTES // (RUN * row)))
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._reader: ThreadPoolExecutor | None = None
        self._coming: dict[tuple[int, ...], Future[LatentTable]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_coming": {}}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def views(self) -> int:
        """Views of every image, 1 or 8."""
        return self.store.views

    def order(self, seed: int, epoch: int) -> BlockOrder:
        """Return the order of the rows in an epoch, to be sliced from its start to its end."""
        return BlockOrder(self, seed, epoch)

    def members(self, blocks: Sequence[int]) -> np.ndarray:
        """Rows of the split in some blocks, int64, counted within the split."""
        return np.concatenate([np.arange(self._starts[b], self._starts[b + 1]) for b in blocks])

    def expect(self, groups: Sequence[tuple[int, ...]]) -> None:
        """Begin to read groups of blocks, in this order; what was expected long ago is forgotten."""
        if self._process != os.getpid():
            self._forget()  # after a fork there is neither the thread nor what it was reading
        self._reader = self._reader or ThreadPoolExecutor(1, thread_name_prefix="galdiff-blocks")
        for group in groups:
            found = self._coming.pop(group, None)
            self._coming[group] = found or self._reader.submit(self._read, group)
        for group in list(self._coming)[: -max(_GROUPS, len(groups))]:
            self._coming.pop(group).cancel()

    def take(self, rows: Tensor, view: Tensor | None = None) -> LatentBatch:
        """Return rows as `LatentTable.take` does; those whose group is not expected are read for this once."""
        wanted = rows.cpu().numpy()
        blocks = np.searchsorted(self._starts, wanted, side="right") - 1
        tables, left = [], np.unique(blocks)
        for group, coming in self._coming.items() if self._process == os.getpid() else ():
            if np.isin(left, group).any():
                tables.append(coming.result())
                left = np.setdiff1d(left, group)
        if len(left) or not tables:
            tables.append(self._read(tuple(left.tolist())))
        parts, places, rest = [], [], np.ones(len(wanted), bool)
        for table in tables:
            at = np.searchsorted(table.rows, wanted).clip(max=max(0, len(table.rows) - 1))
            here = np.flatnonzero(rest & (table.rows[at] == wanted))
            rest[here] = False
            seen = view if view is None else view.cpu()[torch.from_numpy(here)]
            parts.append(table.take(torch.from_numpy(at[here]), seen))
            places.append(here)
        if len(parts) == 1:
            return parts[0].to(self.device)
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        mean, log_var = (torch.cat([getattr(part, name) for part in parts])[back] for name in ("mean", "log_var"))
        conditions = parts[0].conditions.cat(*(part.conditions for part in parts[1:]))
        return LatentBatch(mean, log_var, conditions[back]).to(self.device)

    def _read(self, blocks: tuple[int, ...]) -> LatentTable:
        n = int(self.counts[list(blocks)].sum())
        arrays = {name: self.store.array(name) for name in self.store.ARRAYS}
        out = {name: np.empty((n, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
        conditions, end = [], 0
        for b in blocks:
            part = slice(b * RUN, min(len(self.store), (b + 1) * RUN))
            chosen = np.flatnonzero(self.store.column("split", part) == self.split)
            for name, values in out.items():
                values[end : end + len(chosen)] = self.store.read_slice(name, part)[chosen]
            conditions.append(self.store.conditions(part)[torch.from_numpy(chosen)])
            end += len(chosen)
        mean, log_var = (torch.from_numpy(values) for values in out.values())
        return LatentTable(mean, log_var, conditions[0].cat(*conditions[1:]), self.members(blocks))


class SplitIds:
    """What the rows of a split are called, read where it is asked for.

    Parameters
    ----------
    store : LatentStore
        Finished.
    split : str
        Which rows.
    """

    def __init__(self, store: LatentStore, split: str) -> None:
        self.store, self.split = store, split

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the identifiers of rows, int64 ``(n,)``, which count within the split."""
        starts = np.concatenate([[0], np.cumsum(split_counts(self.store, self.split))])
        blocks, ids = np.searchsorted(starts, rows, side="right") - 1, {}
        for b in np.unique(blocks):
            part = slice(b * RUN, (b + 1) * RUN)
            ids[b] = self.store.column("id", part)[self.store.column("split", part) == self.split]
        return np.array([ids[b][row - starts[b]] for b, row in zip(blocks, rows, strict=True)])


def split_counts(store: LatentStore, split: str) -> np.ndarray:
    """Count the rows of a split in every block of `RUN` rows, int64, without all rows in memory."""
    counts, step = [], 64 * RUN
    for start in range(0, len(store), step):
        chosen = store.column("split", slice(start, start + step)) == split
        counts.append(np.add.reduceat(chosen.astype(np.int64), np.arange(0, len(chosen), RUN)))
    return np.concatenate(counts) if counts else np.empty(0, np.int64)


def choose_reader(size: int, device: torch.device) -> str:
    """Choose how latents are read.

    On the device, where that is a GPU and they take at most a quarter of its free memory; else in the machine's memory,
    where they take at most 0.4 of what is available; else in blocks.

    Parameters
    ----------
    size : int
        Bytes of the split's latents.
    device : torch.device
        Where batches are wanted.
    """
    if device.type == "cuda" and size <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "memory" if size <= _MEMORY_SHARE * _available_memory() else "blocks"


def _available_memory() -> int:
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return machine_memory() // 2

"""Stores of rows: the Zarr v3 protocol that the cutout cache and the latent store share.

A store is a group with one or more sharded arrays ``(sample, …)``, the ids, the split and the condition columns with
their masks. Each shard is written once, whole, by one writer; an entry of a journal with the SHA-256 of the shard's
values follows it. At the end the hashes of shards, columns and metadata become attributes, together with ``complete``.
A missing shard is an error and never zeros. In a finished store there is nothing that Zarr does not know. Where it
stands, a folder or any other Zarr store, is the affair of `galdiff.latents.place`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import zarr

from galdiff.errors import StoreError
from galdiff.latents.columns import RUN, column_names, digest, run_digests, write_columns
from galdiff.latents.layout import Layout, lost_values
from galdiff.latents.metadata import check_seal, damage_errors, open_group, read_metadata, seal
from galdiff.latents.place import LocalPlace, Place, Target, place_of
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["RowStore"]

_VERSION = 2
_AGAIN = "See which rows with `galdiff store verify`, or write the store again"


class RowStore:
    """A group of row arrays; subclasses name the arrays. Made by `create` or `open`.

    Attributes
    ----------
    place : Place
        Where it is.
    attrs : dict
        Its attributes.
    arrays : tuple of str
        Names of its row arrays.
    schema : ConditionSchema
        The conditions' fields.
    """

    KIND: ClassVar[str]
    ARRAYS: ClassVar[tuple[str, ...]]

    def __init__(self, place: Place, *, mode: str = "r") -> None:
        self.place, self._mode = place, mode
        self.attrs: dict[str, Any] = dict(read_metadata(place)["attributes"])
        self.group = open_group(place, self.attrs["arrays"], mode=mode)
        self._opened: dict[str, zarr.Array] = {}
        self.schema = ConditionSchema.from_dict(self.attrs["schema"])
        self.arrays = tuple(name for name in self.ARRAYS if name in self.attrs["arrays"])

    def __reduce__(self) -> tuple[Any, ...]:
        # Opened again in the process it is sent to: no handle and no loop of Zarr's crosses over.
        return _reopen, (type(self), self.place, self._mode)

    def __len__(self) -> int:
        return int(self.array("id").shape[0])

    @property
    def path(self) -> Path | str:
        """The group's folder, or the name of the store that it is in."""
        return self.place.path if isinstance(self.place, LocalPlace) else self.place.name

    @cached_property
    def ids(self) -> np.ndarray:
        """Identifiers of all rows, int64 or str ``(n,)``."""
        return self.column("id")

    @cached_property
    def split(self) -> np.ndarray:
        """Split of all rows, str ``(n,)``: train, validation, test, dropped or skipped."""
        return self.column("split")

    @classmethod
    def _create(
        cls,
        target: Target,
        *,
        arrays: Mapping[str, Layout],
        ids: np.ndarray,
        split: np.ndarray,
        conditions: Conditions,
        schema: ConditionSchema,
        attrs: Mapping[str, Any],
    ) -> Self:
        """Make the group, or go on with the one that is here, of the same rows; a finished one is open for reading."""
        place = place_of(target)
        fixed: dict[str, Any] = {"kind": cls.KIND, "version": _VERSION, "schema": schema.to_dict()}
        fixed["arrays"] = [*arrays, *column_names(schema)]
        fixed["rows"] = digest(np.asarray(ids).astype(str), np.asarray(split).astype(str))
        wanted = json.loads(json.dumps({**attrs, **fixed}))
        with damage_errors("what is here", place):
            if place.taken():
                found = read_metadata(place).get("attributes", {})
                if any(found.get(name) != value for name, value in wanted.items()):
                    message = "there is a store here already that was made from other inputs"
                    raise StoreError(message, where=place, remedy="Move it away, or give another path")
                if found.get("complete"):
                    return cls.open(place, expect_shards=False)
                place.lock()
                return cls(place, mode="r+")
        place.lock()
        wanted["complete"] = False

        def fill(group: zarr.Group) -> None:
            group.attrs.update(wanted)
            for name, layout in arrays.items():
                layout.create(group, name, len(ids))
            write_columns(group, ids, split, conditions, schema)

        place.build(fill)
        return cls(place, mode="r+")

    @classmethod
    def open(cls, path: Target | Place, *, expect_shards: bool = True) -> Self:
        """Open a finished store.

        Parameters
        ----------
        path : path-like or zarr.abc.store.Store
            A folder, a URL that fsspec or obstore can open, or a Zarr store.
        expect_shards : bool
            Refuse a folder that lacks a shard at once; elsewhere, and otherwise, reading it is refused.

        Raises
        ------
        StoreError
            Where it is absent, unfinished, of another kind, has a codec that is not allowed, or lacks a shard.
        """
        place = place_of(path)
        if not place.exists("zarr.json"):
            raise StoreError("there is no store here", where=place, remedy="Run the stage that writes it")
        attrs = read_metadata(place).get("attributes")
        if not isinstance(attrs, dict) or attrs.get("kind") != cls.KIND or attrs.get("version") != _VERSION:
            remedy = "Write it again, with `--redo` for a stage of a run"
            raise StoreError(f"this is not a {cls.KIND} store of version {_VERSION}", where=place, remedy=remedy)
        if attrs.get("complete") is not True:
            remedy = "Run the stage again: it goes on where it was stopped"
            raise StoreError("the store is not complete", where=place, remedy=remedy)
        check_seal(place)
        with damage_errors("its metadata", place):
            store = cls(place)
            if len(store.attrs["shards_sha256"]) != store.shards:
                raise StoreError("its list of shards is damaged", where=place, remedy=_AGAIN)
            if expect_shards and isinstance(place, LocalPlace):  # elsewhere a question a shard takes long
                for k in range(store.shards):
                    store._expect(k)
        return store

    @property
    def complete(self) -> bool:
        """Whether the store is finished."""
        return bool(self.attrs["complete"])

    def array(self, name: str) -> zarr.Array:
        """Return an array of the group."""
        if name not in self._opened:
            with damage_errors(f"array '{name}'", self.place):
                array = self.group[name]
                if not isinstance(array, zarr.Array):
                    raise StoreError(f"'{name}' is not an array", where=self.place, remedy=_AGAIN)
                self._opened[name] = array
        return self._opened[name]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self) // self._shard_rows)

    @cached_property
    def _shard_rows(self) -> int:
        return int((self.array(self.ARRAYS[0]).shards or (1,))[0])

    def _key(self, name: str, k: int) -> str:
        return "/".join([name, "c", str(k), *["0"] * (self.array(name).ndim - 1)])

    def _expect(self, k: int) -> None:
        for name in self.arrays:
            if not self.place.exists(self._key(name, k)):
                raise StoreError(f"shard {k} of '{name}' is missing", where=self.place, remedy=_AGAIN)

    def shard_rows(self, k: int) -> slice:
        """Rows of a shard."""
        return slice(k * self._shard_rows, min(len(self), (k + 1) * self._shard_rows))

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, int64, ascending."""
        return np.flatnonzero(self.split == split)

    def conditions(self, rows: slice = slice(None)) -> Conditions:
        """Conditions of consecutive rows, by default of all."""
        names = [f.name for f in self.schema.fields]
        values = {name: torch.from_numpy(self.column(name, rows)) for name in names}
        masks = {name: torch.from_numpy(self.column(f"{name}_mask", rows)) for name in names}
        return Conditions(values, masks)

    def column(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Read consecutive rows of ids, split or a condition; of a finished store against their hashes.

        Raises
        ------
        StoreError
            Where they are damaged.
        """
        array = self.array(name)
        start, stop, _ = rows.indices(array.shape[0])
        first = start // RUN
        with damage_errors(f"column '{name}'", self.place):
            values = np.asarray(array[first * RUN : -(-stop // RUN) * RUN])
            if values.dtype.kind not in "iufb":
                values = np.asarray(values, dtype=object).astype(str)  # whichever text type NumPy and Zarr gave
            hashes = self.attrs.get("columns_sha256")
            if hashes is not None:
                found = run_digests(values)
                if found != hashes[name][first : first + len(found)]:
                    raise StoreError(f"column '{name}' does not match its hash", where=self.place, remedy=_AGAIN)
        return values[start - first * RUN : stop - first * RUN]

    def read(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """Read rows of an array in one pass over its shards.

        Parameters
        ----------
        name : str
            Name of the array.
        rows : numpy.ndarray, optional
            int64 row numbers, any order; all by default.

        Raises
        ------
        StoreError
            Where a shard is damaged (every chunk has a checksum).
        """
        array = self.array(name)
        rows = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), *array.shape[1:]), array.dtype)
        for k in np.unique(rows // self._shard_rows):
            here = np.flatnonzero(rows // self._shard_rows == k)
            first, last = int(rows[here].min()), int(rows[here].max())
            out[here] = self.read_slice(name, slice(first, last + 1))[rows[here] - first]
        return out

    def read_slice(self, name: str, rows: slice) -> np.ndarray:
        """Read consecutive rows of one shard of an array: the chunks that hold them; errors as in `read`."""
        k = rows.start // self._shard_rows
        if not self.place.exists(self._key(name, k)):
            raise StoreError(f"shard {k} of '{name}' is missing", where=self.place, remedy=_AGAIN)
        with damage_errors(f"shard {k} of '{name}'", self.place):
            values = np.asarray(self.array(name)[rows])
            if lost_values(values):
                raise StoreError(f"shard {k} of '{name}' has lost values", where=self.place, remedy=_AGAIN)
        return values

    def missing_shards(self) -> Iterator[int]:
        """Yield the shards that are still to be written; journaled ones are read back and verified first."""
        yield from (k for k in range(self.shards) if not self.sound(k))

    def verify(self) -> list[int]:
        """Re-read every shard; return those whose values are not those that were written."""
        return list(self.missing_shards())

    def sound(self, k: int) -> bool:
        """Whether a shard is there and has the values that were written."""
        expected = self._hash(k)
        try:
            return expected == digest(*(self.read_slice(name, self.shard_rows(k)) for name in self.arrays))
        except StoreError:
            return False

    def _hash(self, k: int) -> str | None:
        """Hash of a written shard: of a finished store from its attributes, else from the journal."""
        if "shards_sha256" in self.attrs:
            return str(self.attrs["shards_sha256"][k])
        return (self.place.noted(k) or {}).get("sha256")

    def _write_shard(self, k: int, **arrays: np.ndarray) -> None:
        if self._mode == "r":  # before anything of the shard is deleted
            raise StoreError("the store is open for reading alone", where=self.place)
        rows, stored = self.shard_rows(k), []
        for name in self.arrays:
            array = self.array(name)
            with np.errstate(over="ignore"):  # what a type cannot hold is infinite, and named below
                values = np.asarray(arrays[name], dtype=array.dtype)
            if values.shape != (rows.stop - rows.start, *array.shape[1:]):
                raise StoreError(f"shard {k} of '{name}' got shape {values.shape}", where=self.place)
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if bad.any():
                named = ", ".join(str(i) for i in self.column("id", rows)[bad][:5])
                raise StoreError(f"'{name}' of {int(bad.sum())} rows is not finite (ids {named})", where=self.place)
            stored.append(values)
        with self.place.errors():
            for name, values in zip(self.arrays, stored, strict=True):
                # Zarr would merge the values into what is there, which may be what a crash or a bad disk left.
                self.place.delete(self._key(name, k))
                self.array(name)[rows] = values
                self.place.settle(self._key(name, k))
        self.place.note(k, {"rows": rows.stop - rows.start, "sha256": digest(*stored)})

    def _finish(self, **attrs: Any) -> None:
        bad = self.verify()
        if bad:
            raise StoreError(f"shards {bad} are not written", where=self.place, remedy="Run the stage again")
        columns = [name for name in self.attrs["arrays"] if name not in self.arrays]
        hashes = {
            "columns_sha256": {name: run_digests(self.column(name)) for name in columns},
            "shards_sha256": [self._hash(k) for k in range(self.shards)],
        }
        self.attrs |= {**attrs, **hashes, "complete": True}
        seal(self.place, self.attrs)
        self.place.forget(self.shards)
        self.place.unlock()

    def reopen(self, shards: Sequence[int]) -> None:
        """Make a finished store an unfinished one that lacks some shards, so that its stage writes just these again."""
        self.place.lock()
        for k in set(range(self.shards)) - set(shards):
            self.place.note(k, {"sha256": self._hash(k)})
        made_at_the_end = ("columns_sha256", "shards_sha256")
        attrs = {name: value for name, value in self.attrs.items() if name not in made_at_the_end}
        self.place.put(".journal/begun.json", b"{}")
        seal(self.place, {**attrs, "complete": False})
        self.place.unlock()


def _reopen(cls: type[RowStore], place: Place, mode: str) -> RowStore:
    return cls(place, mode=mode)

"""Stores of rows: the Zarr v3 protocol that the cutout cache and the latent store share.

A store is a group with one or more sharded arrays ``(sample, …)``, the ids, the split and the condition columns with
their masks. Each shard is written once, whole, by one writer; a line of a journal beside the group, with the SHA-256 of
the shard's values, follows it. At the end the hashes of shards, columns and metadata become attributes, together with
``complete``. A missing shard is an error and never zeros. Inside the group there is nothing that Zarr does not know.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import zarr
import zarr.codecs

from galdiff.atomic import append_line, resource_errors, sync_folder
from galdiff.errors import StoreError
from galdiff.latents.metadata import DIGEST, metadata_digest, open_group
from galdiff.lock import release_lock, take_lock
from galdiff.schema.conditions import Conditions, ConditionSchema, Votes

__all__ = ["RowStore"]

_VERSION = 1


class RowStore:
    """A group of row arrays on disk; subclasses name the arrays. Made by `create` or `open`.

    Attributes
    ----------
    path : Path
        The group's folder.
    attrs : dict
        Its attributes.
    ids : numpy.ndarray
        int64 or str ``(n,)``.
    split : numpy.ndarray
        str ``(n,)``: train, validation, test, dropped or skipped.
    schema : ConditionSchema
        The conditions' fields.
    """

    KIND: ClassVar[str]
    ARRAYS: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path, self.group = path, group
        self.attrs: dict[str, Any] = dict(group.attrs)
        self.schema = ConditionSchema.from_dict(self.attrs["schema"])
        self.ids, self.split = self._column("id"), self._column("split")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def _create(
        cls,
        path: Path,
        *,
        arrays: Mapping[str, tuple[tuple[int, ...], str, tuple[str, ...], tuple[int, int]]],
        ids: np.ndarray,
        split: np.ndarray,
        conditions: Conditions,
        schema: ConditionSchema,
        attrs: Mapping[str, Any],
    ) -> Self:
        """Make the group, or go on with an unfinished one of the same rows.

        ``arrays`` maps names to (row shape, dtype, dimension names, (rows a chunk, rows a shard)).
        """
        path = Path(path)
        attrs = {**attrs, "kind": cls.KIND, "version": _VERSION, "schema": schema.to_dict(), "complete": False}
        attrs["rows"] = _digest(np.asarray(ids).astype(str), np.asarray(split).astype(str))
        if path.exists():
            group = open_group(path, mode="r+")
            same = {k: v for k, v in group.attrs.items() if k != "complete"}
            wanted = json.loads(json.dumps({k: v for k, v in attrs.items() if k != "complete"}))
            if group.attrs.get("complete") or any(same.get(k) != v for k, v in wanted.items()):
                remedy = "Move it away, or give another path"
                raise StoreError(
                    "there is a store here already that was made from other inputs", where=path, remedy=remedy
                )
            take_lock(beside(path, "lock"))
            return cls(path, group)
        with resource_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            take_lock(beside(path, "lock"))
            beside(path, "journal.jsonl").unlink(missing_ok=True)
            # Made under another name: a creation that is cut off leaves nothing at the store's place.
            draft = beside(path, "tmp")
            shutil.rmtree(draft, ignore_errors=True)
            group = zarr.open_group(draft, mode="w", zarr_format=3, attributes=attrs)
            for name, (shape, dtype, dims, (chunk, shard)) in arrays.items():
                group.create_array(
                    name,
                    shape=(len(ids), *shape),
                    chunks=(chunk, *shape),
                    shards=(shard, *shape),
                    dtype=dtype,
                    fill_value=float("nan"),
                    compressors=zarr.codecs.Crc32cCodec(),
                    serializer=zarr.codecs.BytesCodec(),
                    filters=None,
                    dimension_names=("sample", *dims),
                )
            cls._columns(group, ids, split, conditions, schema)
            os.replace(draft, path)
            sync_folder(path.parent)
        return cls(path, open_group(path, mode="r+"))

    @staticmethod
    def _columns(
        group: zarr.Group, ids: np.ndarray, split: np.ndarray, conditions: Conditions, schema: ConditionSchema
    ) -> None:
        def column(name: str, data: np.ndarray, *dims: str, **attrs: Any) -> None:
            if data.dtype.kind in "OU":
                array = group.create_array(
                    name, shape=data.shape, dtype="str", chunks=data.shape, dimension_names=("sample", *dims)
                )
                array[:] = data.astype(object)
            else:
                array = group.create_array(
                    name, shape=data.shape, dtype=data.dtype, chunks=data.shape, dimension_names=("sample", *dims)
                )
                array[:] = data
            array.attrs.update(attrs)

        ids = np.asarray(ids)
        column("id", ids if ids.dtype.kind == "i" else ids.astype(str), description="identifier in the source catalog")
        column("split", np.asarray(split).astype(str))
        for f in schema.fields:
            dims = (f"{f.name}_answer",) if isinstance(f, Votes) else ()
            mask_dims = (f"{f.name}_question",) if isinstance(f, Votes) else ()
            column(f.name, conditions.values[f.name].numpy(), *dims, kind=f.kind)
            column(f"{f.name}_mask", conditions.masks[f.name].numpy(), *mask_dims, description="where it is known")

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a finished store.

        Raises
        ------
        StoreError
            Where it is absent, unfinished, of another kind, has a codec that is not allowed, or lacks a shard.
        """
        path = Path(path)
        if not (path / "zarr.json").is_file():
            raise StoreError("there is no store here", where=path, remedy="Run the stage that writes it")
        group = open_group(path, mode="r")
        if group.attrs.get("kind") != cls.KIND or group.attrs.get("version") != _VERSION:
            raise StoreError(f"this is not a {cls.KIND} store of version {_VERSION}", where=path)
        if group.attrs.get("complete") is not True:
            remedy = "Run the stage again: it goes on where it was stopped"
            raise StoreError("the store is not complete", where=path, remedy=remedy)
        digest = metadata_digest(path, dict(group.attrs))
        if group.attrs.get(DIGEST) != digest:
            raise StoreError("its metadata does not match its hash", where=path, remedy="Write the store again")
        store = cls(path, group)
        if len(store.attrs.get("shards_sha256", ())) != store.shards:
            raise StoreError("its list of shards is damaged", where=path, remedy="Write the store again")
        lost = [k for k in range(store.shards) for name in cls.ARRAYS if not store._shard_path(name, k).is_file()]
        if lost:
            raise StoreError(f"shard {lost[0]} is missing", where=path, remedy="Write the store again")
        return store

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.ids) // self._shard_rows)

    @property
    def _shard_rows(self) -> int:
        shards = self.group[self.ARRAYS[0]].shards  # type: ignore[union-attr]
        return int(shards[0])  # type: ignore[index]

    def _shard_path(self, name: str, k: int) -> Path:
        rank = len(self.group[name].shape)  # type: ignore[union-attr]
        return self.path / name / "c" / "/".join([str(k), *["0"] * (rank - 1)])

    def shard_rows(self, k: int) -> slice:
        """Rows of a shard."""
        return slice(k * self._shard_rows, min(len(self.ids), (k + 1) * self._shard_rows))

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, int64, ascending."""
        return np.flatnonzero(self.split == split)

    def conditions(self) -> Conditions:
        """All rows' conditions."""
        names = [f.name for f in self.schema.fields]
        values = {name: torch.from_numpy(self._column(name)) for name in names}
        masks = {name: torch.from_numpy(self._column(f"{name}_mask")) for name in names}
        return Conditions(values, masks)

    def _column(self, name: str) -> np.ndarray:
        """Read ids, split or a condition; of a finished store against its hash."""
        try:
            values = np.asarray(self.group[name][:])  # type: ignore[index]
        except Exception as error:  # damaged bytes can raise anything at all
            raise StoreError(f"column '{name}' is damaged: {error}", where=self.path) from error
        if values.dtype.kind not in "iufb":
            values = np.asarray(values, dtype=object).astype(str)  # whichever text type NumPy and Zarr gave
        hashes = self.attrs.get("columns_sha256", {})
        if name in hashes and _digest(values) != hashes[name]:
            remedy = "Write the store again"
            raise StoreError(f"column '{name}' does not match its hash", where=self.path, remedy=remedy)
        return values

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
        array = self.group[name]
        rows = np.arange(len(self.ids)) if rows is None else np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), *array.shape[1:]), array.dtype)  # type: ignore[union-attr]
        for k in np.unique(rows // self._shard_rows):
            here = np.flatnonzero(rows // self._shard_rows == k)
            first, last = int(rows[here].min()), int(rows[here].max())
            out[here] = self._read_shard(name, int(k), slice(first, last + 1))[rows[here] - first]
        return out

    def _read_shard(self, name: str, k: int, rows: slice | None = None) -> np.ndarray:
        """Read a shard, or of its chunks those that hold some rows."""
        if not self._shard_path(name, k).is_file():
            raise StoreError(f"shard {k} of '{name}' is missing", where=self.path, remedy="Write the store again")
        remedy = "Write the store again"
        try:
            values = np.asarray(self.group[name][rows or self.shard_rows(k)])  # type: ignore[index]
        except Exception as error:  # damaged bytes can raise anything at all
            raise StoreError(f"shard {k} of '{name}' is damaged: {error}", where=self.path, remedy=remedy) from error
        if not np.isfinite(values).all():
            # Only finite values are ever written: what is not is Zarr's fill value in the place of a lost chunk.
            raise StoreError(f"shard {k} of '{name}' has lost values", where=self.path, remedy=remedy)
        return values

    def missing_shards(self) -> Iterator[int]:
        """Yield the shards that are still to be written; journaled ones are read back and verified first."""
        journal = self._journal()
        for k in range(self.shards):
            if k not in journal or not self._sound(k, journal[k]):
                yield k

    def verify(self) -> list[int]:
        """Re-read everything; return the shards whose values are not those that were written."""
        journal = self._journal()
        return [k for k in range(self.shards) if k not in journal or not self._sound(k, journal[k])]

    def _sound(self, k: int, digest: str) -> bool:
        try:
            return _digest(*(self._read_shard(name, k) for name in self.ARRAYS)) == digest
        except StoreError:
            return False

    def _journal(self) -> dict[int, str]:
        """Hashes of the shards that are written: of a finished store from its attributes."""
        if "shards_sha256" in self.attrs:
            return dict(enumerate(self.attrs["shards_sha256"]))
        path = beside(self.path, "journal.jsonl")
        lines = path.read_text().splitlines() if path.is_file() else []
        entries = {}
        for line in lines:
            try:
                entry = json.loads(line)
                entries[int(entry["shard"])] = str(entry["sha256"])
            except (ValueError, KeyError, TypeError):
                continue  # a line cut by a crash: its shard is written again
        return entries

    def _write_shard(self, k: int, **arrays: np.ndarray) -> None:
        rows = self.shard_rows(k)
        stored = []
        for name in self.ARRAYS:
            array = self.group[name]
            values = np.asarray(arrays[name], dtype=array.dtype)  # type: ignore[union-attr]
            if values.shape != (rows.stop - rows.start, *array.shape[1:]):  # type: ignore[union-attr]
                raise StoreError(f"shard {k} of '{name}' got shape {values.shape}", where=self.path)
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if bad.any():
                named = ", ".join(str(i) for i in self.ids[rows][bad][:5])
                raise StoreError(f"'{name}' of {int(bad.sum())} rows is not finite (ids {named})", where=self.path)
            stored.append(values)
        with resource_errors(self.path):
            for name, values in zip(self.ARRAYS, stored, strict=True):
                # Zarr would merge the values into what is there, which may be what a crash or a bad disk left.
                self._shard_path(name, k).unlink(missing_ok=True)
                self.group[name][rows] = values  # type: ignore[index]
                _sync(self._shard_path(name, k))
        line = {"shard": k, "rows": rows.stop - rows.start, "sha256": _digest(*stored)}
        append_line(beside(self.path, "journal.jsonl"), json.dumps(line))

    def _finish(self, **attrs: Any) -> None:
        bad = self.verify()
        if bad:
            raise StoreError(f"shards {bad} are not written", where=self.path, remedy="Run the stage again")
        journal = self._journal()
        columns = sorted(set(self.group.array_keys()) - set(self.ARRAYS))
        hashes = {
            "columns_sha256": {name: _digest(self._column(name)) for name in columns},
            "shards_sha256": [journal[k] for k in range(self.shards)],
        }
        self.attrs |= {**attrs, **hashes, "complete": True}
        self.attrs[DIGEST] = metadata_digest(self.path, self.attrs)
        with resource_errors(self.path):
            self.group.attrs.update(self.attrs)
            _sync(self.path / "zarr.json")
            beside(self.path, "journal.jsonl").unlink(missing_ok=True)
        release_lock(beside(self.path, "lock"))


def beside(path: Path, suffix: str) -> Path:
    """Name a file beside a store that belongs to it."""
    return path.with_name(f"{path.name}.{suffix}")


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        if array.dtype.kind == "U":
            digest.update("\n".join(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

"""What a store is, and what of it is damaged: the answers of ``galdiff store info`` and ``galdiff store verify``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from galdiff.errors import StoreError
from galdiff.latents.cutouts import CutoutStore
from galdiff.latents.metadata import DIGEST, read_metadata
from galdiff.latents.place import Target, place_of
from galdiff.latents.rows import RowStore
from galdiff.latents.store import LatentStore

__all__ = ["Damage", "describe", "find_damage", "open_store"]

_NAMED = 5


@dataclass(frozen=True)
class Damage:
    """What of a store is not what was written.

    Attributes
    ----------
    shard : int, optional
        Which; None for a column, which is not written again by itself.
    name : str
        Array or column.
    rows : slice
        The smallest range of rows that the damage can be told to be in.
    ids : tuple of str
        The first of their identifiers.
    why : str
        What is wrong.
    """

    shard: int | None
    name: str
    rows: slice
    ids: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        part = "column" if self.shard is None else f"shard {self.shard},"
        n = self.rows.stop - self.rows.start
        ids = ", ".join(self.ids) + (", …" if n > len(self.ids) else "")
        return f"{part} '{self.name}', rows {self.rows.start}-{self.rows.stop - 1} (ids {ids or 'unknown'}): {self.why}"


def open_store(target: Target) -> RowStore:
    """Open a finished store of either kind.

    Raises
    ------
    StoreError
        As `RowStore.open`.
    """
    place = place_of(target)
    if not place.exists("zarr.json"):
        raise StoreError("there is no store here", where=place)
    attributes = read_metadata(place).get("attributes")
    kind = attributes.get("kind") if isinstance(attributes, dict) else None
    if kind not in (CutoutStore.KIND, LatentStore.KIND):
        raise StoreError("this is neither a cutout nor a latent store", where=place)
    cls: type[RowStore] = CutoutStore if kind == CutoutStore.KIND else LatentStore
    # A shard that is missing is what one wants to know here, not a reason to know nothing.
    return cls.open(place, expect_shards=False)


def describe(store: RowStore) -> Iterator[str]:
    """Yield lines: kind, rows of every split, arrays, columns with their units, sizes and hashes."""
    names, counts = np.unique(store.split, return_counts=True)
    splits = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    yield f"{store.KIND} store, complete: {store.path}"
    yield f"rows      {len(store):,} in {store.shards} shards ({splits})"
    for name in store.attrs["arrays"]:
        array = store.array(name)
        attributes: dict[str, Any] = dict(array.attrs)
        dimensions = read_metadata(store.place, f"{name}/zarr.json")["dimension_names"]
        dims = ", ".join(f"{dim} {n}" for dim, n in zip(dimensions, array.shape, strict=True))
        said = " ".join(str(attributes[key]) for key in ("units", "description") if key in attributes)
        size = f"{array.nbytes / 2**20:.1f} MiB" if name in store.arrays else said
        yield f"{'array' if name in store.arrays else 'column':<9} {name} ({dims}) {array.dtype} {size}".rstrip()
    if "autoencoder" in store.attrs:
        yield f"encoder   {store.attrs['autoencoder'].get('sha256', 'unknown')}"
    yield f"metadata  {store.attrs[DIGEST]}"


def find_damage(store: RowStore) -> list[Damage]:
    """Re-read and re-hash everything; return what is not what was written, shard by shard and chunk by chunk."""
    found = []
    for name in store.attrs["arrays"]:
        if name not in store.arrays:
            try:
                store.column(name)
            except StoreError as error:
                found.append(Damage(None, name, slice(0, store.array(name).shape[0]), (), error.message))
    for k in store.verify():
        parts = [damage for name in store.arrays for damage in _damaged_chunks(store, name, k)]
        rows = store.shard_rows(k)
        found += parts or [Damage(k, ", ".join(store.arrays), rows, _ids(store, rows), "has other values")]
    return found


def _damaged_chunks(store: RowStore, name: str, k: int) -> Iterator[Damage]:
    part, chunk = store.shard_rows(k), store.array(name).chunks[0]
    for start in range(part.start, part.stop, chunk):
        rows = slice(start, min(part.stop, start + chunk))
        try:
            store.read_slice(name, rows)
        except StoreError as error:
            why = error.message.removeprefix(f"shard {k} of '{name}' ")
            yield Damage(k, name, rows, _ids(store, rows), why)


def _ids(store: RowStore, rows: slice) -> tuple[str, ...]:
    try:
        return tuple(str(i) for i in store.column("id", rows)[:_NAMED])
    except StoreError:
        return ()

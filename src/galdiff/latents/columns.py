"""Columns: what a store knows about its rows besides pixel values or latents.

A column lies in runs of `RUN` rows, which can be read, and checked against their hashes, one by one; a million rows are
one file. Their attributes say units, classes and descriptions in the words of the CF conventions, and the answers and
questions of votes are coordinates, so that xarray shows a store as a catalog.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import zarr

from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Field, Votes

__all__ = ["RUN", "column_names", "digest", "run_digests", "write_columns"]

RUN = 1024
"""Rows of a column that are read and hashed together."""
_RUNS_A_FILE = 1024
_HASH_DIGITS = 16  # of a run: a million rows of twenty columns have twenty thousand runs


def column_names(schema: ConditionSchema) -> list[str]:
    """List ids, split, conditions, masks and coordinates, in the order they are written."""
    names = ["id", "split"]
    for f in schema.fields:
        names += [f.name, f"{f.name}_mask"]
        names += [f"{f.name}_answer", f"{f.name}_question"] if isinstance(f, Votes) else []
    return names


def write_columns(
    group: zarr.Group, ids: np.ndarray, split: np.ndarray, conditions: Conditions, schema: ConditionSchema
) -> None:
    """Write every column of `column_names` into a group."""

    def write(name: str, data: np.ndarray, *dims: str, **attrs: Any) -> None:
        text = data.dtype.kind in "OU"
        run = (min(RUN, max(1, len(data))), *data.shape[1:])
        array = group.create_array(
            name,
            shape=data.shape,
            dtype="str" if text else data.dtype,
            chunks=run,
            shards=(run[0] * min(_RUNS_A_FILE, max(1, -(-len(data) // run[0]))), *run[1:]),
            dimension_names=dims,
            attributes=attrs,
        )
        array[...] = data.astype(object) if text else data

    ids = np.asarray(ids)
    ids = ids if ids.dtype.kind == "i" else ids.astype(str)
    write("id", ids, "sample", description="identifier in the source catalog")
    write("split", np.asarray(split).astype(str), "sample", description="train, validation, test or skipped")
    for f in schema.fields:
        values, known = conditions.values[f.name].numpy(), conditions.masks[f.name].numpy()
        votes = isinstance(f, Votes)
        write(f.name, values, "sample", *([f"{f.name}_answer"] if votes else []), **_described(f))
        known_dims = [f"{f.name}_question"] if votes else []
        write(f"{f.name}_mask", known, "sample", *known_dims, description=f"where '{f.name}' is known")
        if isinstance(f, Votes):
            for what, parts in (("answer", f.tree.answers), ("question", f.tree.questions)):
                name = f"{f.name}_{what}"
                write(name, np.array([part.name for part in parts]), name, description=f"{what} of '{f.tree.name}'")


def _described(f: Field) -> dict[str, Any]:
    if isinstance(f, Class):
        classes = {"flag_values": list(range(len(f.classes))), "flag_meanings": " ".join(f.classes)}
        return {"kind": f.kind, "description": "class", "classes": list(f.classes), **classes}
    if isinstance(f, Votes):
        return {"kind": f.kind, "description": f"votes for the answers of '{f.tree.name}'", "units": "1"}
    return {"kind": f.kind, "description": f"{f.name}, as in the catalog", "units": f.unit or "1"}


def run_digests(values: np.ndarray) -> list[str]:
    """Hash every run of a column."""
    return [digest(values[start : start + RUN])[:_HASH_DIGITS] for start in range(0, len(values), RUN)]


def digest(*arrays: np.ndarray) -> str:
    """Hash the values of arrays, SHA-256."""
    sha = hashlib.sha256()
    for array in arrays:
        if array.dtype.kind == "U":
            sha.update("\n".join(array.tolist()).encode())
        else:
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()

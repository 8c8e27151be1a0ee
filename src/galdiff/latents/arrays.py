"""Zarr arrays that others wrote: looked at before Zarr acts on them, since a codec may be a pickle."""

from __future__ import annotations

import json

import zarr

from galdiff.errors import StoreError
from galdiff.latents.metadata import damage_errors, read_metadata
from galdiff.latents.place import Place

__all__ = ["is_array", "open_numbers"]

_COMPRESSORS = {"blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"}  # of Zarr format 2


def is_array(place: Place, name: str) -> bool:
    """Whether an array, of either format of Zarr, is at a path below a group, or is the place itself ("")."""
    prefix = f"{name}/" if name else ""
    if place.exists(f"{prefix}.zarray"):
        return True
    return place.exists(f"{prefix}zarr.json") and read_metadata(place, f"{prefix}zarr.json").get("node_type") == "array"


def open_numbers(place: Place, name: str) -> zarr.Array:
    """Open an array of numbers.

    Parameters
    ----------
    place : Place
        The group, or what `name` is a path below.
    name : str
        Path of the array; "" is the place itself.

    Raises
    ------
    StoreError
        Where there is none, it holds no numbers, or it names a codec that could execute something.
    """
    prefix = f"{name}/" if name else ""
    raw = place.get(f"{prefix}.zarray")
    with damage_errors(f"array '{name}'", place):
        if raw is None:
            read_metadata(place, f"{prefix}zarr.json")
        else:
            meta = json.loads(raw)
            if meta.get("filters") or (meta.get("compressor") or {"id": "zlib"}).get("id") not in _COMPRESSORS:
                raise StoreError(f"the codecs of '{name}' are not allowed", where=place, remedy="Write it as Zarr 3")
        array = zarr.open_array(place.store, path=name, mode="r", zarr_format=3 if raw is None else 2)
    if array.dtype.kind not in "iufb":
        raise StoreError(f"'{name}' holds {array.dtype}, not numbers", where=place)
    return array

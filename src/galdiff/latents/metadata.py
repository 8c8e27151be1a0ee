"""Metadata of Zarr groups: looked at before Zarr acts on it, and hashed so that no flipped bit goes unseen.

A finished group's ``zarr.json`` repeats its arrays' metadata (``consolidated_metadata``, as zarr-python and xarray
write and read it), so that one object tells all of a store; both copies are checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import zarr

from galdiff.atomic import sha256_json
from galdiff.errors import GaldiffError, StoreError, reason
from galdiff.latents.place import Place

__all__ = ["DIGEST", "check_seal", "damage_errors", "metadata_digest", "open_group", "read_metadata", "seal"]

DIGEST = "metadata_sha256"
"""The attribute that holds the hash of everything else."""
_CODECS = {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-utf8", "zstd"}
_AGAIN = "Write the store again"


@contextmanager
def damage_errors(what: str, place: Place) -> Iterator[None]:
    """Turn whatever damaged bytes raise, which can be anything at all, into a `StoreError`."""
    try:
        yield
    except GaldiffError:
        raise
    except Exception as error:
        raise StoreError(f"{what} is damaged: {reason(error)}", where=place, remedy=_AGAIN) from error


def read_metadata(place: Place, key: str = "zarr.json") -> dict[str, Any]:
    """Read a ``zarr.json`` that is Zarr format 3 and names only codecs that can execute nothing.

    Raises
    ------
    StoreError
        Where it is absent, damaged, of another format, or names another codec.
    """
    raw = place.get(key)
    if raw is None:
        raise StoreError(f"'{key}' is missing", where=place, remedy=_AGAIN)
    with damage_errors(f"'{key}'", place):
        meta = dict(json.loads(raw))
        if meta.get("zarr_format") != 3:
            raise StoreError(f"'{key}' is not Zarr format 3", where=place)
        for name in _codec_names(meta):
            if name not in _CODECS:
                raise StoreError(f"codec '{name}' is not allowed", where=place)
    return meta


def open_group(place: Place, arrays: Sequence[str], *, mode: Any) -> zarr.Group:
    """Open a group after looking at the metadata of its arrays."""
    for name in arrays:
        read_metadata(place, f"{name}/zarr.json")
    with damage_errors("its metadata", place):
        return zarr.open_group(place.store, mode=mode, zarr_format=3)


def metadata_digest(place: Place, attributes: Mapping[str, Any]) -> str:
    """Hash the attributes of a group, but for the hash itself, and the metadata of its arrays."""
    arrays = {name: read_metadata(place, f"{name}/zarr.json") for name in attributes["arrays"]}
    return sha256_json({"arrays": arrays, "attributes": {k: v for k, v in attributes.items() if k != DIGEST}})


def seal(place: Place, attributes: Mapping[str, Any]) -> None:
    """Write the group's metadata in one piece: attributes with their hash, and a copy of its arrays' metadata."""
    sealed = {**attributes, DIGEST: metadata_digest(place, attributes)}
    arrays = {name: read_metadata(place, f"{name}/zarr.json") for name in attributes["arrays"]}
    copy = {"kind": "inline", "must_understand": False, "metadata": arrays}
    meta = {"zarr_format": 3, "node_type": "group", "attributes": sealed, "consolidated_metadata": copy}
    place.put("zarr.json", json.dumps(meta, allow_nan=False).encode())


def check_seal(place: Place) -> dict[str, Any]:
    """Return the attributes of a finished group.

    Raises
    ------
    StoreError
        Where they, or the metadata of an array in either copy, are not those that were sealed.
    """
    meta = read_metadata(place)
    with damage_errors("its metadata", place):
        attributes = dict(meta["attributes"])
        if attributes.get(DIGEST) != metadata_digest(place, attributes) or any(
            read_metadata(place, f"{name}/zarr.json") != meta["consolidated_metadata"]["metadata"][name]
            for name in attributes["arrays"]
        ):
            raise StoreError("its metadata does not match its hash", where=place, remedy=_AGAIN)
    return attributes


def _codec_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("codecs", "index_codecs") and isinstance(part, list):
                yield from (str(codec.get("name")) for codec in part)
            yield from _codec_names(part)
    elif isinstance(value, list):
        for part in value:
            yield from _codec_names(part)

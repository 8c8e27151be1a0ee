"""Metadata of Zarr groups: looked at before Zarr acts on it, and hashed so that no flipped bit goes unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zarr

from galdiff.atomic import sha256_json
from galdiff.errors import StoreError

__all__ = ["DIGEST", "metadata_digest", "open_group"]

DIGEST = "metadata_sha256"
"""The attribute that holds the hash of everything else."""
_CODECS = {"bytes", "crc32c", "sharding_indexed", "vlen-utf8", "zstd", "transpose"}


def open_group(path: Path, *, mode: Any) -> zarr.Group:
    """Open a group after looking at its metadata: Zarr v3 and codecs that can execute nothing.

    Raises
    ------
    StoreError
        Where the metadata are damaged, of another format, or name another codec.
    """
    try:
        for file in [path / "zarr.json", *path.glob("*/zarr.json")]:
            meta = json.loads(file.read_text())
            if meta.get("zarr_format") != 3:
                raise StoreError("this is not Zarr format 3", where=file)
            for name in _codec_names(meta):
                if name not in _CODECS:
                    raise StoreError(f"codec '{name}' is not allowed", where=file)
        return zarr.open_group(path, mode=mode, zarr_format=3)
    except StoreError:
        raise
    except Exception as error:  # damaged metadata can raise anything at all
        raise StoreError(f"its metadata is damaged: {error}", where=path, remedy="Write the store again") from error


def metadata_digest(path: Path, attributes: Mapping[str, Any]) -> str:
    """Hash the attributes of a group, but for the hash itself, and the metadata of its arrays."""
    arrays = {file.parent.name: json.loads(file.read_text()) for file in path.glob("*/zarr.json")}
    return sha256_json({"arrays": arrays, "attributes": {k: v for k, v in attributes.items() if k != DIGEST}})


def _codec_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("codecs", "index_codecs") and isinstance(part, list):
                yield from (str(codec.get("name")) for codec in part)
            yield from _codec_names(part)
    elif isinstance(value, list):
        for part in value:
            yield from _codec_names(part)

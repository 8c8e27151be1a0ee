"""Parsed tables in the user's cache folder: a CSV of 240,000 rows is parsed once.

An entry is ``$XDG_CACHE_HOME/galdiff/tables/<key>.parquet`` (``~/.cache`` by default), the key being the sha256 of the
file's path, size and time of change: a table that was touched is parsed again. Entries are written whole or not at all
and may be deleted at any time; a folder that cannot be written, or an entry that cannot be read, is as good as none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from galdiff.atomic import atomic_write, sha256_json
from galdiff.errors import DataError, ResourceError

__all__ = ["cached", "entry", "read_parquet"]

_VERSION = 2  # of the parser: another one parses anew
_COLUMNS = 16
_BYTES = 4 << 20  # smaller files are parsed as quickly as an entry is read


def entry(path: Path, ids: Sequence[str]) -> Path:
    """Where a table's entry is, whether it is there or not."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative path is to be ignored.
    folder = Path(root) if os.path.isabs(root) else Path("~/.cache").expanduser()
    status = path.stat()
    key = [_VERSION, str(path.absolute()), status.st_size, status.st_mtime_ns, sorted(ids)]
    return folder / "galdiff" / "tables" / f"{sha256_json(key)}.parquet"


def cached(path: Path, ids: Sequence[str], parse: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the entry of a table, or parse it and keep it.

    Parameters
    ----------
    path : Path
        The table.
    ids : sequence of str
        Columns that are read as text: other columns, another entry.
    parse : callable
        Parses the table.
    """
    if path.stat().st_size < _BYTES:
        return parse()
    place = entry(path, ids)
    with suppress(Exception):  # a damaged entry can raise anything at all, and is only a copy
        return read_parquet(place)
    table = parse()
    # Text and numbers can be of kinds that parquet does not know.
    with suppress(OSError, ResourceError, ValueError, TypeError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(place) as file:
            table.to_parquet(file, compression="zstd", index=False)
    return table


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a parquet file, some columns at a time so that a large one is never there twice; its index is a column."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise DataError(f"there are two columns '{min(doubled)}'", where=path, remedy="Leave one out")
        columns: dict[str, pd.Series] = {}
        for start in range(0, len(names), _COLUMNS):
            part = file.read(columns=names[start : start + _COLUMNS], use_pandas_metadata=True).to_pandas()
            part = part.reset_index(drop=part.index.name is None)
            columns |= {name: part[name].copy() for name in part.columns}
    return pd.DataFrame(columns, copy=False)

"""Catalog tables: CSV, parquet or FITS into pandas, with ids that are never floating-point numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from galdiff.data.tablecache import cached, read_parquet
from galdiff.errors import DataError, all_at_once, nearest_name

__all__ = [
    "column_names",
    "find_column",
    "find_table",
    "id_column",
    "read_table",
    "refuse_absent",
    "select",
    "selected",
    "take_rows",
]

_ROWS = 20_000  # of a CSV at a time
_FLOAT = r"\d+\.0|\d(\.\d+)?[eE]\+\d+"  # as pandas and spreadsheets write whole numbers that they took for others
_DOUBLED = re.compile(r"(.*) \(column \d+\)", re.DOTALL)

_SELECTION = (
    *(ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator),
    *(ast.Compare, ast.cmpop, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
)


def find_table(root: Path, name: str | None, patterns: Sequence[str]) -> Path:
    """Return the named table, or the only one that fits a pattern.

    Raises
    ------
    DataError
        Where there is none, or the choice is not clear.
    """
    if not root.is_dir():
        raise DataError("the data folder is missing", where=root, remedy="Set data.root")
    if name is not None:
        path = root / name
        if path.is_dir():
            raise DataError("is a folder, not a table", where=path, remedy="Set data.table, a file in data.root")
        if not path.is_file():
            near = nearest_name(name, (p.name for p in root.iterdir()))
            remedy = f"Did you mean '{near}'?" if near else "Set data.table, a file in data.root"
            raise DataError("the table is missing", where=path, remedy=remedy)
        return path
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"there are {len(found)} tables: {', '.join(p.name for p in found)}", where=root, remedy="Name one"
            )
    raise DataError(f"there is no table like {' or '.join(patterns)}", where=root, remedy="Name it with 'table'")


def read_table(path: Path, *, ids: Sequence[str]) -> pd.DataFrame:
    """Read a table.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.csv.gz``, ``.parquet`` or ``.fits``.
    ids : sequence of str
        Columns that are identifiers: read as text where the format has no types, since SDSS's 18 digits do not
        survive a floating-point number.

    Notes
    -----
    Columns of a CSV that share a name are told apart by their places: "CLASS (column 3)".

    A large CSV is kept, parsed, in the user's cache folder (`galdiff.data.tablecache`).

    Raises
    ------
    DataError
        Where the file cannot be read or is empty.
    """
    try:
        table = _read(path, ids)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError("the table is missing", where=path) from error
    except Exception as error:  # a damaged or hostile file can raise anything at all
        raise DataError(f"cannot be read as a table: {error}", where=path) from error
    if not len(table):
        raise DataError("the table has no rows", where=path)
    return table


def _read(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return read_parquet(path)
    if name.endswith((".fits", ".fit", ".fits.gz")):
        from astropy.table import Table

        with open(path, "rb") as file:  # astropy leaves a damaged file open
            table = Table.read(file, format="fits", hdu=1, memmap=False)
        table.convert_bytestring_to_unicode()
        return table[[column for column in table.colnames if table[column].ndim == 1]].to_pandas()
    return cached(path, ids, lambda: _read_csv(path, ids))


def _read_csv(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    """Read a CSV block by block, whole numbers in the fewest bytes; pandas at once would need three times the memory.

    Columns stay apart, so that nothing of the size of the table is ever there twice.
    """
    header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
    if len(header) == 1 and (found := re.search(r"[;\t|]", str(header[0]))):
        separator = "tabs" if found[0] == "\t" else f"'{found[0]}'"
        remedy = "Save it with commas"
        raise DataError(f"the columns seem to be separated by {separator}, not by commas", where=path, remedy=remedy)
    text: dict[Hashable, type] = {column: str for column in header if column in ids}
    columns: dict[Hashable, list[pd.Series]] = {column: [] for column in header}
    with pd.read_csv(path, dtype=text, encoding="utf-8-sig", chunksize=_ROWS, low_memory=False) as blocks:
        for block in blocks:
            if not isinstance(block.index, pd.RangeIndex):
                # pandas takes fields beyond the header for an index, and shifts all columns.
                raise DataError(f"rows have more fields than the {len(header)} of the header", where=path)
            for column, values in block.items():
                columns[column].append(_smallest(values))
    # A column that is numbers in some blocks and words in others is text.
    mixed = [c for c, parts in columns.items() if len({_kind(part) for part in parts} - {""}) > 1]
    if mixed:
        again = pd.read_csv(path, dtype=str, encoding="utf-8-sig", usecols=mixed)
        columns |= {column: [again[column]] for column in mixed}
    joined = {c: pd.concat(columns.pop(c) or [pd.Series(dtype=object)], ignore_index=True) for c in header}
    names = pd.read_csv(path, nrows=1, header=None, dtype=str, encoding="utf-8-sig").iloc[0].tolist()
    # pandas calls the second of two columns "x" "x.1", and the first would be taken for what is meant.
    numbered = [f"{x} (column {k})" if names.count(x) > 1 else header[k - 1] for k, x in enumerate(names, 1)]
    return pd.DataFrame(joined, copy=False).set_axis(numbered, axis="columns")


def _smallest(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, downcast="integer") if values.dtype.kind == "i" else values


def _kind(values: pd.Series) -> str:
    """Say what a block of a column holds; nothing where all of it is absent."""
    if values.isna().all():
        return ""
    return "number" if values.dtype.kind in "iuf" else values.dtype.name


def column_names(table: pd.DataFrame) -> set[str]:
    """Return the names of a table's columns; one that several share, which `find_column` refuses, is among them."""
    return {_shared_name(c) for c in table.columns}


def _shared_name(column: object) -> str:
    """Return what the file calls a column, without the place that tells it from others of the same name."""
    found = _DOUBLED.fullmatch(str(column))
    return found[1] if found else str(column)


def find_column(table: pd.DataFrame, wanted: str, where: object) -> str:
    """Return a column's name, or raise with the nearest one there is."""
    if wanted in table.columns:
        return wanted
    doubled = [f"'{c}'" for c in table.columns if _shared_name(c) == wanted != str(c)]
    if doubled:
        remedy = f"Name one: {' or '.join(doubled)}"
        raise DataError(f"there are {len(doubled)} columns '{wanted}'", where=where, remedy=remedy)
    near = nearest_name(wanted, table.columns, cutoff=0.5)
    hint = f"Did you mean '{near}'?" if near else f"The table has: {', '.join(map(str, table.columns[:12]))}"
    raise DataError(f"there is no column '{wanted}'", where=where, remedy=hint)


def refuse_absent(table: pd.DataFrame, wanted: Iterable[str], where: object) -> None:
    """Raise for all columns that the table lacks at once."""
    with all_at_once() as part:
        for column in wanted:
            with part():
                find_column(table, column, where)


def id_column(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """Return ids as int64 where all are whole numbers, else as text.

    Raises
    ------
    DataError
        For a floating-point column, a missing or a repeated id, with its row.
    """
    values = table[column]
    text = values.astype(str).str.strip()
    written = text[values.notna()]
    if pd.api.types.is_float_dtype(values) or (len(written) and written.str.fullmatch(_FLOAT).all()):
        reason = "18-digit identifiers do not survive a floating-point number"
        raise DataError(
            f"column '{column}' holds floating-point numbers: {reason}", where=path, remedy="Store it as text"
        )
    if values.isna().any():
        raise DataError(f"row {int(values.isna().to_numpy().argmax()) + 2}: no id in column '{column}'", where=path)
    whole = text.str.fullmatch(r"-?(0|[1-9]\d{0,18})").all()
    if whole and all(-(2**63) <= int(v) < 2**63 for v in text):
        ids = np.array([int(v) for v in text], dtype=np.int64)
    else:
        ids = text.to_numpy(dtype=str)
    repeated = pd.Series(ids).duplicated()
    if repeated.any():
        row = int(repeated.to_numpy().argmax())
        raise DataError(f"row {row + 2}: id {ids[row]} is there twice", where=path, remedy="Keep one row an object")
    return ids


def select(table: pd.DataFrame, where: str | None, path: Path) -> pd.DataFrame:
    """Keep the rows for which a pandas query is true; see `selected`."""
    return table if where is None else table.iloc[selected(table, where, path)]


def selected(table: pd.DataFrame, where: str | None, path: Path) -> np.ndarray:
    """Find the rows for which a pandas query is true, int64.

    The query compares columns and calls nothing: pandas itself would let it write files.

    Raises
    ------
    DataError
        Where the query is wrong or keeps nothing.
    """
    if where is None:
        return np.arange(len(table))
    try:
        # Columns with odd names stand in backticks, which pandas knows and Python does not.
        parsed = ast.parse(re.sub(r"`[^`]*`", "column", where), mode="eval")
        strangers = {type(node).__name__ for node in ast.walk(parsed) if not isinstance(node, _SELECTION)}
        if strangers:
            remedy = "Use names of columns, numbers, texts, comparisons, and, or, not"
            message = f"the selection '{where}' has a {', '.join(sorted(strangers))}"
            raise DataError(message, where=path, remedy=remedy)
        used = [column for column in table.columns if str(column) in where]
        true = table[used].eval(where)
        if not pd.api.types.is_bool_dtype(true):
            raise DataError(f"the selection '{where}' does not compare anything", where=path)
        rows = np.flatnonzero(pd.Series(true).fillna(False))
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"the selection '{where}' is wrong: {error}", where=path) from error
    if not len(rows):
        raise DataError(f"the selection '{where}' keeps no row", where=path)
    return rows


def take_rows(table: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Move rows to a table of their own, column by column, so that a large one is never there twice.

    The table that is given loses its columns.
    """
    columns = list(table.columns)
    return pd.DataFrame({name: table.pop(name).iloc[rows].reset_index(drop=True) for name in columns}, copy=False)

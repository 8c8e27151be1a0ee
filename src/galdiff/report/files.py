"""The files of a run, or of another evaluation, that a report is drawn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xarray as xr

from galdiff.errors import DataError, StoreError, reason
from galdiff.metrics.figure import Figure

__all__ = ["load_group", "load_json", "read_evaluation", "read_figures"]

_AGAIN = "Write it again: galdiff evaluate for an evaluation, galdiff-train CATALOG --redo STAGE for a stage"


def read_evaluation(folder: str | Path) -> dict[str, Any]:
    """Read the ``evaluation.json`` of a run, or of any folder that holds one, with a `Figure` for each of ``figures``.

    Raises
    ------
    DataError
        Where there is none, or it cannot be read.
    """
    path = Path(folder) / "evaluation.json"
    try:
        record = json.loads(path.read_text())
        return {**record, "figures": [Figure.from_dict(figure) for figure in record["figures"]]}
    except (FileNotFoundError, NotADirectoryError) as error:
        remedy = "Judge a run with galdiff evaluate RUN"
        raise DataError("there is no evaluation here", where=folder, remedy=remedy) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot be read as an evaluation: {reason(error)}", where=path) from error


def read_figures(folder: str | Path) -> list[Figure]:
    """Read the figures of an evaluation.

    Raises
    ------
    DataError
        As `read_evaluation`.
    """
    figures: list[Figure] = read_evaluation(folder)["figures"]
    return figures


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is no file, a `DataError` where it is damaged."""
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot be read: {reason(error)}", where=path, remedy=_AGAIN) from error


def load_group(path: Path, group: str | None = None) -> xr.Dataset:
    """Load a Zarr group; empty where there is none, a `StoreError` where it is damaged."""
    if not (path / (group or "") / "zarr.json").is_file():
        return xr.Dataset()
    try:
        return xr.open_zarr(path, group=group, consolidated=False).load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StoreError(f"cannot be read: {reason(error)}", where=path, remedy=_AGAIN) from error

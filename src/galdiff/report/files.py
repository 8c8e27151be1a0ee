"""The files a report is drawn from: evaluations, JSON objects, and groups of arrays with a hash of their values.

For a chunk that is gone Zarr gives its fill value, so that a store which lost half of its samples looks whole but for
the hash.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from galdiff.errors import DataError, StoreError, reason
from galdiff.latents.columns import digest
from galdiff.metrics.figure import Figure

__all__ = ["load_group", "load_json", "read_evaluation", "read_figures", "write_group"]

_HASH = "values_sha256"
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


def write_group(data: xr.Dataset, path: Path, group: str | None = None) -> None:
    """Write a Zarr group, in place of one that is there, with the hash of its values."""
    data = data.assign_attrs({_HASH: _digest(data)})
    data.to_zarr(path, group=group, mode="w", zarr_format=3, consolidated=False)


def load_group(path: Path, group: str | None = None) -> xr.Dataset:
    """Load a Zarr group; empty where there is none, a `StoreError` where it is damaged or has lost values."""
    if not (path / (group or "") / "zarr.json").is_file():
        return xr.Dataset()
    try:
        data = xr.open_zarr(path, group=group, consolidated=False).load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StoreError(f"cannot be read: {reason(error)}", where=path, remedy=_AGAIN) from error
    if _HASH in data.attrs and data.attrs[_HASH] != _digest(data):
        what = f"group '{group}'" if group else "what it holds"
        raise StoreError(f"{what} does not match its hash", where=path, remedy=_AGAIN)
    return data


def _digest(data: xr.Dataset) -> str:
    """Hash names, dimensions and values."""
    parts: list[np.ndarray] = []
    for name in sorted(map(str, data.variables)):
        variable = data.variables[name]
        values = variable.to_numpy()
        if values.dtype.kind == "f":
            if (missing := np.isnan(values)).any():  # images, the largest of what is hashed, are not copied
                values = np.where(missing, values.dtype.type(np.nan), values)  # one of its many forms
        elif values.dtype.kind not in "iub":
            values = values.astype(object).astype(str)
        parts += [np.array([name, *map(str, variable.dims), *map(str, values.shape)]), values.ravel()]
    return digest(*parts)

"""The record of a simulation: a folder that has one is whole, and was made with the arguments that it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from galdiff.errors import DataError

__all__ = ["is_recorded", "make_folder"]


def is_recorded(path: Path, record: dict[str, Any]) -> bool:
    """Whether a record is there.

    Raises
    ------
    DataError
        Where it is another one, or none at all.
    """
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError("is not a simulation record", where=path, remedy="Remove the folder") from error
    if found != record:
        remedy = "Remove it or write elsewhere; a run archives it with --redo cutouts"
        raise DataError(f"holds another simulation, {found}", where=path.parent, remedy=remedy)
    return True


def make_folder(folder: Path, *, of: Path | None = None) -> None:
    """Make a folder of a simulation; a file in its place is an error of the folder ``of``, by default this one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError("is a file, not a folder", where=of or folder, remedy="Write elsewhere") from error

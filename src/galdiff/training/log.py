"""``metrics.jsonl``: one JSON line a log line, for every stage of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from galdiff.atomic import read_json_lines, resource_errors, write_text

__all__ = ["Names", "append_metrics", "describe_step", "name_rows", "read_metrics", "rewind_metrics"]

_NAMED = 12


class Names(Protocol):
    """What rows are called: an array, or what reads it where it is asked for."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return the names of rows, int64 ``(n,)``."""


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    """Append a line."""
    with resource_errors(path), open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def read_metrics(path: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """Read the whole lines, of one stage by choice; a line cut by a crash is left out."""
    return [line for line in read_json_lines(path) if stage is None or line.get("stage") == stage]


def rewind_metrics(path: Path, stage: str, images: int) -> None:
    """Drop a stage's lines past a position, all of them past -1: what a resumed training will write again."""
    lines = read_metrics(path)
    kept = [line for line in lines if line.get("stage") != stage or line.get("images", 0) <= images]
    if path.is_file():
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    for abandoned in path.parent.glob(f".{path.name}.*.tmp"):  # of a rewinding that was killed
        abandoned.unlink()


def describe_step(step: int, positions: range, rows: Tensor, ids: Names | None) -> dict[str, Any]:
    """Say what a step was shown, as JSON: positions, rows and, where they are known, what the rows are called."""
    at = {"step": step, "positions": [positions.start, positions.stop], "rows": rows.tolist()}
    return at if ids is None else {**at, "ids": ids[rows.numpy()].tolist()}


def name_rows(step: dict[str, Any]) -> str:
    """Name the first rows of what `describe_step` gave, in a message."""
    kind = "ids" if "ids" in step else "rows"
    first, more = step[kind][:_NAMED], len(step[kind]) > _NAMED
    return f"at step {step['step']} of {kind} {', '.join(map(str, first))}{', …' if more else ''}"

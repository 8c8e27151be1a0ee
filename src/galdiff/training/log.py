"""``metrics.jsonl``: one JSON line a log line, for every stage of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from galdiff.atomic import resource_errors, write_text

__all__ = ["append_metrics", "read_metrics", "rewind_metrics"]


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    """Append a line."""
    with resource_errors(path), open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def read_metrics(path: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """Read the whole lines, of one stage by choice; a line cut by a crash is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if stage is None or line.get("stage") == stage:
            lines.append(line)
    return lines


def rewind_metrics(path: Path, stage: str, images: int) -> None:
    """Drop a stage's lines past a position: what a resumed training will write again."""
    lines = read_metrics(path)
    kept = [line for line in lines if line.get("stage") != stage or line.get("images", 0) <= images]
    if path.is_file():
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    for abandoned in path.parent.glob(f".{path.name}.*.tmp"):  # of a rewinding that was killed
        abandoned.unlink()

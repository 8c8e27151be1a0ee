"""The run directory: which stages are finished, from what inputs, and what to do when those have changed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from galdiff.atomic import write_json
from galdiff.errors import GaldiffError, ResourceError, StaleRunError
from galdiff.stages import ARTIFACTS, STAGES
from galdiff.training import rewind_metrics

__all__ = ["Run", "differences"]


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """List what differs between two JSON values, one line a leaf."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for name in sorted(old.keys() | new.keys()):
            dotted = f"{key}.{name}" if key else name
            lines += differences(old.get(name), new.get(name), dotted)
        return lines
    return [] if old == new else [f"{key}: {json.dumps(old)} -> {json.dumps(new)}"]


class Run:
    """A run directory.

    A stage is finished when ``stages/<name>.json`` exists, which is written last and holds the inputs it was made
    from. Its inputs include those of the stages before it, so that a change upstream is seen everywhere.

    Parameters
    ----------
    folder : Path
        The run directory; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / "stages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "Give another folder with --out"
            raise ResourceError(
                f"cannot write the run directory: {error.strerror}", where=folder, remedy=remedy
            ) from error

    def record(self, stage: str) -> dict[str, Any] | None:
        """Return a finished stage's record, None where it is not finished."""
        return self._read(stage, f"{stage}.json", "inputs")

    def begun(self, stage: str) -> dict[str, Any] | None:
        """Return the inputs a stage was begun with, None where it was never begun."""
        return self._read(stage, f"{stage}.begun.json")

    def _read(self, stage: str, name: str, *keys: str) -> dict[str, Any] | None:
        path = self.folder / "stages" / name
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            value = None
        if not isinstance(value, dict) or not value.keys() >= set(keys):
            remedy = f"Remove the file, and the stage goes on with what it has, or do it again with --redo {stage}"
            raise GaldiffError(f"the record of stage '{stage}' is damaged", where=path, remedy=remedy)
        return value

    def changes(self, stage: str, inputs: Mapping[str, Any]) -> list[str]:
        """List what differs from the inputs that a stage was begun or finished with; nothing where it never was."""
        record = self.record(stage)
        before = record["inputs"] if record else self.begun(stage)
        if before is None:
            return []
        lines = differences(before, json.loads(json.dumps(inputs)))
        # Of the stages before, a stage knows but a hash, which says nothing to anybody.
        own = [line for line in lines if not line.startswith("after: ")]
        return own if own or not lines else [f"another {self._unlike(stage)} came before it"]

    def _unlike(self, stage: str) -> str:
        """Name the stages that may have changed before this one: those without a trace, or any."""
        before = STAGES[: STAGES.index(stage)]
        lost = [name for name in before if self.record(name) is None and self.begun(name) is None]
        return " or ".join(f"'{name}'" for name in lost or before)

    def compare(self, stage: str, inputs: Mapping[str, Any]) -> None:
        """Refuse inputs that are others than a stage was begun or finished with.

        Raises
        ------
        StaleRunError
            With what changed.
        """
        changed = self.changes(stage, inputs)
        if changed:
            lines = "\n  ".join(changed)
            remedy = f"Undo the change, use another name, or archive the old one and do it again with --redo {stage}"
            message = f"stage '{stage}' was made from other inputs:\n  {lines}"
            raise StaleRunError(message, where=self.folder, remedy=remedy)

    def do(self, stage: str, inputs: Mapping[str, Any], work: Callable[[], Mapping[str, Any] | None]) -> bool:
        """Do a stage unless it is finished.

        Parameters
        ----------
        stage : str
            One of `STAGES`.
        inputs : mapping
            JSON: everything its result depends on.
        work : callable
            Does the stage, resuming what it finds; may return notes for the record.

        Returns
        -------
        bool
            Whether there was anything to do.

        Raises
        ------
        StaleRunError
            Where the stage was begun or finished from other inputs, with what changed.
        """
        inputs = json.loads(json.dumps(inputs))
        self.compare(stage, inputs)
        if self.record(stage):
            return False
        write_json(self.folder / "stages" / f"{stage}.begun.json", inputs)
        start = time.monotonic()
        notes = work() or {}
        seconds = round(time.monotonic() - start, 1)
        write_json(self.folder / "stages" / f"{stage}.json", {"inputs": inputs, "seconds": seconds, **notes})
        return True

    def reopen(self, stage: str) -> None:
        """Make a finished stage one that was begun, which goes on when the flow is run again."""
        (self.folder / "stages" / f"{stage}.json").unlink(missing_ok=True)

    def archive(self, stage: str) -> Path | None:
        """Move a stage and everything made from it to ``archive/``; return where, None where there was nothing."""
        stamp = time.strftime("%Y%m%dT%H%M%S")
        target = self.folder / "archive" / f"{stamp}-{stage}"
        number = 1
        while target.exists():
            target = self.folder / "archive" / f"{stamp}-{stage}-{(number := number + 1)}"
        moved = False
        for name in STAGES[STAGES.index(stage) :]:
            records = (f"stages/{name}.json", f"stages/{name}.begun.json")
            # Records go first: whatever is interrupted here, a stage without its files never looks finished.
            for item in (*records, *ARTIFACTS[name]):
                if (self.folder / item).exists():
                    (target / item).parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(self.folder / item, target / item)
                    moved = True
        if moved and (self.folder / "metrics.jsonl").exists():
            shutil.copy2(self.folder / "metrics.jsonl", target / "metrics.jsonl")
            for name in STAGES[STAGES.index(stage) :]:
                rewind_metrics(self.folder / "metrics.jsonl", name, -1)
        return target if moved else None

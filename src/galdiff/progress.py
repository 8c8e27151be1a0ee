"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["StageProgress", "quiet", "say", "stage_progress"]

_EVERY = 5.0  # seconds between plain lines: often enough to see life in a batch system's log
_REDRAW = 0.1
_quiet = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Show no progress inside the block."""
    global _quiet
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1


def say(stage: str, text: str) -> None:
    """Say something about a stage before it begins, a line."""
    if not _quiet:
        print(f"{stage:<12}{text}", file=sys.stderr, flush=True)  # noqa: T201


class StageProgress:
    """Counts what is done and says so from time to time; made by `stage_progress`.

    Parameters
    ----------
    stage : str
        Name of the stage.
    total : int
        How many units there are; may be set anew as an estimate gets better.
    unit : str
        What is counted.
    done : int
        How many were done by an earlier run.
    """

    def __init__(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self.stage, self.total, self.unit, self.done = stage, total, unit, done
        self.figures: dict[str, float] = {}
        self._start, self._first, self._shown = time.monotonic(), done, time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not _quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(stage, total=total, completed=done, text="")
            self._bar.start()

    @property
    def rate(self) -> float:
        """Units a second since this run began."""
        return (self.done - self._first) / max(1e-9, time.monotonic() - self._start)

    def update(self, count: int, **figures: float) -> None:
        """Add to what is done; figures are shown beside it."""
        self.done += count
        self.figures |= figures
        now = time.monotonic()
        if not _quiet and now - self._shown >= (_REDRAW if self._bar else _EVERY):
            self._shown = now
            self._show()

    def close(self) -> None:
        """Show the final state."""
        if not _quiet:
            self._show()
        if self._bar:
            self._bar.stop()

    def _show(self) -> None:
        share = 100 * self.done // max(1, self.total)
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        text = f"{self.done:,}/{self.total:,} {self.unit}  {share} %  {self.rate:,.0f} {self.unit}/s"
        text = f"{text}  {figures}" if figures else text
        if self._bar:
            self._bar.update(self._task, completed=self.done, total=self.total, text=text)
        else:
            left = (self.total - self.done) / max(1e-9, self.rate)
            eta = f"  eta {int(left) // 60}:{int(left) % 60:02d}" if 0 < left < 360_000 else ""
            print(f"{self.stage:<12}{text}{eta}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def stage_progress(stage: str, *, total: int, unit: str, done: int = 0) -> Iterator[StageProgress]:
    """Show the progress of a stage.

    Parameters
    ----------
    stage : str
        Name of the stage.
    total : int
        How many units there are.
    unit : str
        What is counted, in the plural.
    done : int
        How many an earlier run has done.

    Yields
    ------
    StageProgress
        Call its ``update(count, **figures)``.
    """
    bar = StageProgress(stage, total, unit, done)
    try:
        yield bar
    finally:
        bar.close()

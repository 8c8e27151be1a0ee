"""Signals that ask a training to stop: collected, and heeded between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Interrupted", "signals"]


class Interrupted(SystemExit):
    """A signal asked to stop; a checkpoint was saved. Exit code 75 (try again), 130 for a keyboard interrupt."""


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect signals that ask to stop; the handler sets a flag and nothing else."""
    caught: list[int] = []
    old = {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        try:
            old[number] = signal.signal(number, lambda number, _: caught.append(number))
        except ValueError:  # not the main thread: its owner handles signals
            break
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

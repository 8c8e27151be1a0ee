"""What is known of the steps between two log lines, on the device until the line is written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galdiff.training.checkpoint import fault
from galdiff.training.log import Names, append_metrics, describe_step
from galdiff.training.order import RowOrder
from galdiff.training.state import TrainingState

__all__ = ["StepLog"]

_SHOWN = 4


class StepLog:
    """Sums of figures, and which steps were skipped, since the last line.

    Parameters
    ----------
    state : TrainingState
        With the position and the counters.
    order : RowOrder
        What a skipped step was shown.
    stage : str
        Name in the lines.
    metrics : Path, optional
        ``metrics.jsonl`` to append to.
    ids : Names, optional
        What the rows are called.
    """

    def __init__(
        self, state: TrainingState, order: RowOrder, *, stage: str, metrics: Path | None, ids: Names | None
    ) -> None:
        self.state, self.order, self.stage, self.metrics, self.ids = state, order, stage, metrics, ids
        self._begin(int(state.skipped))

    def _begin(self, skipped: int) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps: list[tuple[int, range, Tensor]] = []
        self._images, self._skipped, self._time = self.state.images, skipped, time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._time

    def add(self, step: int, positions: range, finite: Tensor, figures: Mapping[str, Tensor]) -> None:
        """Note a step, with whether its gradient was finite (0-d, 1 or 0) and its figures; nothing waits for them."""
        self._steps.append((step, positions, finite))
        for name, value in figures.items():
            value = value.detach().float()
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + torch.where(finite > 0, value, 0.0)

    def write(self, *, seconds: float, learning_rate: float) -> dict[str, Any]:
        """Write a line, which is where the device is waited for; return it and begin anew.

        Means are over the steps that were not skipped. Of those that were, the last four are named in ``skipped_rows``.
        """
        skipped = int(self.state.skipped)
        good = len(self._steps) - (skipped - self._skipped)
        line = {
            "stage": self.stage,
            "images": self.state.images,
            **({name: float(total) / good for name, total in self._sums.items()} if good else {}),
            "learning_rate": learning_rate,
            "images_per_second": round((self.state.images - self._images) / max(1e-9, self.age), 2),
            "seconds": round(seconds, 3),
            "skipped_steps": skipped,
        }
        if skipped > self._skipped:
            line["skipped_rows"] = self._find_skipped()
        if self.metrics:
            append_metrics(self.metrics, line)
            fault("after-log")
        self._begin(skipped)
        return line

    def _find_skipped(self) -> list[dict[str, Any]]:
        finite = torch.stack([ok for *_, ok in self._steps]).tolist()
        skipped = [(step, at) for (step, at, _), ok in zip(self._steps, finite, strict=True) if not ok]
        return [describe_step(step, at, self.order.at(at), self.ids) for step, at in skipped[-_SHOWN:]]

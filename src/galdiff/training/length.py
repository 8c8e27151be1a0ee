"""How long a training is, and how far it is."""

from __future__ import annotations

import time

from galdiff.training.state import TrainingState

__all__ = ["Length"]


class Length:
    """A count of images, or seconds over all sessions; it begins when it is made.

    Parameters
    ----------
    state : TrainingState
        With the position so far.
    images : int
        The count.
    budget : float, optional
        The seconds, in place of the count.
    early_stopping : int, optional
        Validations in a row without a smaller loss that end it before.
    """

    def __init__(
        self, state: TrainingState, *, images: int, budget: float | None = None, early_stopping: int | None = None
    ) -> None:
        self.state, self.images, self.budget, self.early_stopping = state, images, budget, early_stopping
        self._begun = time.monotonic() - state.seconds

    @property
    def seconds(self) -> float:
        """Spent over all sessions."""
        return time.monotonic() - self._begun

    @property
    def share(self) -> float:
        """How far it is, from 0 to 1."""
        return min(1.0, self.seconds / self.budget if self.budget else self.state.images / self.images)

    def marks(self, count: int) -> int:
        """Return how many of so many even parts are over."""
        # Counts in whole numbers: a share is rounded, and a resumed training must come to the same.
        return int(count * self.share) if self.budget else count * self.state.images // self.images

    @property
    def reached(self) -> bool:
        """Whether it is over."""
        if self.early_stopping and self.state.worse_in_a_row >= self.early_stopping:
            return True
        return self.state.images >= self.images if self.budget is None else self.seconds >= self.budget

    def batch(self, size: int) -> range:
        """Return the positions of the next step; the last one of a count may be smaller."""
        size = size if self.budget else min(size, self.images - self.state.images)
        return range(self.state.images, self.state.images + size)

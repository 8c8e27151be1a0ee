r"""The order in which a training sees its rows.

Position p shows row :math:`\pi_{\lfloor p / n \rfloor}(p \bmod n)`, with :math:`\pi_e` the permutation of epoch e.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from galdiff.randomness import permutation

__all__ = ["RowOrder"]


class RowOrder:
    """Rows by global sample position.

    Parameters
    ----------
    rows : int
        How many there are.
    seed : int
        Seed of the permutations.
    order : callable, optional
        ``order(seed, epoch)``, whose slices are the rows of an epoch, in place of a permutation of all.
    """

    def __init__(self, rows: int, seed: int, order: Callable[[int, int], Any] | None = None) -> None:
        self.rows, self.seed, self._order = rows, seed, order
        self._epochs: dict[int, Any] = {}

    def at(self, positions: range) -> Tensor:
        """Return the rows of a step, int64 ``(batch,)``; epochs that it has nothing of are forgotten."""
        epochs = range(positions[0] // self.rows, positions[-1] // self.rows + 1)
        self._epochs = {e: self._epochs[e] if e in self._epochs else self._epoch(e) for e in epochs}
        spans = [slice(max(0, positions.start - e * self.rows), positions.stop - e * self.rows) for e in epochs]
        return torch.cat([self._epochs[e][span] for e, span in zip(epochs, spans, strict=True)])

    def _epoch(self, e: int) -> Any:
        if self._order is not None:
            return self._order(self.seed, e)
        return torch.from_numpy(permutation(self.seed, e, self.rows))

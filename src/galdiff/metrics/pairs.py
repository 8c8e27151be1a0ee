r"""Squared distances between all pairs of rows, in blocks.

.. math:: |x - y|^2 = |x|^2 + |y|^2 - 2 x \cdot y

is one matrix product, but loses the digits of close pairs. So it only screens: pairs whose comparison its rounding
could turn are measured again from their differences. The answers are those of exact arithmetic on the differences.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Pairs", "nearest"]

_BLOCK = 1 << 23  # Numbers of a block: 64 MiB.


class Pairs:
    """The pairs of the rows of two sets.

    Parameters
    ----------
    x, y : Tensor
        float64 ``(n, d)`` and ``(m, d)``.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        center = y.mean(dim=0)
        self._x, self._y = x - center, y - center
        self._xx, self._yy = self._x.square().sum(dim=1)[:, None], self._y.square().sum(dim=1)
        eps = torch.finfo(x.dtype).eps
        self._slack = 4 * (x.shape[1] + 8) * eps
        self._tie = 1 - x.shape[1] * eps

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield runs of rows of x, and their squared distances to all of y ``(rows, m)``, to rounding."""
        rows = max(1, _BLOCK // len(self.y))
        for start in range(0, len(self.x), rows):
            run = slice(start, min(start + rows, len(self.x)))
            yield run, torch.addmm(self._yy + self._xx[run], self._x[run], self._y.T, alpha=-2)

    def slack(self, run: slice) -> Tensor:
        """Bound of the rounding of a block."""
        return self._slack * (self._xx[run] + self._yy)

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Squared distances of the pairs (i, j), from their differences."""
        parts = zip(i.split(rows := max(1, _BLOCK // self.x.shape[1])), j.split(rows), strict=True)
        return torch.cat([(self.x[p] - self.y[q]).square().sum(dim=1) for p, q in parts])

    def closer(self, run: slice, squared: Tensor, limit: Tensor, slack: Tensor) -> Tensor:
        """Whether squared distances of a block are below a limit that broadcasts to them; ties are not."""
        limit = limit.expand_as(squared)
        inside = squared < limit
        i, j = torch.nonzero((squared - limit).abs() <= slack, as_tuple=True)
        if len(i):
            inside[i, j] = self.exact(i + run.start, j) < limit[i, j] * self._tie
        return inside


def nearest(x: Tensor, y: Tensor, k: int, *, same: bool = False) -> tuple[Tensor, Tensor]:
    """Return the squared distances ``(n, k)`` to the k nearest rows of y, ascending, and which rows they are.

    Parameters
    ----------
    x, y : Tensor
        float64 ``(n, d)`` and ``(m, d)``.
    k : int
        Neighbors; fewer than there are.
    same : bool
        Both are one set, whose rows are not their own neighbors.
    """
    pairs, distances, rows = Pairs(x, y), [], []
    for run, squared in pairs.blocks():
        here = torch.arange(run.start, run.stop, device=x.device)
        if same:
            squared[here - run.start, here] = torch.inf
        screened, candidate = squared.topk(min(k + 4, squared.shape[1]), dim=1, largest=False)
        found = _measure(pairs, here, candidate, same)
        # The farthest candidate must be farther than the k-th neighbor beyond all rounding, else any row may be one.
        doubt = 2 * pairs.slack(run).amax(dim=1)
        unsure = screened[:, -1] - doubt <= found.sort(dim=1).values[:, k - 1]
        if candidate.shape[1] == squared.shape[1]:
            unsure[:] = False
        order = found.argsort(dim=1, stable=True)[:, :k]
        distance, index = found.gather(1, order), candidate.gather(1, order)
        everyone = torch.arange(squared.shape[1], device=x.device)
        for row in torch.nonzero(unsure)[:, 0].tolist():
            full = _measure(pairs, here[row : row + 1], everyone[None], same)[0]
            index[row] = full.argsort(stable=True)[:k]
            distance[row] = full[index[row]]
        distances.append(distance)
        rows.append(index)
    return torch.cat(distances), torch.cat(rows)


def _measure(pairs: Pairs, i: Tensor, candidate: Tensor, same: bool) -> Tensor:
    """Exact squared distances of rows to their candidates ``(n, c)``; infinite to themselves in one set."""
    i = i[:, None].expand_as(candidate)
    exact = pairs.exact(i.flatten(), candidate.flatten()).view_as(candidate)
    return torch.where(i == candidate, torch.inf, exact) if same else exact

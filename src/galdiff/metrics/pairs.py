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
        x, y = x - center, y - center
        xx, yy = (z.square().sum(dim=1, keepdim=True) for z in (x, y))
        # All three terms in one product.
        self._left = torch.cat([-2 * x, xx, torch.ones_like(xx)], dim=1)
        self._right = torch.cat([y, torch.ones_like(yy), yy], dim=1)
        eps = torch.finfo(x.dtype).eps
        # Bound of the rounding of what `blocks` yields.
        self.slack = float(4 * (x.shape[1] + 8) * eps * (xx.max() + yy.max()))
        self._tie = 1 - x.shape[1] * eps

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield runs of rows of x, and their squared distances to all of y ``(rows, m)``, to rounding."""
        rows = max(1, _BLOCK // len(self.y))
        for start in range(0, len(self.x), rows):
            run = slice(start, min(start + rows, len(self.x)))
            yield run, self._left[run] @ self._right.T

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Squared distances of the pairs (i, j), from their differences."""
        parts = zip(i.split(rows := max(1, _BLOCK // self.x.shape[1])), j.split(rows), strict=True)
        return torch.cat([(self.x[p] - self.y[q]).square_().sum(dim=1) for p, q in parts])

    def closer(self, run: slice, squared: Tensor, limit: Tensor) -> Tensor:
        """Whether squared distances of a block are below a limit that broadcasts to them; ties are not."""
        inside = squared < limit - self.slack
        i, j = torch.nonzero((squared <= limit + self.slack) & ~inside, as_tuple=True)
        if len(i):
            inside[i, j] = self.exact(i + run.start, j) < limit.expand_as(squared)[i, j] * self._tie
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
    everyone = torch.arange(len(y), device=x.device)
    for run, squared in pairs.blocks():
        here = torch.arange(run.start, run.stop, device=x.device)
        if same:
            squared[here - run.start, here] = torch.inf
        screened, candidate = squared.topk(min(k + 1, len(y)), dim=1, largest=False)
        # Of neighbors that are as far the first are taken.
        distance, index = _best(pairs, here, candidate.sort(dim=1).values, k, same)
        # What was passed over must be farther than the k-th neighbor beyond all rounding, else any row may be one.
        unsure = (screened[:, -1] - 2 * pairs.slack <= distance[:, -1]) & (candidate.shape[1] < len(y))
        for row in torch.nonzero(unsure)[:, 0].tolist():
            full = _best(pairs, here[row : row + 1], everyone[None], k, same)
            distance[row], index[row] = full[0][0], full[1][0]
        distances.append(distance)
        rows.append(index)
    return torch.cat(distances), torch.cat(rows)


def _best(pairs: Pairs, i: Tensor, candidate: Tensor, k: int, same: bool) -> tuple[Tensor, Tensor]:
    """Exact squared distances of rows to the k nearest of their candidates ``(n, c)``, and which those are."""
    i = i[:, None].expand_as(candidate)
    exact = pairs.exact(i.flatten(), candidate.flatten()).view_as(candidate)
    exact = torch.where(i == candidate, torch.inf, exact) if same else exact
    order = exact.argsort(dim=1, stable=True)[:, :k]
    return exact.gather(1, order), candidate.gather(1, order)

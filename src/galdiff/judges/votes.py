"""A judge of votes: what volunteers would answer, learned from what they did, and read on generated images.

Its network ends in the concentrations of a Dirichlet distribution for every question and is trained by the
Dirichlet-multinomial likelihood of the votes (Walmsley et al. 2022, MNRAS 509, 3966): questions that nobody was asked
teach nothing, and those that few were asked teach little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from galdiff.errors import DataError
from galdiff.judges.body import Body, train
from galdiff.metrics.figure import Figure
from galdiff.metrics.votes import FOUND, STATISTICS, VoteComparison, dirichlet_multinomial_nll
from galdiff.nn.dihedral import dihedral, is_reflection
from galdiff.randomness import integers
from galdiff.schema.trees import QuestionTree

__all__ = ["VoteHead", "VoteJudge", "vote_figures"]

LOWEST, HIGHEST = 0.02, 500.0
"""Concentrations that a head can predict. Unlike in the paper they may be below one: a feature that is plainly there in
some galaxies and plainly absent in others, which the judge cannot tell apart."""
MINIMUM = 30
"""Galaxies, counted by reach, below which the figures of a question are "too few"."""
_FREEDOM = 199  # draws, less one, of what is quick to draw


class VoteHead(nn.Module):
    """Concentrations of a question tree from features.

    Parameters
    ----------
    inputs : int
        Features.
    tree : QuestionTree
        The questions.
    """

    def __init__(self, inputs: int, tree: QuestionTree) -> None:
        super().__init__()
        self.tree = tree
        self.linear = nn.Linear(inputs, len(tree.answers))

    def forward(self, features: Tensor) -> Tensor:
        """Return concentrations ``(n, answers)``: nearly exponential, with soft ends."""
        return LOWEST + HIGHEST * torch.sigmoid(self.linear(features) - 4.0)

    def loss(self, features: Tensor, votes: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over galaxies of the mean over their answered questions.

        Parameters
        ----------
        features : Tensor
            ``(n, inputs)``.
        votes : Tensor
            ``(n, answers)``.
        mask : Tensor
            bool ``(n, questions)``, True where known.
        """
        nll = dirichlet_multinomial_nll(self(features), votes, self.tree)
        slices = map(self.tree.answer_slice, range(mask.shape[1]))
        answered = mask & torch.stack([votes[:, s].sum(dim=1) > 0 for s in slices], dim=1)
        return (nll * answered).sum() / answered.sum().clamp_min(1)


class VoteJudge(nn.Module):
    """Convolutional judge of votes.

    Parameters
    ----------
    bands : int
        Bands of the images.
    tree : QuestionTree
        The questions.
    width : int
        Channels of the first level.
    """

    def __init__(self, bands: int, tree: QuestionTree, *, width: int = 32) -> None:
        super().__init__()
        self.tree = tree
        self.body = Body(bands, width=width)
        self.head = VoteHead(self.body.outputs, tree)

    def forward(self, x: Tensor) -> Tensor:
        """Return concentrations ``(n, answers)`` of stretched images."""
        return self.head(self.body(x))

    def fit(
        self,
        images: Any,
        votes: Any,
        mask: Any,
        *,
        seed: int = 0,
        seen: int = 16_000,
        batch: int = 64,
        learning_rate: float = 2e-3,
    ) -> VoteJudge:
        """Train, with turned and reflected images; reflections swap the votes of mirror answers.

        Parameters
        ----------
        images : array_like
            Stretched images ``(n, band, y, x)``, square.
        votes, mask : array_like
            Votes ``(n, answers)``, and whether a question is known, bool ``(n, questions)`` (`Conditions`).
        seed, seen, batch, learning_rate
            As in `Classifier.fit`.

        Returns
        -------
        VoteJudge
            Self, in evaluation mode.

        Raises
        ------
        DataError
            For votes that do not go with the images or the tree.
        """
        x = torch.as_tensor(np.asarray(images))
        k, known = torch.as_tensor(np.asarray(votes)).float(), torch.as_tensor(np.asarray(mask))
        shapes = ((len(x), len(self.tree.answers)), (len(x), len(self.tree.questions)))
        if (tuple(k.shape), tuple(known.shape)) != shapes:
            raise DataError(f"votes {tuple(k.shape)} and masks {tuple(known.shape)} are not of {self.tree.name}")
        order = self.tree.mirrored()

        def loss(rows: Tensor, positions: Tensor) -> Tensor:
            element = integers(seed, "judge", positions, 8)
            target = torch.where(is_reflection(element)[:, None], k[rows][:, order], k[rows])
            return self.head.loss(self.body(dihedral(x[rows].float(), element)), target, known[rows])

        train(self, len(x), loss, seed=seed, seen=seen, batch=batch, learning_rate=learning_rate)
        return self

    @torch.no_grad()
    def predict(self, images: Any) -> np.ndarray:
        """Return concentrations, float64 ``(n, answers)``."""
        x = torch.as_tensor(np.asarray(images))
        return torch.cat([self(part.float()) for part in x.split(256)]).double().numpy()


def vote_figures(
    generated: Any,
    asked: Any,
    asked_mask: Any,
    real: Any,
    votes: Any,
    mask: Any,
    tree: QuestionTree,
    *,
    seed: int = 0,
    draws: int = 20,
) -> list[Figure]:
    """Measure how votes on generated images follow what was asked for, beside real images and their own votes.

    Parameters
    ----------
    generated : array_like
        Concentrations of generated images ``(n, answers)`` by a judge that was trained on real ones.
    asked, asked_mask : array_like
        The votes of their conditions, and whether a question was asked for.
    real, votes, mask : array_like
        The same of held-out real images: the floor.
    tree : QuestionTree
        The questions.
    seed, draws : int
        Of the simulated votes and the bootstrap over images.

    Returns
    -------
    list of Figure
        ``votes_<statistic>[<question>]`` for every statistic of `vote_calibration`, with bootstrap errors, and
        ``votes_found[<answer>]``, which sees few objects without what they were asked for (`galdiff.metrics.votes`).
    """
    rng = np.random.default_rng(seed)
    sets = [VoteComparison(*given, tree, seed=seed) for given in ((generated, asked, asked_mask), (real, votes, mask))]
    measured, found, intercepts = [], [], sets[1].intercepts()
    for rows in sets:
        # Drawing rows with replacement is drawing how often each counts.
        once, odds = np.ones(len(rows)), np.full(len(rows), 1 / len(rows))
        drawn = [rows.summary(rng.multinomial(len(rows), odds)) for _ in range(draws)]
        spread = xr.concat([d[list(STATISTICS)] for d in drawn], dim="draw").std("draw", skipna=True)
        measured += [rows.summary(once), spread]
        slopes = [rows.found(intercepts, rng.multinomial(len(rows), odds)) for _ in range(_FREEDOM + 1)]
        found += [rows.found(intercepts, once), np.std(slopes, axis=0)]
    figures = []
    for q, question in enumerate(tree.questions):
        n = int(min(measured[0]["galaxies"][q], measured[2]["galaxies"][q]))
        for name, protocol in STATISTICS.items():
            numbers = [float(d[name][q]) for d in measured]
            title, weighted = f"votes_{name}[{question.name}]", f"{protocol}; weighted by reach"
            figures.append(_figure(title, numbers, n, weighted, draws - 1))
    asked_for = np.min([(rows.weight * rows.asked).sum(axis=0) for rows in sets], axis=0)
    for a, answer in enumerate(tree.answers):
        numbers, title = [float(x[a]) for x in found], f"votes_found[{answer.name}]"
        figures.append(_figure(title, numbers, int(asked_for[a]), FOUND, _FREEDOM))
    return figures


def _figure(name: str, numbers: Sequence[float], n: int, protocol: str, freedom: int) -> Figure:
    if n < MINIMUM:
        return Figure.too_few(name, n, protocol, f"asked of {n} galaxies, {MINIMUM} needed")
    value, error, floor, floor_error = numbers
    return Figure(name, value, error, floor, n, protocol, floor_error=floor_error, ideal=None, freedom=freedom)

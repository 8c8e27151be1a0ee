r"""Votes of volunteers: their likelihood, and whether a judge's predictions mean what they say.

The probability of votes k on a question, N in all, of whose answers the volunteers' probabilities have a Dirichlet
distribution with concentrations :math:`\alpha`, is Dirichlet-multinomial (Walmsley et al. 2022, MNRAS 509,
3966, eq. 1),

.. math:: p(k \mid \alpha, N) = \frac{\Gamma(A)\, N!}{\Gamma(N + A)}
          \prod_a \frac{\Gamma(k_a + \alpha_a)}{\Gamma(\alpha_a)\, k_a!}, \qquad A = \sum_a \alpha_a.

A question that nobody was asked has probability one. Every statistic weighs a galaxy by the question's *reach*: its
votes over those of the galaxy's question with the most.

Objects that lack what was asked for are few of a set, but some share of those that were asked for it. With f the asked
and p the predicted fraction of an answer, :math:`c + \beta f` the line of real images and w the share of the votes in
the mean of a Dirichlet posterior with a flat prior, it is seen by the slope through that intercept,

.. math:: \hat\beta = \frac{\sum_i w_i f_i (p_i - c)}{\sum_i w_i f_i^2}, \qquad
          \sigma(\hat\beta) \approx \frac{\sigma_p}{\sqrt{\sum_i w_i f_i^2}},

which falls in proportion: a tenth of the bars missing is a tenth of :math:`\beta`. However well they are read, a share
m missing of n objects stands out by no more than :math:`\sqrt{n m / (1 - m)}` standard deviations, the binomial ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.schema.trees import QuestionTree

__all__ = ["FOUND", "STATISTICS", "VoteComparison", "dirichlet_multinomial_nll", "vote_calibration"]

BINS = 10
_ROUNDING = 1e-12  # of a squared mean: a smaller variance is none
_SIGMA = {"68": 0.6827, "95": 0.9545}
STATISTICS = {
    "slope": "regression of the predicted on the asked fractions over all answers; the floor has the same attenuation",
    "bias": "half the sum over the answers of |mean predicted - mean asked fraction|",
    "calibration_error": f"mean |asked - predicted fraction| over {BINS} bins of equal reach, mean over the answers",
    "coverage68": "share of the asked votes inside the central 68.27 % of simulated votes; 0.683 is right",
    "coverage95": "share of the asked votes inside the central 95.45 % of simulated votes; 0.954 is right",
    "nll": "Dirichlet-multinomial negative log likelihood of the asked votes [nat]",
}
"""What `vote_calibration` measures of a question, and how."""
FOUND = (
    "slope of the predicted on the asked fractions through the intercept of real images, weighted by votes / (votes + "
    "answers); below the floor by the share of objects that lack what was asked for"
)
"""What `VoteComparison.found` measures of an answer."""


def _members(tree: QuestionTree) -> np.ndarray:
    """Which question each answer belongs to, float64 ``(answers, questions)``."""
    owner = [q for q, question in enumerate(tree.questions) for _ in question.answers]
    return np.eye(len(tree.questions))[owner]


def dirichlet_multinomial_nll(concentrations: Tensor, votes: Tensor, tree: QuestionTree) -> Tensor:
    """Return the negative log likelihood of votes, question by question.

    Parameters
    ----------
    concentrations, votes : Tensor
        ``(n, answers)``, the first positive; votes need not be whole numbers.
    tree : QuestionTree
        Which answers belong together.

    Returns
    -------
    Tensor
        ``(n, questions)`` [nat]; 0 where there are no votes.
    """
    member = torch.from_numpy(_members(tree)).to(concentrations)
    a, k = concentrations, votes.to(concentrations)
    total_a, total_k = a @ member, k @ member
    answers = (torch.lgamma(k + a) - torch.lgamma(a) - torch.lgamma(k + 1)) @ member
    return -(torch.lgamma(total_a) + torch.lgamma(total_k + 1) - torch.lgamma(total_k + total_a) + answers)


def vote_calibration(
    concentrations: Any, votes: Any, mask: Any, tree: QuestionTree, *, seed: int = 0, simulations: int = 200
) -> xr.Dataset:
    """Compare what a judge predicts with the votes that were asked for, or given.

    Parameters
    ----------
    concentrations : array_like
        Of the judge ``(n, answers)``.
    votes, mask : array_like
        Votes ``(n, answers)`` and whether a question is known, bool ``(n, questions)`` (`Conditions`).
    tree : QuestionTree
        The questions.
    seed, simulations : int
        Of the votes that are simulated from the Dirichlet distributions for the coverage.

    Returns
    -------
    xarray.Dataset
        Along ``question``: ``slope``, ``bias``, ``calibration_error``, ``coverage68``, ``coverage95``, ``nll`` (NaN
        where nobody was asked, slopes where all were asked the same) and ``galaxies``, their effective number. Along
        ``answer``: ``answer_slope`` and ``answer_bias``. Along ``answer`` and ``bin``, of equal reach by predicted
        fraction: ``predicted``, ``asked``.
    """
    rows = VoteComparison(concentrations, votes, mask, tree, seed=seed, simulations=simulations)
    return rows.summary(np.ones(len(rows)))


class VoteComparison:
    """What every galaxy contributes to `vote_calibration`, so that a bootstrap only sums again.

    Parameters
    ----------
    concentrations, votes, mask, tree, seed, simulations
        As in `vote_calibration`.
    """

    def __init__(
        self,
        concentrations: Any,
        votes: Any,
        mask: Any,
        tree: QuestionTree,
        *,
        seed: int = 0,
        simulations: int = 200,
    ) -> None:
        a, k = (np.asarray(x, dtype=np.float64) for x in (concentrations, votes))
        known = np.asarray(mask, dtype=bool)
        if a.shape != (len(k), len(tree.answers)) or k.shape != a.shape or known.shape != (len(k), len(tree.questions)):
            raise DataError(f"concentrations {a.shape}, votes {k.shape} and masks {known.shape} are not of {tree.name}")
        if not ((a > 0).all() and np.isfinite(a).all() and (k >= 0).all()):
            raise DataError("concentrations must be positive and votes must not be negative")
        self.tree, self.owner = tree, _members(tree).argmax(axis=1)
        total = self._sum(k)
        self.predicted = a / self._sum(a)[:, self.owner]
        self.asked = k / np.maximum(total[:, self.owner], 1e-9)
        most = np.maximum(np.where(known, total, 0).max(axis=1, keepdims=True), 1e-9)
        self.reach = np.where(known, total, 0) / most
        answers = np.bincount(self.owner)
        self.weight = np.where(known, total / (total + answers), 0)[:, self.owner]
        self.nll = dirichlet_multinomial_nll(torch.from_numpy(a), torch.from_numpy(k), tree).numpy()
        self.rank = _ranks(a, k, self._sum(a)[:, self.owner], total[:, self.owner], seed, simulations)
        self.order = np.argsort(self.predicted, axis=0, kind="stable")

    def __len__(self) -> int:
        return len(self.asked)

    def _sum(self, x: np.ndarray) -> np.ndarray:
        """Sum over the answers of every question; a question that is NaN leaves the others alone."""
        return np.add.reduceat(x, np.searchsorted(self.owner, np.arange(len(self.tree.questions))), axis=-1)

    def summary(self, times: np.ndarray) -> xr.Dataset:
        """Return the statistics with every galaxy counted so many times ``(n,)``."""
        answers = np.bincount(self.owner)
        w = self.reach * times[:, None]
        total = w.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (w / total)[:, self.owner]
            mean_p, mean_f = (share * self.predicted).sum(axis=0), (share * self.asked).sum(axis=0)
            gap_f = self.asked - mean_f
            variance = (share * gap_f**2).sum(axis=0)
            # Where all were asked the same, what is left is rounding.
            varies = variance > _ROUNDING * mean_f**2
            covariance, variance = (
                np.where(varies, v, 0.0) for v in ((share * gap_f * (self.predicted - mean_p)).sum(axis=0), variance)
            )
            inside = {
                f"coverage{name}": self._sum((share * (np.abs(self.rank - 0.5) < width / 2)).sum(axis=0)) / answers
                for name, width in _SIGMA.items()
            }
            weight, predicted, asked = self._bins(share)
            gaps = np.abs(predicted - asked).sum(axis=1)
            by_question = {
                "slope": self._sum(covariance) / self._sum(variance),
                "bias": self._sum(np.abs(mean_p - mean_f)) / 2,
                "calibration_error": np.where(total > 0, self._sum(gaps) / answers, np.nan),
                **inside,
                "nll": (w * self.nll).sum(axis=0) / total,
                "galaxies": np.nan_to_num(total**2 / (w**2 / np.maximum(times, 1)[:, None]).sum(axis=0)),
            }
            by_answer = {"answer_slope": covariance / variance, "answer_bias": mean_p - mean_f}
            bins = {"predicted": predicted / weight, "asked": asked / weight}
        data: dict[str, Any] = {name: ("question", values) for name, values in by_question.items()}
        data |= {name: ("answer", values) for name, values in by_answer.items()}
        data |= {name: (("answer", "bin"), values) for name, values in bins.items()}
        names = {"question": [q.name for q in self.tree.questions], "answer": [a.name for a in self.tree.answers]}
        return xr.Dataset(data, coords={k: np.asarray(v, dtype=object) for k, v in names.items()})

    def intercepts(self) -> np.ndarray:
        """Return what is predicted where nothing was asked for ``(answers,)``, by the line of least squares.

        NaN where one fraction other than 0 was asked of all, which makes no line.
        """
        total = np.maximum(self.weight.sum(axis=0), 1e-300)
        mean_p, mean_f = ((self.weight * x).sum(axis=0) / total for x in (self.predicted, self.asked))
        gap = self.weight * (self.asked - mean_f)
        variance = (gap * self.asked).sum(axis=0)
        varies = variance > _ROUNDING * total * mean_f**2
        slope = (gap * self.predicted).sum(axis=0) / np.where(varies, variance, np.nan)
        return np.asarray(mean_p - np.where(mean_f > 0, mean_f * slope, 0.0))

    def found(self, intercepts: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return slopes through given intercepts ``(answers,)``, every galaxy counted so many times ``(n,)``.

        NaN where nothing was asked for.
        """
        w = self.weight * times[:, None] * self.asked
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((w * (self.predicted - intercepts)).sum(axis=0) / (w * self.asked).sum(axis=0))

    def _bins(self, share: np.ndarray) -> list[np.ndarray]:
        """Sum weights, predicted and asked fractions ``(answers, bins)``, in bins of equal weight by the predicted."""
        w, p, f = (np.take_along_axis(x, self.order, axis=0) for x in (share, self.predicted, self.asked))
        # A galaxy lies where the middle of its weight does.
        place = np.nan_to_num((w.cumsum(axis=0) - w / 2) * BINS).astype(int).clip(0, BINS - 1)
        index = place + BINS * np.arange(w.shape[1])
        size = w.shape[1] * BINS
        sums = (np.bincount(index.ravel(), np.nan_to_num(x).ravel(), minlength=size) for x in (w, w * p, w * f))
        return [total.reshape(-1, BINS) for total in sums]


def _ranks(a: np.ndarray, k: np.ndarray, total_a: np.ndarray, total_k: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """Where the votes lie among simulated ones ``(n, answers)``: uniform in (0, 1) if the judge is right.

    Whole votes tie; a tie is broken at random, which makes the rank uniform (Czado, Gneiting & Held 2009).
    """
    rng = np.random.default_rng(seed)
    rest, n = total_a - a, np.rint(total_k).astype(np.int64)
    whole, below, equal = np.rint(k), np.zeros(k.shape), np.zeros(k.shape)
    for _ in range(draws):
        # One answer's votes are beta-binomial, whatever the others are.
        simulated = rng.binomial(n, rng.beta(a, rest))
        below += simulated < whole
        equal += simulated == whole
    return np.asarray((below + rng.random(k.shape) * (equal + 1)) / (draws + 1))

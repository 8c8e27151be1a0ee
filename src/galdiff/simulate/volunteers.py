r"""Volunteers who look at simulated galaxies and answer the questions of Galaxy Zoo 2.

Every question has answer probabilities that follow from the truth: a visible feature is named with a probability that
rises with its visibility v (contrast, size, inclination) as :math:`0.04 + 0.92 v`, an ordered answer (roundness, bulge,
winding) by an ordered logistic law. Then 30 to 50 volunteers walk the tree: each is asked a question if the own answer
before leads to it, so that votes and reach obey the laws of the real catalog (Willett et al. 2013, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from galdiff.randomness import uniform
from galdiff.schema.trees import GZ2_TREE, QuestionTree

__all__ = ["Ballots", "answer_probabilities", "vote"]

FEWEST, MOST = 30, 50
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ballots:
    """The votes on n galaxies, columns as ``GZ2_TREE.answers``.

    Attributes
    ----------
    volunteers : int64 array (n,)
        Volunteers who looked at the galaxy.
    count : int64 array (n, answers)
        Votes.
    weight : float64 array (n, answers)
        Votes weighted by the consistency of their volunteers; at most the count.
    """

    volunteers: NDArray[np.int64]
    count: NDArray[np.int64]
    weight: Array


def answer_probabilities(truth: pd.DataFrame) -> Array:
    """How likely a volunteer who is asked gives each answer.

    Parameters
    ----------
    truth : DataFrame (n rows)
        The fields of `galdiff.simulate.population.Galaxy`.

    Returns
    -------
    float64 array (n, answers)
        Columns as ``GZ2_TREE.answers``; they sum to one over the answers of each question.
    """
    t = {name: truth[name].to_numpy() for name in truth}
    elliptical, q = t["kind"] == "elliptical", t["axis_ratio"]
    tilted: Array = expit((q - 0.35) / 0.05)
    arms = t["has_spiral"] * expit((t["arm_contrast"] - 0.35) / 0.08) * tilted
    bar = t["has_bar"] * expit((t["bar_fraction"] - 0.08) / 0.02) * tilted
    thin = ~elliptical * expit((0.32 - q) / 0.035)
    structure = np.maximum.reduce([arms, bar, thin])
    features = np.where(elliptical, 0.08, 0.35 + 0.55 * structure)
    crowded = t["n_neighbors"] / 3
    n_arms = np.where(t["n_arms"] == 0, np.nan, t["n_arms"])[:, None]
    counted = np.where(np.isnan(n_arms), 1 / 5, np.exp(-2.2 * np.abs(n_arms - np.arange(1, 6))))
    no_edge_bulge = expit((0.08 - t["bulge_fraction"]) / 0.02)
    by_question = {
        "t01_smooth_or_features": _columns(0.98 - features, features, 0.02),
        "t02_edgeon": _yes(np.where(elliptical, 0.25 * expit((0.45 - q) / 0.05), thin)),
        "t03_bar": _yes(bar),
        "t04_spiral": _yes(arms),
        "t05_bulge_prominence": _ordered(np.log(t["bulge_fraction"]), np.log([0.03, 0.13, 0.4]), 0.3),
        "t06_odd": _yes(0.03 + 0.1 * crowded),
        "t07_rounded": _ordered(-q, [-0.82, -0.45], 0.04),
        "t08_odd_feature": _columns(0.1, 0.03, 0.1, 0.12, 0.4, 0.2 + 0.5 * crowded, 0.05),
        "t09_bulge_shape": _columns(0.88 * (1 - no_edge_bulge), 0.12 * (1 - no_edge_bulge), no_edge_bulge),
        "t10_arms_winding": _ordered(np.where(t["has_spiral"], t["pitch"], 20.0), [16.0, 23.0], 1.5),
        "t11_arms_number": np.hstack([counted, 0.12 * counted.sum(1, keepdims=True)]),
    }
    normalized = [p / p.sum(1, keepdims=True) for p in (by_question[q.name] for q in GZ2_TREE.questions)]
    return np.hstack([np.broadcast_to(p, (len(truth), p.shape[1])) for p in normalized])


def vote(probabilities: Array, index: NDArray[np.int64], *, seed: int, tree: QuestionTree = GZ2_TREE) -> Ballots:
    """Let volunteers walk the tree.

    Parameters
    ----------
    probabilities : float64 array (n, answers)
        From `answer_probabilities`.
    index : int64 array (n,)
        Global indices of the galaxies: their votes depend on the seed and these alone.
    seed : int
        Seed of the simulation.
    tree : QuestionTree
        The questions.
    """
    n, questions = len(index), len(tree.questions)
    u = uniform(seed, "votes", torch.from_numpy(index), (MOST, questions)).numpy()
    who = uniform(seed, "volunteers", torch.from_numpy(index), (1 + MOST,)).numpy()
    volunteers = FEWEST + (who[:, 0] * (MOST - FEWEST + 1)).astype(np.int64)
    present = np.arange(MOST) < volunteers[:, None]
    # One volunteer in twenty disagrees with most others and counts less.
    consistency = np.minimum(1.0, 0.1 + who[:, 1:].astype(np.float64) / 0.05)
    gave = np.zeros((n, MOST, len(tree.answers)), dtype=bool)
    for q in _asking_order(tree):
        parents, answers = tree.parents(q), tree.answer_slice(q)
        asked: NDArray[np.bool_] = np.any(gave[:, :, parents], axis=2) if parents else present
        cumulative = probabilities[:, None, answers].cumsum(2)[..., :-1]
        choice = np.sum(u[:, :, q, None] > cumulative, axis=2)
        gave[:, :, answers] = (choice[..., None] == np.arange(answers.stop - answers.start)) & asked[..., None]
    return Ballots(volunteers, gave.sum(1), np.einsum("nva,nv->na", gave, consistency))


def _asking_order(tree: QuestionTree) -> list[int]:
    """Order the questions so that everyone comes after the questions that lead to it."""
    owner = [q for q, question in enumerate(tree.questions) for _ in question.answers]
    order: list[int] = []
    while len(order) < len(tree.questions):
        ready = [
            q
            for q in range(len(tree.questions))
            if q not in order and all(owner[answer] in order for answer in tree.parents(q))
        ]
        if not ready:
            raise ValueError(f"tree {tree.name}: the questions lead to one another in a circle")
        order += ready
    return order


def _columns(*probabilities: ArrayLike) -> Array:
    return np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(p, dtype=np.float64)) for p in probabilities)), 1)


def _yes(visibility: ArrayLike) -> Array:
    p = 0.04 + 0.92 * np.asarray(visibility, dtype=np.float64)
    return _columns(p, 1 - p)


def _ordered(value: ArrayLike, thresholds: ArrayLike, width: float) -> Array:
    """Probabilities of ordered answers, the first for the smallest values."""
    below = expit((np.asarray(thresholds)[None, :] - np.asarray(value)[:, None]) / width)
    edges = np.pad(below, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
    return np.diff(edges, axis=1)

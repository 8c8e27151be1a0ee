"""Votes of a survey in which all galaxies were asked the same."""

import numpy as np
import pytest

from galdiff.metrics.votes import VoteComparison
from galdiff.schema.trees import QuestionTree

TREE = QuestionTree.from_dict({"name": "one", "questions": {"bar": [["yes", "bar", None], ["no", "no_bar", None]]}})


def compare(votes):
    rng = np.random.default_rng(0)
    concentrations = np.exp(rng.normal(1.0, 0.5, votes.shape))
    return VoteComparison(concentrations, votes, np.ones((len(votes), 1), bool), TREE, simulations=10)


def same_share(share):
    """So many votes that the share comes out with another rounding error in every galaxy."""
    total = np.random.default_rng(1).uniform(20, 40, (50, 1))
    return total * [share, 1 - share]


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_where_all_were_asked_the_same_there_is_no_line(share):
    rows = compare(same_share(share))
    assert rows.asked.std(axis=0).max() > 0  # by rounding
    found = rows.summary(np.ones(len(rows)))
    for name in ("slope", "answer_slope"):
        assert np.isnan(found[name]).all()
    assert np.isfinite(found["bias"]).all()
    assert np.isnan(rows.intercepts()).all()


def test_where_nobody_was_asked_for_it_the_prediction_is_the_intercept():
    rows = compare(same_share(0.0))
    mean = (rows.weight * rows.predicted).sum(axis=0) / rows.weight.sum(axis=0)
    assert rows.intercepts()[0] == pytest.approx(mean[0], rel=1e-12)
    assert np.isnan(rows.intercepts()[1])


def test_small_differences_are_a_line():
    votes = same_share(0.3)
    votes[0] += [1e-3, -1e-3]
    rows = compare(votes)
    assert np.isfinite(rows.summary(np.ones(len(rows)))["answer_slope"]).all()
    assert np.isfinite(rows.intercepts()).all()

"""The volunteers' votes: the laws of the tree, and agreement with the truth."""

import numpy as np
import pytest

from galdiff.schema.trees import GZ2_TREE, QuestionTree
from galdiff.simulate.population import draw_population
from galdiff.simulate.volunteers import answer_probabilities, vote

INDEX = np.arange(600)


@pytest.fixture(scope="module")
def truth():
    return draw_population(INDEX, seed=2)


@pytest.fixture(scope="module")
def ballots(truth):
    return vote(answer_probabilities(truth), INDEX, seed=2)


def column(name):
    return GZ2_TREE.find(name)[1]


def test_probabilities_sum_to_one_within_every_question(truth):
    p = answer_probabilities(truth)
    assert (p >= 0).all()
    for q in range(len(GZ2_TREE.questions)):
        np.testing.assert_allclose(p[:, GZ2_TREE.answer_slice(q)].sum(1), 1, atol=1e-12)


def test_votes_on_a_question_are_the_votes_that_lead_to_it(ballots):
    np.testing.assert_array_equal(ballots.count[:, GZ2_TREE.answer_slice(0)].sum(1), ballots.volunteers)
    for q in range(1, len(GZ2_TREE.questions)):
        asked = ballots.count[:, GZ2_TREE.parents(q)].sum(1)
        np.testing.assert_array_equal(ballots.count[:, GZ2_TREE.answer_slice(q)].sum(1), asked)


def test_everyone_answers_spiral_or_not_after_bar_or_not(ballots):
    count = ballots.count
    bar, spiral = (count[:, column(a)] + count[:, column(b)] for a, b in (("bar", "no_bar"), ("spiral", "no_spiral")))
    np.testing.assert_array_equal(bar, count[:, column("not_edge_on")])
    np.testing.assert_array_equal(spiral, bar)


def test_weights_are_at_most_the_counts_and_close(ballots):
    assert (ballots.weight <= ballots.count + 1e-9).all()
    assert ballots.weight.sum() / ballots.count.sum() == pytest.approx(0.98, abs=0.01)
    assert ballots.volunteers.min() >= 30
    assert ballots.volunteers.max() <= 50


def test_votes_depend_on_the_galaxy_alone(truth, ballots):
    again = vote(answer_probabilities(truth.iloc[100:103]), INDEX[100:103], seed=2)
    np.testing.assert_array_equal(again.count, ballots.count[100:103])
    np.testing.assert_array_equal(again.weight, ballots.weight[100:103])


def test_shares_follow_their_probabilities():
    p = answer_probabilities(draw_population(np.zeros(1, dtype=np.int64), seed=0))
    index = np.arange(2000)
    ballots = vote(np.broadcast_to(p, (2000, p.shape[1])), index, seed=9)
    answers = GZ2_TREE.answer_slice(0)
    n = ballots.volunteers.sum()
    error = np.sqrt(p[0, answers] * (1 - p[0, answers]) / n)
    assert (np.abs(ballots.count[:, answers].sum(0) / n - p[0, answers]) < 5 * error).all()


@pytest.mark.parametrize(("answer", "fact"), [("edge_on", "edge_on"), ("spiral", "has_spiral"), ("bar", "has_bar")])
def test_the_majority_sees_what_is_there(truth, ballots, answer, fact):
    q, a = GZ2_TREE.find(answer)
    asked = ballots.count[:, GZ2_TREE.answer_slice(q)].sum(1)
    disks = ((truth["kind"] != "elliptical").to_numpy()) & (asked >= 8)
    seen = ballots.count[disks, a] > asked[disks] / 2
    assert (seen == truth[fact].to_numpy()[disks]).mean() > 0.95


def test_round_galaxies_are_called_round_and_thin_ones_cigars(truth):
    p = answer_probabilities(truth)
    q = truth["axis_ratio"].to_numpy()
    assert (p[q > 0.9, column("round")] > 0.8).all()
    assert (p[q < 0.38, column("cigar")] > 0.8).all()
    assert (p[truth["kind"] == "elliptical", column("smooth")] > 0.85).all()


def test_a_circular_tree_is_refused():
    circle = QuestionTree.from_dict(
        {"name": "circle", "questions": {"q1": [["a", "a", "q2"]], "q2": [["b", "b", "q1"]]}}
    )
    with pytest.raises(ValueError, match="circle"):
        vote(np.ones((1, 2)), np.zeros(1, dtype=np.int64), seed=0, tree=circle)

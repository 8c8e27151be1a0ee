"""Votes drawn from their posterior, against the closed forms of the Dirichlet distribution."""

import numpy as np
import pytest
import torch
from scipy import stats

from galdiff.randomness import Draws
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Votes
from galdiff.schema.posterior import sample_votes
from galdiff.schema.trees import GZ2_TREE

N = 20_000


def batch(counts, prior=1.0, n=N):
    """Return n equal rows with the same number of votes for each answer of a question, in turn."""
    schema = ConditionSchema([Class("kind", ("a", "b")), Votes("votes", GZ2_TREE, prior=prior)])
    conditions = schema.empty(n)
    votes = conditions.values["votes"]
    for q in range(len(GZ2_TREE.questions)):
        answers = GZ2_TREE.answer_slice(q)
        votes[:, answers] = torch.tensor(counts).repeat(9)[: answers.stop - answers.start]
    conditions.masks["votes"][::2] = True
    return schema, conditions


@pytest.mark.parametrize("prior", [0.2, 1.0])
@pytest.mark.parametrize("counts", [[0.0, 0.0], [30.0, 4.0], [1.0, 0.0]])
def test_fractions_have_the_marginals_of_a_dirichlet(counts, prior):
    schema, conditions = batch(counts, prior)
    drawn = sample_votes(schema, conditions, Draws(1, range(N)))
    if not sum(counts):
        assert torch.equal(drawn.values["votes"], conditions.values["votes"])
        return
    for q in (0, 1, len(GZ2_TREE.questions) - 1):
        answers = GZ2_TREE.answer_slice(q)
        before, after = (c.values["votes"][:, answers].double() for c in (conditions, drawn))
        torch.testing.assert_close(after.sum(1), before.sum(1), rtol=1e-6, atol=0)  # float32
        p, alpha = after / after.sum(1, keepdim=True), before[0] + prior
        for a in range(len(alpha)):
            exact = stats.beta(alpha[a].item(), (alpha.sum() - alpha[a]).item())
            assert stats.kstest(p[:, a].numpy(), exact.cdf).pvalue > 1e-4
        found, total = torch.cov(p.T), alpha.sum()
        mean = alpha / total
        torch.testing.assert_close(
            found, (mean.diag() - mean[:, None] * mean) / (total + 1), rtol=0, atol=6 / np.sqrt(N) * 0.25 / (total + 1)
        )


def test_a_draw_is_a_function_of_seed_and_position_and_leaves_the_rest_alone():
    schema, conditions = batch([12.0, 3.0], n=600)
    whole = sample_votes(schema, conditions, Draws(0, range(600)))
    part = sample_votes(schema, conditions[200:300], Draws(0, range(200, 300)))
    assert torch.equal(part.values["votes"], whole.values["votes"][200:300])
    other = sample_votes(schema, conditions, Draws(1, range(600)))
    assert not torch.equal(other.values["votes"], whole.values["votes"])
    assert torch.equal(whole.values["kind"], conditions.values["kind"])
    assert isinstance(whole, Conditions)
    assert all(torch.equal(whole.masks[name], mask) for name, mask in conditions.masks.items())

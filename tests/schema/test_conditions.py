"""What can be asked, and what masks and mirrors do."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from galdiff import LatentDiffusion
from galdiff.errors import GaldiffError
from galdiff.randomness import Draws
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar, Votes, random_subset
from galdiff.schema.trees import GZ2_TREE, QuestionTree

CHIRAL = Class("morphology", ("elliptical", "clockwise", "anticlockwise"), (("clockwise", "anticlockwise"),))
SCHEMA = ConditionSchema([CHIRAL, Scalar("redshift", std=0.1), Votes("votes", GZ2_TREE)])


def test_gz2_tree():
    assert len(GZ2_TREE.questions) == 11
    assert len(GZ2_TREE.answers) == 37
    assert [GZ2_TREE.answers[i].alias for i in GZ2_TREE.parents(3)] == ["bar", "no_bar"]
    assert GZ2_TREE.parents(0) == []
    # Every question but the first is reached, and every answer leads to a question that exists.
    names = {q.name for q in GZ2_TREE.questions}
    assert all(GZ2_TREE.parents(q) for q in range(1, 11))
    assert all(a.leads_to is None or a.leads_to in names for a in GZ2_TREE.answers)


def test_asking_votes_fixes_renormalizes_and_masks():
    asked = SCHEMA.ask(2, votes={"spiral": 0.9, "smooth": 0.4})
    votes, mask = asked.values["votes"], asked.masks["votes"]
    q, a = GZ2_TREE.find("spiral")
    spiral = votes[:, GZ2_TREE.answer_slice(q)]
    torch.testing.assert_close(spiral / spiral.sum(1, keepdim=True), torch.tensor([[0.9, 0.1]] * 2))
    first = votes[0, GZ2_TREE.answer_slice(0)]
    torch.testing.assert_close(first / first.sum(), torch.tensor([0.4, 0.3, 0.3]))
    assert mask.sum() == 4
    assert votes[0, a] == pytest.approx(0.9 * 40)
    assert not asked.masks["morphology"].any()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"votes": {"spirral": 1.0}}, "Did you mean 'spiral'"),
        ({"votes": {"spiral": 1.4}}, r"outside \[0, 1\]"),
        ({"votes": {"spiral": 0.9, "no_spiral": 0.9}}, "sum to 1.8"),
        ({"morphology": "eliptical"}, "Did you mean 'elliptical'"),
        ({"morphology": 7}, "out of range"),
        ({"morphology": 1.5}, "out of range"),
        ({"morphology": None}, "not a number"),
        ({"morfology": "elliptical"}, "Did you mean 'morphology'"),
        ({"redshift": float("nan")}, "not a number"),
        ({"redshift": [0.1, 0.2]}, "2 values, not 1"),
        ({"morphology": ["clockwise", "elliptical"]}, "2 values, not 1"),
        ({"votes": [{"spiral": 0.9}, {"spiral": 0.1}]}, "2 values, not 1"),
    ],
)
def test_wrong_asks_are_explained(asked, message):
    with pytest.raises(GaldiffError, match=message):
        SCHEMA.ask(1, asked)


ARGUMENTS = inspect.signature(LatentDiffusion.sample).parameters.keys() - {"self", "conditions"}


@pytest.mark.parametrize("name", ["mean", "x", *sorted(ARGUMENTS)])
def test_names_that_stores_and_samples_have_for_something_else(name):
    with pytest.raises(GaldiffError, match=f"cannot be called '{name}'"):
        ConditionSchema([Scalar(name)])


def test_asking_row_by_row():
    asked = SCHEMA.ask(2, morphology=["clockwise", "elliptical"], redshift=0.3)
    assert asked.values["morphology"].tolist() == [1, 0]
    assert asked.values["redshift"].tolist() == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("kind", [tuple, np.array, pd.Series, torch.tensor], ids=lambda kind: kind.__name__)
def test_asking_row_by_row_with_any_kind_of_column(kind):
    asked = SCHEMA.ask(3, redshift=kind([0.1, 0.2, 0.3]), morphology=kind([2, 0, 1]))
    assert asked.values["redshift"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert asked.values["morphology"].tolist() == [2, 0, 1]
    assert asked.masks["redshift"].all()


def test_a_number_may_be_an_array_without_axes():
    assert SCHEMA.ask(2, redshift=torch.tensor(0.25)).values["redshift"].tolist() == [0.25, 0.25]


def test_mirror_swaps_the_chiral_classes_alone():
    conditions = SCHEMA.ask(3, morphology=["elliptical", "clockwise", "anticlockwise"])
    mirrored = SCHEMA.mirror(conditions, torch.tensor([True, True, True]))
    assert mirrored.values["morphology"].tolist() == [0, 2, 1]
    assert SCHEMA.mirror(conditions, torch.tensor([True, True, False])).values["morphology"].tolist() == [0, 2, 2]


def test_description_round_trip():
    assert ConditionSchema.from_dict(SCHEMA.to_dict()) == SCHEMA


def test_distance_finds_what_was_asked():
    have = SCHEMA.ask(
        3, morphology=["clockwise", "elliptical", "clockwise"], votes=[{"bar": 0.9}, {"bar": 0.9}, {"bar": 0.2}]
    )
    distance = SCHEMA.distance(have, SCHEMA.ask(1, morphology="clockwise", votes={"bar": 0.8}))
    assert distance.tolist() == pytest.approx([0.1, float("inf"), 0.6])
    assert SCHEMA.distance(have, SCHEMA.ask(1)).tolist() == [0, 0, 0]


def test_random_subsets_are_a_function_of_the_position():
    conditions = SCHEMA.ask(2000, morphology="clockwise", redshift=0.1, votes={"bar": 0.5, "spiral": 0.5})
    kept = random_subset(conditions, Draws(0, range(2000)), null=0.1)
    again = random_subset(conditions[500:700], Draws(0, range(500, 700)), null=0.1)
    assert torch.equal(kept.masks["votes"][500:700], again.masks["votes"])
    flags = torch.cat([m.reshape(2000, -1) for m in kept.masks.values()], dim=1)
    count = flags[:, flags.any(0)].sum(1)
    # Four things are known: subset sizes 0…4 are equally likely but for the unconditional share.
    share = torch.bincount(count, minlength=5) / 2000
    assert (share - torch.tensor([0.28, 0.18, 0.18, 0.18, 0.18])).abs().max() < 0.05
    assert not (flags & ~torch.cat([m.reshape(2000, -1) for m in conditions.masks.values()], dim=1)).any()


def test_a_single_condition_is_always_given():
    schema = ConditionSchema([CHIRAL])
    conditions = schema.ask(4000, morphology="clockwise")
    kept = random_subset(conditions, Draws(0, range(4000)), null=0.1)
    assert kept.masks["morphology"].float().mean().item() == pytest.approx(0.9, abs=0.02)


def test_batches():
    a, b = SCHEMA.ask(2, redshift=0.1), SCHEMA.ask(1, redshift=0.2)
    both = a.cat(b)
    assert len(both) == 3
    assert both.values["redshift"].tolist() == pytest.approx([0.1, 0.1, 0.2])
    assert len(both[torch.tensor([2])]) == 1
    assert both.repeat(2).values["redshift"].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.2, 0.2])
    assert not any(m.any() for m in both.null().masks.values())


def test_parts_of_a_condition_are_hidden_one_by_one():
    asked = SCHEMA.ask(2, morphology="clockwise", redshift=0.1, votes={"bar": 0.5, "spiral": 0.5})
    for name in ("morphology", "redshift", "votes"):
        masks = asked.without(SCHEMA.part(name)).masks
        assert not masks[name].any()
        assert all(torch.equal(m, asked.masks[k]) for k, m in masks.items() if k != name)
    name, question = SCHEMA.part("spiral")
    masks = asked.without((name, question)).masks
    assert not masks["votes"][:, question].any()
    assert masks["votes"].sum() == asked.masks["votes"].sum() - 2
    with pytest.raises(GaldiffError, match="Did you mean 'spiral'"):
        SCHEMA.part("spirol")


GZ1_TREE = QuestionTree.from_dict(
    {
        "name": "gz1",
        "questions": {"type": [[f"P_{name.upper()}", name, None] for name in ("el", "cw", "acw", "edge", "dk", "mg")]},
        "mirror": [["cw", "P_ACW"]],
    }
)
"""Galaxy Zoo 1's vote fractions (Lintott et al. 2011, MNRAS 410, 166)."""
TURNING = ConditionSchema(
    [CHIRAL, Scalar("redshift"), Scalar("pa", "deg", 90, 52, angle=True), Votes("gz1", GZ1_TREE), Votes("v", GZ2_TREE)]
)


def conditions_of_all_kinds(n=40):
    draw = torch.Generator().manual_seed(0)
    values = {
        "morphology": torch.randint(3, (n,), generator=draw),
        "redshift": torch.rand(n, generator=draw),
        "pa": (180 * torch.rand(n, generator=draw)).round(),
        "gz1": torch.rand(n, 6, generator=draw),
        "v": torch.rand(n, 37, generator=draw),
    }
    return Conditions(values, {name: torch.ones_like(mask) for name, mask in TURNING.empty(n).masks.items()})


def test_mirror_twice_is_nothing_and_swaps_the_votes_of_handed_answers():
    before = conditions_of_all_kinds()
    all_rows = torch.ones(40, dtype=torch.bool)
    once = TURNING.mirror(before, all_rows)
    twice = TURNING.mirror(once, all_rows)
    for name, value in before.values.items():
        assert torch.equal(twice.values[name] % 180, value % 180), name
    assert torch.equal(once.values["gz1"], before.values["gz1"][:, [0, 2, 1, 3, 4, 5]])
    assert torch.equal(once.values["v"], before.values["v"])
    assert torch.equal(once.values["redshift"], before.values["redshift"])
    assert not torch.equal(once.values["pa"], before.values["pa"])


def test_the_survey_trees_have_no_handed_answer():
    # Willett et al. 2013, Walmsley et al. 2022: arms are counted and judged for tightness, never for their sense.
    words = {word for a in GZ2_TREE.answers for word in a.alias.split("_")}
    assert not words & {"clockwise", "anticlockwise", "cw", "acw", "left", "right", "s", "z"}
    assert GZ2_TREE.mirror == ()


@pytest.mark.parametrize("mirror", [[["cw", "left"]], [["cw", "acw"], ["cw", "el"]], [["cw", "cw"]]])
def test_mirror_pairs_that_are_none_are_refused(mirror):
    with pytest.raises(GaldiffError):
        QuestionTree.from_dict({**GZ1_TREE.to_dict(), "mirror": mirror})


def test_a_mirror_pair_across_questions_is_refused():
    with pytest.raises(GaldiffError, match="one question"):
        QuestionTree.from_dict({**GZ2_TREE.to_dict(), "mirror": [["spiral", "bar"]]})


def test_angles_are_degrees_and_their_distance_goes_round():
    with pytest.raises(GaldiffError, match="degrees"):
        Scalar("pa", "rad", angle=True)
    schema = ConditionSchema([Scalar("pa", "deg", std=10, angle=True)])
    assert schema.distance(schema.ask(3, pa=[1, 90, 175]), schema.ask(1, pa=179)).tolist() == pytest.approx(
        [0.2, 8.9, 0.4]
    )


def test_turned_conditions_round_trip_through_their_description():
    assert ConditionSchema.from_dict(TURNING.to_dict()) == TURNING


def test_numbers_that_float32_has_not_are_refused():
    schema = ConditionSchema([Scalar("flux", "Jy", 0.0, 1.0)])
    for value in (1e300, -1e39, [1.0, 4e38]):
        with pytest.raises(GaldiffError, match="is beyond 32-bit floating-point numbers"):
            schema.ask(2, flux=value)
    assert schema.ask(1, flux=3e38).values["flux"].item() == pytest.approx(3e38)

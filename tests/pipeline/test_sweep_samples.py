"""Sweeps of a model: what is swept by default, their conditions and seeds, and what a catalog file may say of them."""

import numpy as np
import pytest
import torch

from galdiff.config import load
from galdiff.config.theory import SamplingSpec
from galdiff.errors import CatalogFileError
from galdiff.pipeline.sweeps import SWEEP_SAMPLES, SWEEP_SEEDS, default_sweeps, sweep_conditions
from galdiff.schema.conditions import Class, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import GZ2_TREE, GZ_DECALS_TREE

FACE_ON = {"features": 0.95, "not_edge_on": 0.95}


def test_votes_sweep_bars_and_spirals_of_galaxies_that_could_have_them():
    schema = ConditionSchema([Votes("votes", GZ2_TREE)])
    expected = {name: {"votes": {**FACE_ON, name: [0, 1]}} for name in ("bar", "spiral")}
    assert default_sweeps(schema, schema.empty(3)) == expected


def test_the_bars_of_another_tree():
    schema = ConditionSchema([Votes("votes", GZ_DECALS_TREE)])
    assert list(default_sweeps(schema, schema.empty(3))) == ["strong_bar", "spiral"]


def test_classes_stand_side_by_side_at_equal_seeds():
    schema = ConditionSchema([Class("kind", ("a", "b", "c"))])
    sweeps = default_sweeps(schema, schema.empty(1))
    conditions, seeds, columns = sweep_conditions(schema, sweeps)
    assert conditions.values["kind"].tolist() == [0, 1, 2] * SWEEP_SEEDS
    assert seeds.tolist() == np.repeat(np.arange(SWEEP_SEEDS), 3).tolist()
    assert columns["value"][:3].tolist() == ["a", "b", "c"]


def test_scalars_go_through_what_is_known_of_them():
    schema = ConditionSchema([Scalar("redshift", "", 0.0, 1.0), Scalar("unknown", "", 0.0, 1.0)])
    conditions = schema.ask(101, {"redshift": torch.arange(101.0)})
    conditions.values["redshift"][0], conditions.masks["redshift"][0] = 1e9, False
    [(name, asked)] = default_sweeps(schema, conditions).items()
    assert name == "redshift"
    assert asked["redshift"] == pytest.approx(np.percentile(np.arange(1, 101), (5, 95)), rel=1e-3)


@pytest.mark.parametrize("classes", [2, 10, 20, 59, 100])
def test_there_are_few_and_every_row_is_one_seed_s(classes):
    schema = ConditionSchema([Class("kind", tuple(map(str, range(classes)))), Scalar("mass", "", 0.0, 1.0)])
    sweeps = {"kind": {"kind": list(schema.fields[0].classes)}, "mass": {"mass": [-1, 1], "kind": "0"}}
    conditions, seeds, columns = sweep_conditions(schema, sweeps)
    assert len(conditions) == len(seeds) == len(columns["step"])
    assert len(seeds) <= max(SWEEP_SAMPLES, classes + 6)
    for name, steps in (("kind", classes), ("mass", 6)):
        chosen = columns["sweep"] == name
        rows = seeds.numpy()[chosen].reshape(-1, steps)
        assert (rows == np.arange(len(rows))[:, None]).all()
        assert (columns["step"][chosen].reshape(-1, steps) == np.arange(steps)).all()
    asked = schema.ask(1, {"mass": -1.0, "kind": "0"})
    first = int(np.flatnonzero(columns["sweep"] == "mass")[0])
    for name in ("kind", "mass"):
        assert torch.equal(conditions[[first]].values[name], asked.values[name])
        assert torch.equal(conditions[[first]].masks[name], asked.masks[name])


def test_no_sweeps_are_no_samples():
    schema = ConditionSchema([Votes("votes", GZ2_TREE)])
    conditions, seeds, columns = sweep_conditions(schema, {})
    assert len(conditions) == len(seeds) == len(columns["sweep"]) == 0


def test_samples_depend_on_sweeps_only_where_they_are_given():
    assert "sweeps" not in SamplingSpec().samples()
    assert SamplingSpec(sweeps={}).samples()["sweeps"] == {}


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ("{s: {votes: {bar: 0.5}}}", "sampling.sweeps.s: 0 values are lists"),
        ("{s: {votes: {spirall: [0, 1]}}}", "sampling.sweeps.s.votes.spirall: is not an answer of Galaxy Zoo 2"),
        ("{s: {votes: {bar: [0, 2]}}}", "sampling.sweeps.s.votes.bar: should be a vote fraction within [0, 1]"),
        ("{s: {colour: [0, 1]}}", "sampling.sweeps.s.colour: is not a condition of this data"),
    ],
)
def test_a_catalog_file_names_the_sweep_that_is_none(tmp_path, sweeps, message):
    path = tmp_path / "demo.yaml"
    path.write_text(f"name: demo\ndata: {{kind: gz2, root: x, table_format: kaggle}}\nsampling: {{sweeps: {sweeps}}}")
    with pytest.raises(CatalogFileError) as error:
        load(path)
    assert message in str(error.value)
    assert str(error.value).count(message) == 1

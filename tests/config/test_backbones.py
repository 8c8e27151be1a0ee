"""Sizes of the networks and averages of the weights, as a catalog file says them."""

import pytest
from pydantic import ValidationError

from galdiff.config.networks import SIZES
from galdiff.config.spec import DenoiserSpec
from galdiff.config.theory import ObjectiveSpec


def backbone(**keys):
    return DenoiserSpec(backbone={"kind": "dit", **keys}).settings()["backbone"]


def message(**section):
    with pytest.raises(ValidationError) as caught:
        DenoiserSpec(**section)
    return str(caught.value)


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_its_width_depth_and_heads(size):
    width, depth, heads = SIZES[size]
    assert backbone(size=size) == {"kind": "dit", "patch": 2, "width": width, "depth": depth, "heads": heads}
    assert backbone(size=size, depth=depth) == backbone(size=size)


def test_what_is_not_said_is_of_the_small_one():
    assert backbone() == backbone(size="S")
    assert backbone(depth=4) == {**backbone(size="S"), "depth": 4}


def test_what_is_off_leaves_no_trace():
    """The inputs of a stage that was begun before there were these switches are what they were."""
    assert backbone().keys() == {"kind", "patch", "width", "depth", "heads"}
    assert backbone(skips=True)["skips"] is True
    assert DenoiserSpec().settings()["training"]["ema"] == 0.995
    assert DenoiserSpec(ema=0.9).settings()["training"]["ema"] == 0.9


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"size": "B", "width": 384}, "is 768 of size B, not 384"),
        ({"size": "M"}, "size"),
        ({"width": 100}, "multiple of 4 x heads = 24"),
    ],
)
def test_sizes_that_make_no_sense(keys, text):
    assert text in message(backbone={"kind": "dit", **keys})


def test_heads_that_do_not_divide_the_lowest_level():
    assert "makes 3 heads" in message(backbone={"kind": "unet", "widths": [64, 104]})
    assert DenoiserSpec(backbone={"kind": "unet", "widths": [64, 104], "head_width": 52})


def test_power_functions():
    ema = DenoiserSpec(ema={"lengths": [0.05, 0.1]}).settings()["training"]["ema"]
    assert ema == {"lengths": [0.05, 0.1], "snapshots": 40, "precision": "float16"}


@pytest.mark.parametrize(
    ("ema", "text"),
    [
        (1.5, "less than 1"),
        ({}, "give one of them"),
        ({"decay": 0.9, "lengths": [0.1]}, "give one of them"),
        ({"lengths": [0.1, 0.1]}, "should differ"),
        ({"lengths": [0.5]}, "0.28"),
        ({"lengths": []}, "at least 1"),
    ],
)
def test_averages_that_make_no_sense(ema, text):
    assert text in message(ema=ema)


@pytest.mark.parametrize(
    ("objective", "problem"),
    [
        ({"gamma": 4.0}, "says nothing where weighting is uniform"),
        ({"time": "uniform", "location": 0.5, "scale": 2.0}, "says nothing where time is uniform"),
    ],
)
def test_options_of_an_objective_that_is_another(objective, problem):
    with pytest.raises(ValidationError, match=problem):
        ObjectiveSpec(**objective)
    assert ObjectiveSpec(weighting="min_snr", gamma=4.0).gamma == 4.0
    assert ObjectiveSpec(location=-0.5).settings()["location"] == -0.5

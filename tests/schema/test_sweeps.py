"""Sweeps: what their steps ask for, and which are none."""

import pytest

from galdiff.errors import GaldiffError
from galdiff.schema.sweeps import STEPS, sweep_steps


def test_a_range_goes_from_end_to_end_in_equal_steps_and_nothing_else_changes():
    asked = {"votes": {"features": 0.95, "bar": [0.1, 0.6]}, "redshift": 0.1}
    steps = sweep_steps(asked)
    values = [value for value, _ in steps]
    assert values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], abs=1e-12)
    assert (values[0], values[-1], len(values)) == (0.1, 0.6, STEPS)
    assert [ask for _, ask in steps] == [{"votes": {"features": 0.95, "bar": v}, "redshift": 0.1} for v in values]
    assert asked["votes"]["bar"] == [0.1, 0.6]


def test_a_range_may_fall():
    assert [value for value, _ in sweep_steps({"mass": [1, 0]})] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


@pytest.mark.parametrize("names", [["merger"], ["spiral", "merger"], ["a", "b", "c"], [1, 2, 3]])
def test_names_are_taken_one_by_one(names):
    assert sweep_steps({"kind": names}) == [(name, {"kind": name}) for name in names]


@pytest.mark.parametrize(
    "asked", [{}, {"kind": "a"}, {"kind": []}, {"a": [0, 1], "b": [0, 1]}, {"v": {"bar": [0, 1], "spiral": [0, 1]}}]
)
def test_a_sweep_sweeps_one_value(asked):
    with pytest.raises(GaldiffError, match=r"bar: \[0, 1\]"):
        sweep_steps(asked)

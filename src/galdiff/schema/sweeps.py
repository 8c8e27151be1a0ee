"""Sweeps: asks that differ in one condition, which goes through its range while all else stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from galdiff.errors import GaldiffError

__all__ = ["STEPS", "sweep_steps"]

STEPS = 6
"""Steps from one end of a range to the other, both included."""


def sweep_steps(asked: Mapping[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Return what a sweep asks for, step by step, each with the value that is swept.

    Parameters
    ----------
    asked : mapping
        As `ConditionSchema.ask` takes, but for one value that is a list: two numbers are the ends of a range, which
        has `STEPS` steps; anything else is taken item by item, such as the names of classes.

    Raises
    ------
    GaldiffError
        Where not exactly one value is a list.

    Examples
    --------
    >>> [value for value, ask in sweep_steps({"votes": {"features": 0.95, "bar": [0, 1]}})]
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    whole = [(name, None, value) for name, value in asked.items() if isinstance(value, list)]
    answers = [
        (name, answer, value)
        for name, votes in asked.items()
        if isinstance(votes, Mapping)
        for answer, value in votes.items()
        if isinstance(value, list)
    ]
    swept = whole + answers
    if len(swept) != 1 or not swept[0][2]:
        remedy = "Give one condition or answer a list, such as bar: [0, 1], and all others a value"
        raise GaldiffError(f"{len(swept)} values are lists, a sweep has one", remedy=remedy)
    name, answer, given = swept[0]
    numbers = len(given) == 2 and all(isinstance(x, int | float) and not isinstance(x, bool) for x in given)
    values = given
    if numbers:
        low, high = given
        values = [round(low + (high - low) * step / (STEPS - 1), 12) for step in range(STEPS)]
    return [(x, {**asked, name: x if answer is None else {**asked[name], answer: x}}) for x in values]

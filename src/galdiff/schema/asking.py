"""What users ask of a model, written into the values and masks of conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from galdiff.errors import GaldiffError
from galdiff.schema.fields import Class, Field, Votes, lookup

__all__ = ["ask"]


def ask(field: Field, value: Any, values: Tensor, masks: Tensor) -> None:
    """Write what is asked of a field into its values and masks.

    Parameters
    ----------
    field : Field
        What is asked for.
    value : object
        A class or its index, a number, or a mapping from answers to fractions; or a sequence of them, one a row.
    values, masks : Tensor
        Of all rows, written in place.

    Raises
    ------
    GaldiffError
        As in `galdiff.schema.conditions.ConditionSchema.ask`.
    """
    n = len(values)
    if _is_sequence(value):
        if len(value) != n:
            remedy = "Give one value for all samples, or one a sample"
            raise GaldiffError(f"{field.name} has {len(value)} values, not {n}", remedy=remedy)
        for row, place, mask in zip(value, values, masks, strict=True):
            _ask_row(field, row, place, mask)
    elif n:
        _ask_row(field, value, values[0], masks[0])
        values[1:], masks[1:] = values[0], masks[0]


def _is_sequence(value: Any) -> bool:
    """Whether a value is one for every row: a list, an array, a column of a table."""
    is_one = isinstance(value, str | Mapping) or not hasattr(value, "__len__")
    return not is_one and bool(getattr(value, "ndim", 1) == 1)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise GaldiffError(
            f"{name}={value!r} is not a number", remedy="Give a number, or one for each sample, or leave it out"
        )
    return number


def _ask_row(f: Field, value: Any, place: Tensor, mask: Tensor) -> None:
    """Write what is asked of a row into the row's values and mask."""
    if isinstance(f, Votes):
        _ask_votes(f, value, place, mask)
        return
    if isinstance(f, Class) and isinstance(value, str):
        value = f.classes.index(lookup(value, f.classes, f"the classes of '{f.name}'"))
    number = _number(f.name, value)
    if isinstance(f, Class) and number not in range(len(f.classes)):
        raise GaldiffError(f"class {value} of '{f.name}' is out of range", remedy=f"0 to {len(f.classes) - 1}")
    if abs(number) > torch.finfo(torch.float32).max:
        raise GaldiffError(f"{f.name}={value!r} is beyond 32-bit floating-point numbers", remedy="Give a smaller one")
    place.fill_(number)
    mask.fill_(True)


def _ask_votes(f: Votes, value: Any, place: Tensor, mask: Tensor) -> None:
    if not isinstance(value, Mapping):
        raise GaldiffError(f"{f.name}={value!r} is not a mapping", remedy="Ask for answers: {'spiral': 0.9}")
    asked: dict[int, dict[int, float]] = {}
    for answer, asked_fraction in value.items():
        q, a = f.tree.find(answer)
        fraction = _number(answer, asked_fraction)
        if not 0.0 <= fraction <= 1.0:
            raise GaldiffError(f"vote fraction {answer}={fraction} is outside [0, 1]")
        asked.setdefault(q, {})[a] = fraction
    for q, fractions in asked.items():
        answers = range(*f.tree.answer_slice(q).indices(len(f.tree.answers)))
        total, others = sum(fractions.values()), [a for a in answers if a not in fractions]
        if total > 1 + 1e-6 or (not others and total <= 0):
            raise GaldiffError(f"the fractions asked of question '{f.tree.questions[q].name}' sum to {total:g}")
        for a in answers:
            share = fractions[a] if a in fractions else max(0.0, 1 - total) / len(others)
            place[a] = f.typical_votes * (share if others else share / total)
        mask[q] = True

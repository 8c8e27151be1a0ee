r"""Votes drawn from their posterior: what as many other volunteers might have said.

A question's answers have fractions :math:`p \sim \mathrm{Dir}(\alpha_0 + n)`, drawn as normalized gamma variates by the
method of Marsaglia & Tsang 2000 (ACM TOMS 26, 363) with as many candidates as always suffice, so that every number is a
function of the seed and the sample alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from galdiff.randomness import Draws
from galdiff.schema.conditions import Conditions, ConditionSchema
from galdiff.schema.fields import Votes

__all__ = ["sample_votes"]

_CANDIDATES = 5  # one in twenty is refused at worst, so that one in three million variates is what it should not be


def sample_votes(schema: ConditionSchema, conditions: Conditions, draws: Draws) -> Conditions:
    """Draw the fractions of every question anew; the number of its votes and the masks stay.

    Parameters
    ----------
    schema : ConditionSchema
        With the prior of its votes; other fields stay as they are.
    conditions : Conditions
        A batch of n rows.
    draws : Draws
        Random numbers of n samples.
    """
    values = dict(conditions.values)
    for field in schema.fields:
        if isinstance(field, Votes):
            votes = values[field.name]
            parts = [field.tree.answer_slice(q) for q in range(len(field.tree.questions))]
            variates = _gamma(votes + field.prior, draws, field.name).split([p.stop - p.start for p in parts], dim=1)
            shares = [g / g.sum(1, keepdim=True) for g in variates]
            counts = [votes[:, part].sum(1, keepdim=True) for part in parts]
            values[field.name] = torch.cat([s * n for s, n in zip(shares, counts, strict=True)], dim=1)
    return Conditions(values, conditions.masks)


def _gamma(shape: Tensor, draws: Draws, name: str) -> Tensor:
    """Draw gamma variates of unit scale and positive shapes ``(n, k)``."""
    # Of the shape above, which the method wants at least one, times a power of a uniform number (their Section 6).
    d = shape[..., None] + 2 / 3
    x = draws.normal(f"{name} normal", (shape.shape[1], _CANDIDATES))
    u = draws.uniform(f"{name} uniform", (shape.shape[1], 1 + _CANDIDATES))
    v = (1 + x / (9 * d).sqrt()).clamp_min(0) ** 3
    taken = u[..., 1:].log() < 0.5 * x**2 + d * (1 - v + v.log())
    first = torch.where(taken.any(2), taken.int().argmax(2), _CANDIDATES - 1)
    return ((d * v).gather(2, first[..., None])[..., 0] * u[..., 0] ** (1 / shape)).clamp_min(1e-30)

"""Sweeps: pictures of the same seeds while one condition goes step by step through its range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar, Votes
from galdiff.schema.sweeps import sweep_steps
from galdiff.schema.trees import QuestionTree

__all__ = ["SWEEP_SAMPLES", "SWEEP_SEEDS", "default_sweeps", "sweep_conditions"]

SWEEP_SEEDS = 4
"""Seeds of every sweep, fewer where there are many steps: 0 up to this."""
SWEEP_SAMPLES = 60
"""Samples of all sweeps together, unless one seed is more."""
_SURE = 0.95  # what is asked of the answers that lead to a swept one
_ANSWERS = ("bar", "strong_bar", "spiral")
_SCALARS = 2
_RANGE = (0.05, 0.95)


def sweep_conditions(
    schema: ConditionSchema, sweeps: Mapping[str, Any]
) -> tuple[Conditions, torch.Tensor, dict[str, np.ndarray]]:
    """Return what the samples of sweeps are asked for, their seeds, and what they are called.

    Parameters
    ----------
    schema : ConditionSchema
        What can be asked for.
    sweeps : mapping
        Names of sweeps and their asks (`galdiff.schema.sweeps.sweep_steps`).

    Returns
    -------
    conditions : Conditions
        Of n samples: sweep by sweep, in each seed by seed, in each step by step.
    seeds : Tensor
        int64 ``(n,)``; equal seeds have equal noise.
    columns : dict of ndarray
        ``sweep``, ``step`` and ``value``, the text of what is swept, ``(n,)`` each.
    """
    steps = {name: sweep_steps(asked) for name, asked in sweeps.items()}
    n = sum(map(len, steps.values()))
    each = max(1, min(SWEEP_SEEDS, SWEEP_SAMPLES // max(1, n)))
    parts, seeds = [schema.empty(0)], []
    names, numbers, values = [], [], []
    for name, asks in steps.items():
        for seed in range(each):
            for step, (value, ask) in enumerate(asks):
                parts.append(schema.ask(1, ask))
                seeds.append(seed)
                names.append(name)
                numbers.append(step)
                values.append(value if isinstance(value, str) else f"{value:.3g}")
    columns = {"sweep": np.array(names, str), "step": np.array(numbers, np.int64), "value": np.array(values, str)}
    return parts[0].cat(*parts[1:]), torch.tensor(seeds, dtype=torch.int64), columns


def default_sweeps(schema: ConditionSchema, conditions: Conditions) -> dict[str, dict[str, Any]]:
    """Return the sweeps of a model: bars and spirals of votes, the first class field, and two scalars.

    Parameters
    ----------
    schema : ConditionSchema
        What can be asked for.
    conditions : Conditions
        Of real objects: scalars are swept from the 5th to the 95th percentile of what is known.
    """
    sweeps: dict[str, dict[str, Any]] = {}
    for votes in (f for f in schema.fields if isinstance(f, Votes)):
        aliases = {answer.alias for answer in votes.tree.answers}
        for answer in (answer for answer in _ANSWERS if answer in aliases):
            sweeps[answer] = {votes.name: {**_leading_to(votes.tree, answer), answer: [0, 1]}}
    for field in [f for f in schema.fields if isinstance(f, Class)][:1]:
        sweeps[field.name] = {field.name: list(field.classes)}
    for scalar in [f for f in schema.fields if isinstance(f, Scalar)][:_SCALARS]:
        known = conditions.values[scalar.name][conditions.masks[scalar.name]].double().numpy()
        if len(known):
            sweeps[scalar.name] = {scalar.name: [float(f"{end:.4g}") for end in np.quantile(known, _RANGE)]}
    return sweeps


def _leading_to(tree: QuestionTree, answer: str) -> dict[str, float]:
    """Answers without which an answer's question is not reached; a question that all answers pass is left open."""
    needed: dict[str, float] = {}
    parents = tree.parents(tree.find(answer)[0])
    while parents:
        parent = tree.answers[parents[0]]
        if len(parents) == 1:
            needed = {parent.alias: _SURE, **needed}
        parents = tree.parents(tree.find(parent.name)[0])
    return needed

r"""Conditions: what a catalog knows about an object, with masks.

A *schema* is an ordered set of fields; a *batch* (`Conditions`) has one value tensor and one mask tensor a field.
A mask is True where the value is known; missing is normal, and all masked is the unconditional model of
classifier-free guidance. Votes enter as the Dirichlet posterior of the volunteers' answers,

.. math:: \alpha_{qa} = \alpha_0 + n_{qa},

so that 5 votes and 50 votes are not the same statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from galdiff.errors import GaldiffError
from galdiff.randomness import Draws
from galdiff.schema.asking import ask
from galdiff.schema.fields import Class, Field, Scalar, Votes, lookup
from galdiff.schema.trees import QuestionTree

__all__ = ["Class", "ConditionSchema", "Conditions", "Field", "Scalar", "Votes", "random_subset"]

_TAKEN = frozenset(
    ("id", "split", "image", "mask", "mean", "log_var", "file")  # columns of stores and catalogs
    + ("sample", "band", "channel", "view", "y", "x")  # their axes
    + ("n", "seed", "steps", "guidance", "sampler", "options", "noise", "batch", "units", "precision")  # of sampling
)


@dataclass
class Conditions:
    """A batch of conditions.

    Attributes
    ----------
    values : dict of Tensor
        Class: int64 ``(n,)``; Scalar: float32 ``(n,)``; Votes: votes per answer, float32 ``(n, answers)``.
    masks : dict of Tensor
        bool, True where known. Class and Scalar: ``(n,)``; Votes: ``(n, questions)``.
    """

    values: dict[str, Tensor]
    masks: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.values.values()))) if self.values else 0

    def __getitem__(self, rows: Any) -> Conditions:
        return self._map(lambda x: x[rows])

    def _map(self, f: Any) -> Conditions:
        return Conditions({k: f(v) for k, v in self.values.items()}, {k: f(v) for k, v in self.masks.items()})

    def to(self, device: torch.device | str) -> Conditions:
        """Move every tensor to a device."""
        return self._map(lambda x: x.to(device))

    def null(self) -> Conditions:
        """Return the same batch with nothing known: the condition of the unconditional model."""
        return Conditions(self.values, {k: torch.zeros_like(v) for k, v in self.masks.items()})

    def without(self, part: tuple[str, int | None]) -> Conditions:
        """Return the same batch with one field unknown, or with one question (by its index) of a field of votes."""
        name, question = part
        mask = torch.zeros_like(self.masks[name])
        if question is not None:
            mask = self.masks[name].clone()
            mask[:, question] = False
        return Conditions(self.values, {**self.masks, name: mask})

    def cat(self, *others: Conditions) -> Conditions:
        """Concatenate along the sample axis."""
        batches = (self, *others)
        return Conditions(
            {k: torch.cat([b.values[k] for b in batches]) for k in self.values},
            {k: torch.cat([b.masks[k] for b in batches]) for k in self.masks},
        )

    def repeat(self, n: int) -> Conditions:
        """Repeat every row ``n`` times, row by row."""
        return self._map(lambda x: x.repeat_interleave(n, dim=0))


class ConditionSchema:
    """An ordered set of condition fields.

    Parameters
    ----------
    fields : iterable of Class, Scalar or Votes
        Names must differ; no field at all is an unconditional model.

    Raises
    ------
    GaldiffError
        For a name that is there twice, or that something else of stores and samples has.
    """

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self.fields: tuple[Field, ...] = tuple(fields)
        self.by_name: dict[str, Field] = {f.name: f for f in self.fields}
        if len(self.by_name) != len(self.fields):
            raise GaldiffError("two condition fields have the same name", remedy="Name them apart")
        if taken := sorted(_TAKEN & set(self.by_name)):
            message = f"a condition cannot be called '{taken[0]}', as something else of stores or samples is"
            raise GaldiffError(message, remedy="Rename its column")

    def __repr__(self) -> str:
        return f"ConditionSchema({list(self.fields)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConditionSchema) and self.fields == other.fields

    def empty(self, n: int) -> Conditions:
        """Return ``n`` rows with nothing known."""
        values, masks = {}, {}
        for f in self.fields:
            if isinstance(f, Votes):
                values[f.name] = torch.zeros(n, len(f.tree.answers))
                masks[f.name] = torch.zeros(n, len(f.tree.questions), dtype=torch.bool)
            else:
                values[f.name] = torch.zeros(n, dtype=torch.int64 if isinstance(f, Class) else torch.float32)
                masks[f.name] = torch.zeros(n, dtype=torch.bool)
        return Conditions(values, masks)

    def ask(self, n: int, asked: Mapping[str, Any] | None = None, **more: Any) -> Conditions:
        """Build ``n`` rows from what a user asks for; what is not named is masked.

        Parameters
        ----------
        n : int
            Number of rows.
        asked, **more : mapping
            ``name=value``: a class name (or index), a number, or for votes a mapping from answers to fractions
            (``votes={"spiral": 0.9}`` fixes that answer, shares the rest of its question evenly among the answers
            not named, and masks the other questions). A sequence or an array of ``n`` values asks row by row.

        Raises
        ------
        GaldiffError
            For an unknown field, class or answer, a number that is not finite, a fraction outside [0, 1], fractions of
            one question above 1, or a sequence of another length.
        """
        conditions = self.empty(n)
        for name, value in {**(asked or {}), **more}.items():
            if name not in self.by_name and name in (parts := self._parts()):
                field = parts[name][0]
                raise GaldiffError(f"'{name}' is an answer of {field}", remedy=f"Ask for {field}.{name}")
            f = self.by_name[lookup(name, tuple(self.by_name), "the conditions of this model")]
            values, masks = conditions.values[name], conditions.masks[name]
            ask(f, value, values, masks)
        return conditions

    def part(self, name: str) -> tuple[str, int | None]:
        """Return what `Conditions.without` knows by the name of a field, or of an answer: its field and question.

        Raises
        ------
        GaldiffError
            For a name that is neither.
        """
        parts = self._parts()
        return parts[lookup(name, tuple(parts), "the conditions of this model")]

    def weights(self, guidance: Mapping[str, float]) -> dict[tuple[str, int | None], float]:
        """Return weights of guidance by part, as `part` gives it, from those by name.

        Raises
        ------
        GaldiffError
            For a name that is none, and for two weights of one thing: answers share their question's, and votes as a
            whole are guided or question by question.
        """
        weights: dict[tuple[str, int | None], float] = {}
        named: dict[tuple[str, int | None], str] = {}
        for name, weight in guidance.items():
            field, question = part = self.part(name)
            for other in (part, (field, None), *(p for p in weights if question is None and p[0] == field)):
                if other in weights and (other != part or weights[other] != weight):
                    shared = "question" if other == part else "votes"
                    message = f"'{name}' and '{named[other]}' are of the same {shared}, with a weight each"
                    raise GaldiffError(message, remedy="Give one of them")
            weights[part], named[part] = weight, name
        return weights

    def _parts(self) -> dict[str, tuple[str, int | None]]:
        parts: dict[str, tuple[str, int | None]] = {}
        for f in self.fields:
            if isinstance(f, Votes):
                parts |= {
                    n: (f.name, f.tree.find(n)[0]) for answer in f.tree.answers for n in (answer.alias, answer.name)
                }
        return parts | {f.name: (f.name, None) for f in self.fields}

    def mirror(self, conditions: Conditions, rows: Tensor) -> Conditions:
        """Return the conditions after the images of ``rows`` (bool ``(n,)``) were reflected along x.

        Mirror classes swap, so do the votes of mirror answers, and angles change their sign.
        """
        values = dict(conditions.values)
        for f in self.fields:
            value = values[f.name]
            if isinstance(f, Class) and f.mirror:
                values[f.name] = torch.where(rows, f.mirrored().to(value.device, non_blocking=True)[value], value)
            elif isinstance(f, Votes) and f.tree.mirror:
                swapped = value[:, f.tree.mirrored()]
                values[f.name] = torch.where(rows[:, None], swapped, value)
            elif isinstance(f, Scalar) and f.angle:
                values[f.name] = torch.where(rows, -value % 180, value)
        return Conditions(values, conditions.masks)

    def dihedral(self, conditions: Conditions, element: Tensor) -> Conditions:
        """Return the conditions after every image was turned as `galdiff.nn.dihedral.dihedral` does.

        Parameters
        ----------
        conditions : Conditions
            Of n images.
        element : Tensor
            int64 ``(n,)`` in 0…7: a reflection along x from 4 on (`mirror`), then ``element % 4`` quarter turns, which
            change angles alone.
        """
        conditions = self.mirror(conditions, element >= 4)
        angles = [f.name for f in self.fields if isinstance(f, Scalar) and f.angle]
        turned = {name: (conditions.values[name] + 90 * (element % 4)) % 180 for name in angles}
        return Conditions({**conditions.values, **turned}, conditions.masks)

    def distance(self, conditions: Conditions, asked: Conditions) -> Tensor:
        """How far every row is from one asked row, float32 ``(n,)``; infinite where a class differs or is unknown.

        Votes count the mean absolute difference of the fractions over the asked questions, scalars the difference in
        standard deviations.
        """
        total, infinite = torch.zeros(len(conditions)), torch.tensor(torch.inf)
        for f in self.fields:
            value, mask = conditions.values[f.name], conditions.masks[f.name]
            goal, known = asked.values[f.name], asked.masks[f.name]
            if isinstance(f, Votes):
                for q in known[0].nonzero().flatten().tolist():
                    a = f.tree.answer_slice(q)
                    fractions = [x[:, a] / x[:, a].sum(1, keepdim=True).clamp_min(1e-9) for x in (value, goal)]
                    gap = (fractions[0] - fractions[1]).abs().mean(1)
                    total = total + torch.where(mask[:, q], gap, infinite)
            elif known[0]:
                gap = torch.where(value == goal, 0.0, infinite) if isinstance(f, Class) else _gap(f, value, goal)
                total = total + torch.where(mask, gap, infinite)
        return total

    def to_dict(self) -> list[dict[str, Any]]:
        """Return a JSON description; `from_dict` is its inverse."""
        rows: list[dict[str, Any]] = []
        for f in self.fields:
            row: dict[str, Any] = {"kind": f.kind, "name": f.name}
            if isinstance(f, Class):
                row |= {"classes": list(f.classes), "mirror": [list(pair) for pair in f.mirror]}
            elif isinstance(f, Scalar):
                row |= {"unit": f.unit, "mean": f.mean, "std": f.std, "angle": f.angle}
            else:
                row |= {"tree": f.tree.to_dict(), "prior": f.prior, "typical_votes": f.typical_votes}
            rows.append(row)
        return rows

    @classmethod
    def from_dict(cls, rows: Sequence[Mapping[str, Any]]) -> ConditionSchema:
        """Build a schema from `to_dict`'s description."""
        fields: list[Field] = []
        for row in rows:
            if row["kind"] == "class":
                mirror = tuple((str(a), str(b)) for a, b in row["mirror"])
                fields.append(Class(row["name"], tuple(row["classes"]), mirror))
            elif row["kind"] == "scalar":
                angle = bool(row.get("angle", False))
                fields.append(Scalar(row["name"], row["unit"], row["mean"], row["std"], angle))
            elif row["kind"] == "votes":
                tree = QuestionTree.from_dict(row["tree"])
                fields.append(Votes(row["name"], tree, row["prior"], row["typical_votes"]))
            else:
                raise GaldiffError(f"unknown kind of condition '{row['kind']}'")
        return cls(fields)


def random_subset(conditions: Conditions, draws: Draws, *, null: float = 0.1) -> Conditions:
    """Hide a random part of what is known, for training.

    Every row draws a rate u in (0, 1) and keeps each field (each question of votes) with probability u, so that all
    subset sizes are seen equally often; with probability ``null`` it keeps nothing.

    Parameters
    ----------
    conditions : Conditions
        A batch of n rows.
    draws : Draws
        Random numbers of n samples.
    null : float
        Share of rows that become unconditional.
    """
    widths = [1 if m.ndim == 1 else m.shape[1] for m in conditions.masks.values()]
    # A model with a single thing to condition on is always given it, but for the null share.
    single = sum(widths) == 1
    u = draws.uniform("condition-drop", (2 + sum(widths),))
    keep_rate = torch.where(u[:, :1] < null, 0.0, 1.0 if single else u[:, 1:2])
    kept = u[:, 2:] < keep_rate
    masks, start = {}, 0
    for (name, mask), width in zip(conditions.masks.items(), widths, strict=True):
        part = kept[:, start : start + width]
        masks[name] = mask & (part[:, 0] if mask.ndim == 1 else part)
        start += width
    return Conditions(conditions.values, masks)


def _gap(f: Scalar, value: Tensor, goal: Tensor) -> Tensor:
    """Difference in standard deviations; of two lines never more than a right angle."""
    gap = (value - goal).abs()
    return (torch.minimum(gap % 180, -gap % 180) if f.angle else gap) / f.std

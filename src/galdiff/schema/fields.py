"""The kinds of conditions: classes, numbers and votes, and what reflections do to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from galdiff.errors import GaldiffError, nearest_name
from galdiff.schema.trees import QuestionTree

__all__ = ["Class", "Field", "Scalar", "Votes", "lookup"]


@dataclass(frozen=True)
class Class:
    """One of several names, such as a morphology or a substructure class.

    Parameters
    ----------
    name : str
        Name of the field.
    classes : tuple of str
        The names; the value is the index.
    mirror : tuple of pairs of str
        Classes that are each other's mirror image: a reflection of the image swaps them, a rotation does not.
    """

    name: str
    classes: tuple[str, ...]
    mirror: tuple[tuple[str, str], ...] = ()
    kind: str = field(default="class", init=False)

    def __post_init__(self) -> None:
        for name in (name for pair in self.mirror for name in pair):
            lookup(name, self.classes, f"mirror of condition '{self.name}'")

    def mirrored(self) -> Tensor:
        """Return the index of every class's mirror image, int64 ``(classes,)``."""
        order = torch.arange(len(self.classes))
        for a, b in self.mirror:
            i, j = self.classes.index(a), self.classes.index(b)
            order[i], order[j] = j, i
        return order


@dataclass(frozen=True)
class Scalar:
    """A number with a unit, such as a redshift or an axion mass; standardized as ``(value - mean) / std``.

    Parameters
    ----------
    name : str
        Name of the field.
    unit : str
        Its unit.
    mean, std : float
        To standardize by.
    angle : bool
        The number is the position angle of a line in the image, in degrees from any image axis, modulo 180: turns and
        reflections of the image change it.
    """

    name: str
    unit: str = ""
    mean: float = 0.0
    std: float = 1.0
    angle: bool = False
    kind: str = field(default="scalar", init=False)

    def __post_init__(self) -> None:
        if self.angle and self.unit not in ("deg", "degree", "degrees"):
            raise GaldiffError(f"the angle '{self.name}' is in '{self.unit}'", remedy="Give it in degrees, unit deg")


@dataclass(frozen=True)
class Votes:
    r"""The volunteers' answers to a question tree.

    Parameters
    ----------
    name : str
        Name of the field.
    tree : QuestionTree
        Questions, answers and who leads to whom.
    prior : float
        Dirichlet prior :math:`\alpha_0` of every answer.
    typical_votes : float
        How many votes an asked-for fraction stands for (`ConditionSchema.ask`).
    """

    name: str
    tree: QuestionTree
    prior: float = 1.0
    typical_votes: float = 40.0
    kind: str = field(default="votes", init=False)


Field = Class | Scalar | Votes
"""What a model may be conditioned on."""


def lookup(name: str, known: Sequence[str], place: str) -> str:
    """Return a name that is known.

    Raises
    ------
    GaldiffError
        For another, with the nearest one that is.
    """
    if name in known:
        return name
    near = nearest_name(name, known)
    hint = f"Did you mean '{near}'?" if near else f"Known: {', '.join(known) or 'none'}"
    raise GaldiffError(f"'{name}' is not among {place}", remedy=hint)

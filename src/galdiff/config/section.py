"""What every section of a catalog file is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from galdiff.errors import nearest_name

__all__ = [
    "Count",
    "CountOrZero",
    "Flag",
    "Fraction",
    "Name",
    "NonNegative",
    "Positive",
    "Section",
    "Seed",
    "did_you_mean",
    "section_error",
]


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "Input should be a number")
    return value


Flag = Annotated[bool, Strict()]
"""True or false, not yes or 1."""
Count = Annotated[int, Field(ge=1), BeforeValidator(_no_boolean)]
"""A whole number from 1 on."""
CountOrZero = Annotated[int, Field(ge=0), BeforeValidator(_no_boolean)]
"""A whole number from 0 on."""
Seed = Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(_no_boolean)]
"""A whole number from 0 on that fits 64 bits."""
Positive = Annotated[float, Field(gt=0), BeforeValidator(_no_boolean)]
"""A number above 0."""
NonNegative = Annotated[float, Field(ge=0), BeforeValidator(_no_boolean)]
"""A number from 0 on."""
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_no_boolean)]
"""A number within [0, 1]."""
Name = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""


def section_error(*problems: tuple[tuple[str | int, ...], str]) -> PydanticCustomError:
    """Return one pydantic error that carries several problems, each with its path inside the section."""
    return PydanticCustomError("section", "; ".join(m for _, m in problems), {"problems": list(problems)})


class Section(BaseModel):
    """Base of all sections: immutable, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return `` (did you mean 'batch'?)``, or nothing where nothing is near."""
    near = nearest_name(name, known)
    return f" (did you mean '{near}'?)" if near else ""

"""What every section of a catalog file is made of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from galdiff.errors import nearest_name

__all__ = [
    "Count",
    "CountOrZero",
    "Flag",
    "Folder",
    "Fraction",
    "Name",
    "NonNegative",
    "Number",
    "Positive",
    "Rate",
    "Section",
    "Seed",
    "Share",
    "Side",
    "Size",
    "did_you_mean",
    "section_error",
]


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "Input should be a number")
    return value


def _names_files(value: Any) -> Any:
    """Refuse names that no file system takes, before one is asked."""
    if "\0" in str(value):
        raise PydanticCustomError("name", "Input should not hold a null character")
    if any(len(part.encode()) > _LONGEST for part in str(value).split("/")):
        raise PydanticCustomError("name", f"Input should have no part longer than {_LONGEST} bytes")
    return value


_LONGEST = 255  # [byte] of a name in common file systems
_LARGEST = 1e12  # what is larger is a slip, and its square leaves single precision's reach of 3e38 room
_MOST = 10**12

Flag = Annotated[bool, Strict()]
"""True or false, not yes or 1."""
Count = Annotated[int, Field(ge=1, le=_MOST), BeforeValidator(_no_boolean)]
"""A whole number from 1 to a million million: rows, images seen."""
CountOrZero = Annotated[int, Field(ge=0, le=_MOST), BeforeValidator(_no_boolean)]
"""The same from 0 on."""
Size = Annotated[int, Field(ge=1, le=65_536), BeforeValidator(_no_boolean)]
"""A whole number of what is built or done one by one: channels, blocks, steps, threads."""
Side = Annotated[int, Field(ge=1, le=8_192), BeforeValidator(_no_boolean)]
"""The side of an image [pixel]."""
Seed = Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(_no_boolean)]
"""A whole number from 0 on that fits 64 bits."""
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST), BeforeValidator(_no_boolean)]
"""A number of either sign."""
Positive = Annotated[float, Field(gt=0, le=_LARGEST), BeforeValidator(_no_boolean)]
"""A number above 0."""
NonNegative = Annotated[float, Field(ge=0, le=_LARGEST), BeforeValidator(_no_boolean)]
"""A number from 0 on."""
Rate = Annotated[float, Field(gt=0, le=1), BeforeValidator(_no_boolean)]
"""A learning rate."""
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_no_boolean)]
"""A number within [0, 1]."""
Share = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_no_boolean)]
"""A number within [0, 1), of what all would be too much: a decay, a dropout."""
Name = Annotated[str, Field(min_length=1), AfterValidator(_names_files)]
"""A text that is not empty: a file, a column, a condition."""
Folder = Annotated[Path, AfterValidator(_names_files)]
"""A folder, which need not exist."""


def section_error(
    *problems: tuple[tuple[str | int, ...], str], kind: Literal["section", "relation"] = "section"
) -> PydanticCustomError:
    """Return one pydantic error that carries several problems, each with its path inside the section.

    Its kind says whether they are of the section alone or of its relation to another one.
    """
    return PydanticCustomError(kind, "; ".join(m for _, m in problems), {"problems": list(problems)})


class Section(BaseModel):
    """Base of all sections: immutable, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return `` (did you mean 'batch'?)``, or nothing where nothing is near."""
    near = nearest_name(name, known)
    return f" (did you mean '{near}'?)" if near else ""

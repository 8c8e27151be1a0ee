"""Errors that a user can understand and mend.

Everything that a user can get wrong raises a `GaldiffError`: it says where (file, row or line), what, and what to do.
The command line prints it without a traceback and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

__all__ = [
    "CatalogFileError",
    "CheckpointError",
    "DataError",
    "GaldiffError",
    "ResourceError",
    "StaleRunError",
    "StoreError",
    "all_at_once",
    "nearest_name",
    "parts_of",
    "reason",
    "together",
]


class GaldiffError(Exception):
    """A problem with a place and a remedy.

    Parameters
    ----------
    message : str
        What is wrong, one sentence without the final stop, or several lines.
    where : str or path-like, optional
        The file, ``file:line:column`` or ``file, row 12``.
    remedy : str, optional
        What the user can do about it, one sentence.
    """

    def __init__(self, message: str, *, where: object = None, remedy: str | None = None) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        text = self.message if self.where is None else f"{self.where}: {self.message}"
        if self.remedy is None:
            return text
        return f"{text}\n{self.remedy}" if "\n" in text else f"{text}. {self.remedy}"


class CatalogFileError(GaldiffError):
    """The catalog file (YAML) or an override is wrong; the message lists every problem."""


class DataError(GaldiffError):
    """A table, an image or an array is not what its loader expects."""


class StoreError(GaldiffError):
    """A Zarr store is incomplete, damaged or of another model."""


class CheckpointError(GaldiffError):
    """A checkpoint or saved model cannot be read or does not fit."""


class ResourceError(GaldiffError):
    """The disk is full, a folder cannot be written, or a device is missing."""


class StaleRunError(GaldiffError):
    """A run directory holds a finished stage that was made from other inputs."""


_SHOWN = 20


class _SeveralError(DataError):
    """Several problems as one error, a line each."""

    def __init__(self, parts: Sequence[GaldiffError]) -> None:
        self.parts = tuple(parts)
        lines = [f"{len(parts)} problems", *(f"  {part}" for part in parts[:_SHOWN])]
        super().__init__("\n".join([*lines, *(["  …"] if len(parts) > _SHOWN else [])]))


def together(problems: Iterable[GaldiffError]) -> GaldiffError:
    """Return a single problem as it is, and several as one `DataError` with a line each."""
    parts = [part for problem in problems for part in parts_of(problem)]
    return parts[0] if len(parts) == 1 else _SeveralError(parts)


def parts_of(problem: GaldiffError) -> Sequence[GaldiffError]:
    """Return the problems that `together` made one of; else the problem itself."""
    return problem.parts if isinstance(problem, _SeveralError) else (problem,)


def reason(error: Exception) -> str:
    """Return what a library found in a line: the ``repr`` of an error of decoding holds the whole file."""
    return f"{type(error).__name__}: {error}"


@contextmanager
def all_at_once() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Find problems that do not depend on one another before any of them is raised.

    Yields
    ------
    callable
        ``with part(): …`` ends at a `GaldiffError`, which is raised at the end of all, with those of other parts.
    """
    problems: list[GaldiffError] = []

    @contextmanager
    def part() -> Iterator[None]:
        try:
            yield
        except GaldiffError as problem:
            problems.append(problem)

    yield part
    if problems:
        raise together(problems)


def nearest_name(name: object, known: Iterable[object], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that another one may have been meant for, None where none is near."""
    close = difflib.get_close_matches(str(name), list(map(str, known)), n=1, cutoff=cutoff)
    return close[0] if close else None

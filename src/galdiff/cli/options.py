"""What commands share: their common options, and how they report a user's mistakes."""

from __future__ import annotations

import functools
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from galdiff.atomic import refuse_missing_folder, resource_errors
from galdiff.errors import GaldiffError, ResourceError

__all__ = [
    "APP",
    "Catalog",
    "Debug",
    "Device",
    "Folder",
    "Number",
    "Out",
    "Run",
    "Seed",
    "Set",
    "Store",
    "appearing",
    "plainly",
    "refuse_options",
    "refuse_output",
]

APP: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}
"""How every application is made."""

Catalog = Annotated[str, typer.Argument(metavar="CATALOG", help="A catalog file, or a packaged one: quickstart.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a value, as if in the file; once for each.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folder.")]
Store = Annotated[str, typer.Argument(metavar="PATH", help="A store: a folder, or a URL.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it is made if need be.")]
Number = Annotated[int, typer.Option("-n", min=1, help="How many.")]
Seed = Annotated[int, typer.Option(min=0, help="Other seeds give others; the same seed gives the same files.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Report errors that a user can mend without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            command(*args, debug=debug, **kwargs)
        except KeyboardInterrupt:
            typer.echo("interrupted; galdiff-train goes on where it was, other commands begin again", err=True)
            raise typer.Exit(130) from None
        except (GaldiffError, MemoryError, OSError) as error:
            if debug:
                raise
            typer.echo(f"error: {_said(error)}", err=True)
            raise typer.Exit(2) from None

    return wrapped


def _said(error: Exception) -> str:
    """Say what is wrong also where the system said no, and nothing foresaw it."""
    if isinstance(error, MemoryError):
        return "there is not enough memory. Choose smaller networks, batches or images"
    return str(error)


def refuse_options(conditions: Iterable[str], command: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Refuse conditions that a function would take for arguments of its own, and name the command's option.

    Raises
    ------
    GaldiffError
        For the first of them.
    """
    arguments = inspect.signature(function).parameters
    taken = {name for name, argument in arguments.items() if argument.kind is not argument.VAR_KEYWORD}
    for name in conditions:
        if name in taken:
            option = name in inspect.signature(command).parameters
            dashed = f"-{name}" if len(name) == 1 else f"--{name}"
            remedy = f"Use {dashed}" if option else f"Only Python's {function.__qualname__} has it"
            raise GaldiffError(f"'{name}' is not a condition", where=f"--condition {name}", remedy=remedy)


def refuse_output(path: Path) -> None:
    """Refuse an output that could not be written in the end, before anything is done for it.

    Raises
    ------
    ResourceError
        Where there is something already, no folder, or one that cannot be written to.
    """
    if path.exists() or path.is_symlink():
        raise ResourceError("is there already", where=path, remedy="Remove it, or write elsewhere")
    refuse_missing_folder(path)
    with resource_errors(path), tempfile.TemporaryFile(dir=path.absolute().parent):
        pass


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give another name of the same suffix to write a file or a folder by; it gets its own when the block ends.

    Raises
    ------
    ResourceError
        Where it cannot be written; nothing of it stays.
    """
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    try:
        with resource_errors(path):
            _remove(unfinished)
            yield unfinished
            unfinished.rename(path)
    except GaldiffError as error:
        error.where = str(path)
        raise
    finally:
        with suppress(OSError):
            _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

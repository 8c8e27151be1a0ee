"""What commands share: their common options, and how they report a user's mistakes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from galdiff.errors import GaldiffError

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
    "plainly",
]

APP: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}
"""How every application is made."""

Catalog = Annotated[str, typer.Argument(metavar="CATALOG", help="A catalog file, or a packaged one: quickstart.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a value, as if in the file.")]
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
            typer.echo("interrupted; the same command goes on from the last checkpoint", err=True)
            raise typer.Exit(130) from None
        except GaldiffError as error:
            if debug:
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None

    return wrapped

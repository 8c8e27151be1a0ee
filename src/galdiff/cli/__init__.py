"""The commands ``galdiff`` and ``galdiff-train``.

Heavy imports happen after parsing, so that ``--help`` answers at once. A mistake of the user's is printed without a
traceback and ends with status 2; an interrupted run ends with 130 and goes on when the same command is given again.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from galdiff import __version__

# OpenMP's threads spin for milliseconds at the end of every parallel loop before they sleep. Where another process
# wants one of the cores, that takes the core from the thread that is waited for (10 images/s instead of 81 in
# training); a few microseconds of spinning cost nothing on a machine that is free. To be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from galdiff.cli import files  # noqa: F401 - whose commands join the application
from galdiff.cli.runs import app, train_app

__all__ = ["app", "main", "main_train", "train_app"]


@app.callback(invoke_without_command=True)
def _face(version: Annotated[bool, typer.Option("--version", help="Say the version.")] = False) -> None:
    if version:
        typer.echo(f"galdiff {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run ``galdiff``."""
    app()


def main_train() -> None:
    """Run ``galdiff-train``."""
    train_app()

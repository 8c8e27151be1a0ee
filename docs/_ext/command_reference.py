"""``command-reference``: the commands and their options, out of the signatures that parse them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.models import ArgumentInfo

from galdiff.cli import app as galdiff_app
from galdiff.cli import train_app

_METAVARS = {int: "INTEGER", float: "NUMBER", Path: "PATH"}


class Line(NamedTuple):
    """One line of a command's table."""

    option: str
    meaning: str
    default: str


def commands() -> list[tuple[str, Callable[..., None]]]:
    """Return every command with its full name."""
    inner = [(f"galdiff {c.name}", c.callback) for c in galdiff_app.registered_commands if c.name != "train"]
    for group in galdiff_app.registered_groups:
        inner += [(f"galdiff {group.name} {c.name}", c.callback) for c in group.typer_instance.registered_commands]
    return [("galdiff-train", train_app.registered_commands[0].callback), *inner]


def options(command: Callable[..., None]) -> Iterator[tuple[bool, Line]]:
    """Yield what a command takes: whether it is an argument, and its line."""
    hints = get_type_hints(inspect.unwrap(command), include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        plain, info = next(_annotated(hints[name]))
        if isinstance(info, ArgumentInfo):
            yield True, Line(info.metavar, info.help, "required")
            continue
        # In an annotation, the first spelling stands where a default otherwise would.
        spellings = [s for s in (info.default, *(info.param_decls or ())) if isinstance(s, str)]
        spelled = ", ".join(spellings or [f"--{name.replace('_', '-')}"])
        kinds = {plain, *get_args(plain)} - {type(None)}
        metavar = info.metavar or next((_METAVARS[kind] for kind in kinds if kind in _METAVARS), "TEXT")
        default = "required" if parameter.default is parameter.empty else str(parameter.default)
        yield (
            False,
            Line(
                spelled if bool in kinds else f"{spelled} {metavar}",
                info.help + (" May be repeated." if any(get_origin(kind) is list for kind in kinds) else ""),
                "" if default in ("None", "False") else default,
            ),
        )


def _annotated(hint: Any) -> Iterator[tuple[Any, Any]]:
    if get_origin(hint) is Annotated:
        yield get_args(hint)[0], get_args(hint)[1]
    for part in get_args(hint):
        yield from _annotated(part)


def _lines(name: str, command: Callable[..., None]) -> list[str]:
    found = list(options(command))
    usage = " ".join([name, *(line.option for argument, line in found if argument), "[OPTIONS]"])
    table = [".. list-table::", "   :header-rows: 1", "   :class: command-options", ""]
    rows = [Line("Option", "Meaning", "Default")]
    rows += [line._replace(option=f"``{line.option}``") for _, line in found]
    for row in rows:
        table += [f"   {'* -' if j == 0 else '  -'} {cell}" for j, cell in enumerate(row)]
    usage_block = [".. code-block:: text", "", f"   {usage}", ""]
    return [name, "-" * len(name), "", inspect.getdoc(command) or "", "", *usage_block, *table, ""]


class CommandReference(SphinxDirective):
    """Write every command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections, parsed."""
        text = [line for name, command in commands() for line in _lines(name, command)]
        holder = nodes.section()
        holder.document = self.state.document
        self.state.nested_parse(StringList(text, "galdiff.cli"), 0, holder, match_titles=True)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True}

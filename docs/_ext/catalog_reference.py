"""``catalog-reference``: every section and key of a catalog file, out of the pydantic models that read it."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from galdiff.config import RunSpec

Sections = list[tuple[str, type[BaseModel]]]

_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of", "pattern": "matching"}


class Key(NamedTuple):
    """One line of a section's table."""

    name: str
    values: str
    default: str
    meaning: str


def models(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a key may hold."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models(part)]


def values(annotation: Any, metadata: tuple[Any, ...] | list[Any] = ()) -> str:
    """Say in words which values a key takes."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(parts[0], [*metadata, *parts[1:]])
    if origin is Literal:
        return ", ".join(f"``{part}``" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(values(part) for part in parts if part is not type(None)))
    if origin is tuple:
        return f"list of {values(parts[0])}" if parts[-1] is Ellipsis else "[" + ", ".join(map(values, parts)) + "]"
    if origin is dict:
        return f"mapping from {values(parts[0])} to {values(parts[1])}"
    if models(annotation):
        return "a section"
    bounds = [bound for item in metadata for bound in (item.metadata if isinstance(item, FieldInfo) else [item])]
    return ", ".join(
        [_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower()), *_limits(bounds)]
    )


def _limits(bounds: list[Any]) -> list[str]:
    limits = ((word, getattr(bound, name, None)) for bound in bounds for name, word in _BOUNDS.items())
    return [f"{word} ``{limit}``" for word, limit in limits if limit not in (None, 2**63)]


def keys(model: type[BaseModel]) -> list[Key]:
    """Return what a section's table says."""
    return [
        Key(
            name,
            values(field.annotation, field.metadata),
            "required" if field.is_required() else _default(field),
            field.description or "",
        )
        for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] != "kind")
    ]


def _default(field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, BaseModel):
        kind = getattr(default, "kind", None)
        return f"``{kind}``" if kind else "its defaults"
    if default is None:
        return ""
    if isinstance(default, bool):
        return f"``{str(default).lower()}``"
    return f"``{list(default) if isinstance(default, tuple) else default}``"


def sections(model: type[BaseModel], path: str = "") -> Sections:
    """Return a section and those in it, in the file's order, each with its dotted path."""
    found: Sections = [(path, model)]
    for name, field in model.model_fields.items():
        for inner in models(field.annotation):
            found += sections(inner, f"{path}.{name}".lstrip("."))
    return found


def _lines(path: str, model: type[BaseModel]) -> list[str]:
    kind = model.model_fields.get("kind")
    which = f" ({' or '.join(get_args(kind.annotation))})" if kind else ""
    title = f"{path}{which}" if path else "The top of the file"
    table = [".. list-table::", "   :header-rows: 1", "   :class: catalog-keys", ""]
    rows = [Key("Key", "Values", "Default", "Meaning"), *keys(model)]
    for i, row in enumerate(rows):
        cells = row if i == 0 else row._replace(name=f"``{row.name}``")
        table += [f"   {'* -' if j == 0 else '  -'} {cell}" for j, cell in enumerate(cells)]
    docstring = inspect.getdoc(model) or "" if path else ""
    return [title, "-" * len(title), "", *docstring.splitlines(), "", *table, ""]


class CatalogReference(SphinxDirective):
    """Write every section."""

    def run(self) -> list[nodes.Node]:
        """Return the sections, parsed."""
        text = [line for path, model in sections(RunSpec) for line in _lines(path, model)]
        holder = nodes.section()
        holder.document = self.state.document
        self.state.nested_parse(StringList(text, "galdiff.config.spec"), 0, holder, match_titles=True)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("catalog-reference", CatalogReference)
    return {"parallel_read_safe": True}

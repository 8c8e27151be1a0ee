"""Constants say what they are by the comment beside them, never by the docstring of their type."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def _drop_type_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what == "data" and "\n".join(lines).strip() == _clean(type(obj).__doc__):
        lines.clear()


def _clean(text: str | None) -> str:
    return "\n".join(line.strip() for line in (text or "").expandtabs().splitlines()).strip()


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _drop_type_docstring, priority=100)
    return {"parallel_read_safe": True}

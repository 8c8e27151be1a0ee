"""The sidebar shows the branch of the page alone.

The theme asks for the whole tree on every page, which takes a time that grows with the square of the number of pages,
and puts seven hundred links into each.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def _collapse(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "toctree" in context:
        whole = context["toctree"]
        context["toctree"] = lambda **options: whole(**{**options, "collapse": True})


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect, before the theme does."""
    app.connect("html-page-context", _collapse, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Sphinx configuration; everything builds offline."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "galdiff"
author = copyright = "galdiff developers"
version = release = installed("galdiff")

extensions = [
    "catalog_reference",
    "command_reference",
    "constants",
    "gallery",
    "mathml",
    "myst_parser",
    "numpydoc",
    "sidebar",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Single backticks become links where they name something documented, and code elsewhere.
default_role = "autolink"
add_module_names = False
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"galdiff {release}"
html_static_path = ["_static"]
html_css_files = ["galdiff.css"]
html_copy_source = False

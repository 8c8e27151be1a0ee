"""The reference documents every public name, key and option."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

import galdiff
from galdiff.config import RunSpec

DOCS = Path(__file__).parents[2] / "docs"
MODULES = ["galdiff", *(module.name for module in pkgutil.walk_packages(galdiff.__path__, "galdiff."))]


def _documented() -> set[str]:
    """Return every full name that the pages of the API reference list, define, or refer to under another name."""
    entry = re.compile(r"^(?:   |\.\. py:data:: )(\w+)$|:py:\w+:`(\w+) <", re.MULTILINE)
    names = set()
    for page in (DOCS / "reference" / "api").glob("*.rst"):
        for part in page.read_text().split(".. currentmodule:: ")[1:]:
            module = part.split(maxsplit=1)[0]
            names |= {f"{module}.{found[1] or found[2]}" for found in entry.finditer(part)}
    return names


@pytest.fixture(scope="module")
def documented() -> set[str]:
    return _documented()


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module, documented):
    """A name that two modules export is documented once, at either."""
    owner = importlib.import_module(module)
    for name in getattr(owner, "__all__", ()):
        homes = [m for m in MODULES if getattr(sys.modules.get(m), name, None) is getattr(owner, name)]
        assert any(f"{home}.{name}" in documented for home in homes), f"{module}.{name}"


def test_the_reference_has_no_name_that_is_gone(documented):
    for full in documented:
        module, name = full.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name), full


def test_every_module_of_the_reference_is_real_and_every_module_is_in_it():
    text = "\n".join(page.read_text() for page in (DOCS / "reference" / "api").glob("*.rst"))
    assert set(re.findall(r"automodule:: (\S+)", text)) == set(MODULES) - {"galdiff.latent_diffusion"}


def _sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, waiting = set(), [model]
    while waiting:
        here = waiting.pop()
        if inspect.isclass(here) and issubclass(here, BaseModel):
            found.add(here)
            waiting += [field.annotation for field in here.model_fields.values()]
        else:
            waiting += getattr(here, "__args__", ())
    return found


@pytest.mark.parametrize("section", sorted(_sections(RunSpec), key=lambda s: s.__name__))
def test_every_key_of_the_catalog_file_is_described(section):
    assert len(_sections(RunSpec)) >= 11
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name}"

"""The benchmarks are a package, which asv imports whole: one module that does not import is none of them measured."""

import ast
from pathlib import Path

import pytest

MODULES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_import_one_another_as_parts_of_the_package(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert not named & {module.stem for module in MODULES}

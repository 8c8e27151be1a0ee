"""The benchmarks are a package, which asv imports whole: one module that does not import is none of them measured."""

import ast
import json
import runpy
from pathlib import Path

import pytest

MODULES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_import_one_another_as_parts_of_the_package(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert not named & {module.stem for module in MODULES}


@pytest.mark.parametrize("figure", [None, [None], [1.0, None], [float("nan")], [float("inf")], [-1.0]])
def test_what_is_no_figure_did_not_run(tmp_path, figure):
    path = tmp_path / "result.json"
    results = {"bench_a.A.track_b": [figure], "bench_a.A.track_c": [[0.0, 2]], "bench_a.A.track_d": None}
    path.write_text(json.dumps({"result_columns": ["result"], "results": results}))
    check = runpy.run_path(str(next(module for module in MODULES if module.stem == "check_results")))
    assert check["ran"](path) == {"bench_a.A.track_c"}

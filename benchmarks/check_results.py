"""Assert that every benchmark of the suite ran: asv itself passes over one that it cannot import or that fails.

python benchmarks/check_results.py .asv/results
"""

from __future__ import annotations

import ast
import json
import math
import sys
from pathlib import Path

KINDS = ("time_", "timeraw_", "track_", "peakmem_", "mem_")


def written(folder: Path) -> set[str]:
    """Names of the benchmarks in the source files, without importing them."""
    names = set()
    for path in sorted(folder.glob("bench_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names |= {f"{path.stem}.{node.name}.{part.name}" for part in node.body if _is_benchmark(part)}
            elif _is_benchmark(node):
                names.add(f"{path.stem}.{node.name}")
    return names


def ran(path: Path) -> set[str]:
    """Names of the benchmarks that gave a number for every parameter; a negative one is an extrapolation of noise."""
    stored = json.loads(path.read_text())
    column = stored["result_columns"].index("result")
    values = {name: entry[column] if entry else None for name, entry in stored["results"].items()}
    return {name for name, found in values.items() if found and all(_is_number(value) for value in found)}


def _is_benchmark(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith(KINDS)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def main(results: Path) -> None:
    """Compare what is written with what ran in asv's newest result."""
    files = [path for path in results.glob("*/*.json") if path.name != "machine.json"]
    if not files:
        sys.exit(f"no result in {results}")
    expected, found = written(Path(__file__).parent), ran(max(files, key=lambda path: path.stat().st_mtime))
    if expected != found:
        sys.exit(f"no number from {sorted(expected - found)}; not in the suite: {sorted(found - expected)}")
    print(f"{len(found)} of {len(expected)} benchmarks ran")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

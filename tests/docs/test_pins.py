"""The pinned versions are those that the package says it works with."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def _pins(name: str) -> dict[str, Version]:
    lines = (line.split("==") for line in (ROOT / name).read_text().split())
    return {package.lower().replace("_", "-"): Version(version) for package, version in lines}


def test_the_oldest_versions_are_the_lower_bounds():
    required = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS["test"])]
    bounds = {r.name: Version(next(s.version for s in r.specifier if s.operator == ">=")) for r in required}
    bounds.pop("torch")
    assert _pins("constraints-oldest.txt") == bounds


def test_the_pinned_versions_are_allowed():
    required = [Requirement(text) for extra in ("test", "docs", "bench") for text in EXTRAS[extra]]
    required += [Requirement(text) for text in PROJECT["dependencies"]]
    pins = _pins("constraints.txt")
    assert not [str(r) for r in required if pins[r.name.lower()] not in r.specifier]


def test_nothing_pinned_brings_another_torch():
    assert not {"torchvision", "torchaudio", "lightning", "triton"} & set(_pins("constraints.txt"))

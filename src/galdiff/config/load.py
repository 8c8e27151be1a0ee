"""From a catalog file and overrides to a `RunSpec`, or to the list of everything that is wrong with them.

An override ``a.b=c`` acts as if the file had been edited: its value is read as YAML, and what is wrong with it is
reported like any other mistake, at the place ``--set a.b``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml as pyyaml
from pydantic import ValidationError

from galdiff.config.section import Section, did_you_mean
from galdiff.config.spec import RELATIONS, RunSpec
from galdiff.config.yaml import Document, Path_, Place, Problem, dotted, read_file, read_scalar, read_text
from galdiff.errors import CatalogFileError, nearest_name

__all__ = ["catalog_path", "dump", "load", "packaged_catalogs", "strip_tags"]

Overrides = Iterable[str] | Mapping[str, Any]

_ROUNDS = 8  # of validation, each of which finds what the mistakes of the one before had hidden


def load(catalog: str | Path, *overrides: Overrides) -> RunSpec:
    """Read and validate a catalog file.

    Parameters
    ----------
    catalog : path or str
        A YAML file, or the name of a packaged one such as ``quickstart``.
    *overrides : iterable of str, or mapping
        ``"a.b=c"`` with c in YAML, or ``{"a.b": value}``; the last one wins. Paths in the file resolve against the
        file, in overrides against the working directory.

    Returns
    -------
    RunSpec
        With ``data.root`` absolute.

    Raises
    ------
    CatalogFileError
        With every problem, one a line, each as ``file:line:column: key: message``.
    """
    path = catalog_path(catalog)
    document = read_file(path)
    if not isinstance(document.value, dict):
        raise CatalogFileError("a catalog file is a mapping of sections (name:, data:, …)", where=path)
    for group in overrides:
        for key, value, source in _parse_overrides(group):
            _override(document, key, value, source)
    _resolve_path(document, "data", "root", path.parent)
    _resolve_path(document, "autoencoder", "folder", path.parent)
    spec, mistakes = _validate(document)
    known = {problem.place for problem in document.problems}
    problems = sorted({*document.problems, *(p for p in mistakes if p.place not in known or p.place.line == 0)})
    if problems or spec is None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CatalogFileError("\n".join([f"{count} in the catalog file", *(f"  {p}" for p in problems)]))
    return spec


def dump(spec: RunSpec) -> str:
    """Return the complete catalog file of a spec, with every default written out; `load` reads it back."""
    return pyyaml.safe_dump(_plain(spec.model_dump()), sort_keys=False, allow_unicode=True, width=120)


def packaged_catalogs() -> dict[str, Path]:
    """Return the catalog files that come with galdiff, by name."""
    # A wheel carries them inside the package; a checkout, editable or not, has them beside `src`.
    package = Path(str(files("galdiff")))
    folder = package / "catalogs" if (package / "catalogs").is_dir() else package.parents[1] / "catalogs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def catalog_path(catalog: str | Path) -> Path:
    """Return the path of a catalog file, or of a packaged one by its name.

    Raises
    ------
    CatalogFileError
        Where it is neither, with the nearest name.
    """
    path = Path(catalog).expanduser()
    if path.is_file():
        return path
    packaged = packaged_catalogs()
    if str(catalog) in packaged:
        return packaged[str(catalog)]
    if path.is_dir():
        raise CatalogFileError("is a folder, not a catalog file", where=path, remedy="Give the .yaml file in it")
    hint = did_you_mean(catalog, list(packaged))
    raise CatalogFileError(
        f"there is no such catalog file{hint}", where=path, remedy=f"Packaged: {', '.join(packaged) or 'none'}"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _parse_overrides(overrides: Overrides) -> Iterator[tuple[Path_, Document, str]]:
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            yield _path(name), Document(value, places={(): Place(f"override {name}")}), f"override {name}"
        return
    for text in overrides:
        name, equals, value = text.partition("=")
        source = f"--set {name}"
        if not equals or not all(name.split(".")):
            raise CatalogFileError("an override reads a.b=value", where=f"--set {text}")
        yield _path(name), read_text(value, source=source, inline=True), source


def _path(name: str) -> Path_:
    keys = (read_scalar(part) for part in name.split("."))
    return tuple(
        key if isinstance(key, int) and not isinstance(key, bool) else part
        for key, part in zip(keys, name.split("."), strict=True)
    )


def _override(document: Document, path: Path_, new: Document, source: str) -> None:
    place, parent = Place(source), document.value
    for depth, key in enumerate(path[:-1], start=1):
        if parent.get(key) is None:
            parent[key] = {}
            document.keys[path[:depth]] = document.places[path[:depth]] = place
        elif not isinstance(parent[key], dict):
            document.problems.append(
                Problem(place, dotted(path[:depth]), "is not a section, so nothing in it can be set")
            )
            return
        parent = parent[key]
    parent[path[-1]] = new.value
    for table in (document.keys, document.places):
        for old in [p for p in table if p[: len(path)] == path]:
            del table[old]
    document.problems = [p for p in document.problems if p.key != dotted(path)]
    document.keys[path] = place
    document.keys |= {path + sub: p for sub, p in new.keys.items()}
    document.places |= {path + sub: p for sub, p in new.places.items()}
    document.problems += [
        Problem(p.place, dotted((*path, p.key)) if p.key else dotted(path), p.message) for p in new.problems
    ]


def _resolve_path(document: Document, section: str, key: str, folder: Path) -> None:
    keys = document.value.get(section)
    if isinstance(keys, dict) and isinstance(keys.get(key), str | Path):
        from_file = document.places[(section, key)].line > 0
        base = folder.absolute() if from_file else Path.cwd()
        # What names no file or no user is refused with the other mistakes.
        with suppress(ValueError, RuntimeError):
            keys[key] = str((base / Path(keys[key]).expanduser()).resolve())


def _validate(document: Document) -> tuple[RunSpec | None, set[Problem]]:
    """Validate; mend what is wrong and look again, since pydantic judges relations in sound sections only."""
    problems: set[Problem] = set()
    lost: set[Path_] = set()
    value = document.value
    for _ in range(_ROUNDS):
        try:
            return RunSpec.model_validate(value), problems
        except ValidationError as error:
            rows = _told_once(error.errors(include_url=False))
        value = deepcopy(value)
        for row in rows:
            if not _doubtful(row, value, lost):
                problems |= set(_render(row, document, value))
        for row in rows:
            lost |= _mend(row, value)
    return None, problems


def _told_once(rows: list[Any]) -> list[Any]:
    """Leave out that a list is too short where that is for items which are told themselves."""
    wrong = {row["loc"][:-1] for row in rows}
    return [row for row in rows if row["type"] != "too_short" or row["loc"] not in wrong]


def _doubtful(row: Any, value: dict[Any, Any], lost: set[Path_]) -> bool:
    """Whether a mistake may be of a default that stands where a value was lost, which is nobody's mistake.

    A value itself is doubtful, a section where anything of it was lost, and a relation where something that it looks at
    was.
    """
    path = strip_tags(row, value)
    section = str(row["loc"][0])
    looks_at: Set[Path_] = {path}
    if row["type"] == "relation":
        looks_at = RELATIONS.get(section, {()})
    elif row["type"] == "section":
        looks_at = {(section, "")}
    return any(key[: len(gone)] == gone or key == (*gone[:1], "") for key in looks_at for gone in lost)


def _mend(row: Any, value: dict[Any, Any]) -> set[Path_]:
    """Take the nearest kind for a misspelt one, and leave out what else is wrong; return what is lost by that."""
    path = strip_tags(row, value)
    if row["type"] == "union_tag_invalid":
        near = nearest_name(row["ctx"]["tag"], _quoted(row["ctx"]["expected_tags"]))
        if near is not None:
            _set_kind(value, path, near)
            return set()
    blamed = [(*path, *inner) for inner, _ in row.get("ctx", {}).get("problems", [((), "")])]
    return {gone for path in blamed for gone in _leave_out(value, path, row)}


def _set_kind(value: dict[Any, Any], path: Path_, kind: str) -> None:
    for key in path[:-1]:
        value = value[key]
    section = value[path[-1]]
    value[path[-1]] = {**section, "kind": kind} if isinstance(section, dict) else {"kind": kind}


def _leave_out(value: dict[Any, Any], path: Path_, row: Any) -> set[Path_]:
    """Leave a section or a key of one out; return what is lost by that."""
    section = value.get(path[0]) if len(path) > 1 else None
    if not isinstance(section, dict):
        value.pop(path[0] if path else None, None)
        return {path[:1]}
    section.pop(path[1], None)
    if path == ("data", "root"):
        section["root"] = "."  # data need one, and nothing looks into it yet
        return set()
    if row["type"] == "extra_forbidden" and len(path) == 2:
        near = nearest_name(path[1], _known_keys(row["loc"]))
        return set() if near is None or near in section else {(path[0], near)}
    return {path[:2]}


def _render(row: Any, document: Document, value: Any) -> Iterator[Problem]:
    """Turn one pydantic error into problems with places."""
    kind, context = row["type"], row.get("ctx", {})
    path = strip_tags(row, value)
    if kind in ("section", "relation"):
        for inner, message in context["problems"]:
            yield Problem(_place(document, path + inner), dotted(path + inner), message)
    elif kind == "extra_forbidden":
        hint = did_you_mean(path[-1], _known_keys(row["loc"]))
        yield Problem(document.keys.get(path, _place(document, path)), dotted(path), f"there is no such key{hint}")
    elif kind == "missing":
        yield Problem(_place(document, path), dotted(path), "is required")
    elif kind == "union_tag_not_found":
        kinds = " or ".join(kind for m in _models_at(row["loc"]) for kind in _kinds(m))
        yield Problem(_place(document, (*path, "kind")), dotted((*path, "kind")), f"is required: {kinds}")
    elif kind == "union_tag_invalid":
        tags = _quoted(context["expected_tags"])
        hint = did_you_mean(context["tag"], tags)
        where = (*path, "kind")
        message = f"should be {' or '.join(tags)}, not '{context['tag']}'{hint}"
        # `backbone: unet` is short for a section with that kind.
        place = document.places.get(where) or document.places[path]
        yield Problem(place, dotted(where), message)
    else:
        yield Problem(_place(document, path), dotted(path), _message(row))


_PLAIN = {
    "bool_type": "should be true or false",
    "dict_type": "should be a mapping (key: value)",
    "float_parsing": "should be a number",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "model_attributes_type": "should be a section (key: value)",
    "model_type": "should be a section (key: value)",
    "string_type": "should be text",
    "tuple_type": "should be a list",
}


def _message(row: Any) -> str:
    text = _PLAIN.get(row["type"]) or re.sub(r"^(Input|Value|String|List|Tuple) should", "should", row["msg"])
    given = row["input"]
    if isinstance(given, str | int | float | None) and ", not " not in text:
        text += f", not {given!r}" if given is not None else ", not empty"
    if row["type"] == "literal_error" and isinstance(given, str):
        text += did_you_mean(given, _quoted(row["ctx"]["expected"]))
    return text


def _quoted(text: str) -> list[str]:
    """Return the names in quotation marks of a pydantic message."""
    return re.findall(r"'([^']*)'", text)


def strip_tags(row: Any, value: Any) -> Path_:
    """Leave out of a pydantic error's location what is no key of the file: kinds of unions, names of validators."""
    path: Path_ = ()
    loc, keep_last = row["loc"], row["type"] in ("missing", "extra_forbidden")
    for i, key in enumerate(loc):
        models = _models_at(loc[:i])
        if len(models) > 1 and any(key in _kinds(model) for model in models):
            continue  # a kind, also where the section has a key of that name
        if isinstance(value, dict) and key in value:
            value, path = value[key], (*path, key)
        elif isinstance(value, dict) and isinstance(key, str) and key.lstrip("-").isdigit() and int(key) in value:
            value, path = value[int(key)], (*path, int(key))
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value, path = value[key], (*path, key)
        elif i == 0 or (keep_last and i == len(loc) - 1):
            path = (*path, key)
    return path


def _place(document: Document, path: Path_) -> Place:
    """Where a value stands; where it is not there, the key of the section that it would be in."""
    if path in document.places:
        return document.places[path]
    while path and path not in document.keys:
        path = path[:-1]
    return document.keys.get(path) or document.places[path]


def _known_keys(loc: Path_) -> list[str]:
    return [name for model in _models_at(loc[:-1]) for name in model.model_fields]


def _models_at(loc: Path_) -> list[type[Section]]:
    """Sections that pydantic's location leads to."""
    models: list[type[Section]] = [RunSpec]
    for key in loc:
        fields = [m.model_fields[str(key)].annotation for m in models if key in m.model_fields]
        models = [m for f in fields for m in _sections(f)] or [m for m in models if key in _kinds(m)] or models
    return models


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [m for part in get_args(annotation) for m in _sections(part)]


def _kinds(model: type[Section]) -> tuple[str, ...]:
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()

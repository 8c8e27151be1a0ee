r"""A strict reader of YAML that remembers where everything stands.

PyYAML's scanner gives the events; what a plain scalar means is decided here, by the YAML 1.2 core rules:

========== ================= =====================
text       YAML 1.1 (PyYAML) here
========== ================= =====================
1e-4       text              0.0001
no, off    False             text
012        10 (octal)        text
12:30:45   45045 (base 60)   text
2026-01-01 a date            text
========== ================= =====================

Duplicate keys, tags, anchors, aliases and merge keys are problems, gathered and not raised, so that a file's mistakes
are all reported at once. Nothing in a file can name code, and no file can be larger than it looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from galdiff.errors import CatalogFileError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Document", "Place", "Problem", "dotted", "read_file", "read_scalar", "read_text"]

MAX_BYTES = 256 * 1024
"""Largest catalog file."""
MAX_DEPTH = 32
"""Deepest nesting of a catalog file."""

Key = str | int
Path_ = tuple[Key, ...]

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 300


@dataclass(frozen=True, order=True)
class Place:
    """Where something was written: a file with line and column (from 1), or an override (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake: its place, the dotted key and what is wrong."""

    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.message}" if self.key else f"{self.place}: {self.message}"


@dataclass
class Document:
    """What a file says.

    Attributes
    ----------
    value : object
        Plain dicts, lists, strings, numbers, booleans and None.
    keys, places : dict
        From the path of a value, a tuple of keys, to the place of its key and of the value itself.
    problems : list of Problem
        What the reader had to object to.
    """

    value: Any = None
    keys: dict[Path_, Place] = field(default_factory=dict)
    places: dict[Path_, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_file(path: Path) -> Document:
    """Read a YAML file.

    Raises
    ------
    CatalogFileError
        Where there is no such file, or it is too large, not UTF-8 or not YAML.
    """
    if not path.is_file():
        raise CatalogFileError("there is no such file", where=path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CatalogFileError(f"cannot be read: {error.strerror}", where=path) from error
    if len(raw) > MAX_BYTES:
        raise CatalogFileError(f"is larger than {MAX_BYTES // 1024} KiB, so it is not a catalog file", where=path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CatalogFileError("is not UTF-8 text", where=f"{path}:{line}") from error
    return read_text(text, source=str(path))


def read_text(text: str, *, source: str, inline: bool = False) -> Document:
    """Read YAML text; ``inline`` text has no lines worth naming (an override).

    Raises
    ------
    CatalogFileError
        Where it is not YAML, is nested deeper than `MAX_DEPTH`, or has several documents.
    """
    composer = _Composer(text, source, inline)
    try:
        return composer.compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = composer.place(mark) if mark else source
        raise CatalogFileError(f"is not YAML: {error.problem or error.context}", where=where) from None
    except yaml.YAMLError as error:
        raise CatalogFileError(f"is not YAML: {str(error).splitlines()[0]}", where=source) from None
    except (ValueError, OverflowError) as error:
        # The scanner converts escapes such as "\UFFFFFFFF" and directive versions without looking at their size.
        raise CatalogFileError(f"has a number or an escape that means nothing: {error}", where=source) from None


def read_scalar(text: str) -> Any:
    """Return the value of a plain scalar: None, a boolean, a number, or the text itself."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


class _Composer:
    """Builds a `Document` from the event stream; the depth is capped before Python's own stack is."""

    def __init__(self, text: str, source: str, inline: bool) -> None:
        self.source, self.inline = source, inline
        self.document = Document()
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def place(self, mark: Any) -> Place:
        return Place(self.source) if self.inline else Place(self.source, mark.line + 1, mark.column + 1)

    def object_to(self, mark: Any, path: Path_, message: str) -> None:
        self.document.problems.append(Problem(self.place(mark), dotted(path), message))

    def compose(self) -> Document:
        next(self.events)  # the start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            self.document.places[()] = Place(self.source, 0 if self.inline else 1, 1)
            return self.document
        self.document.value = self.node(next(self.events), ())
        next(self.events)  # the end of the document
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise CatalogFileError("holds a second document", where=self.place(event.start_mark))
        return self.document

    def node(self, event: Any, path: Path_) -> Any:
        mark = event.start_mark
        self.document.places[path] = self.place(mark)
        if len(path) > MAX_DEPTH:
            raise CatalogFileError(f"is nested deeper than {MAX_DEPTH} levels", where=self.place(mark))
        if isinstance(event, yaml.AliasEvent):
            self.object_to(mark, path, f"aliases (*{event.anchor}) are not allowed; write the value out")
            return None
        if event.anchor is not None:
            self.object_to(mark, path, f"anchors (&{event.anchor}) are not allowed; write the value where it is used")
        if event.tag is not None:
            self.object_to(mark, path, f"tags ({event.tag}) are not allowed; write plain YAML")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path)
        return self.scalar(event, path)

    def scalar(self, event: Any, path: Path_) -> Any:
        if any("\ud800" <= c <= "\udfff" for c in event.value):
            self.object_to(event.start_mark, path, "half a surrogate pair is not text")
            return None
        return read_scalar(event.value) if event.style is None else event.value

    def sequence(self, path: Path_) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*path, len(items))))
        return items

    def mapping(self, path: Path_) -> dict[Key, Any]:
        value: dict[Key, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            place = self.place(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
                raise CatalogFileError("a key must be plain text or a whole number", where=place)
            key = self.key(event, path)
            child = (*path, key)
            if key in value:
                first = self.document.keys[child]
                line = f", first in line {first.line}" if first.line else ""
                self.object_to(event.start_mark, child, f"the key is there twice{line}")
                # The first one counts; the second is read for its own mistakes, under a path that no schema asks for.
                self.node(next(self.events), (*path, f"{key} (second)"))
                continue
            self.document.keys[child] = place
            value[key] = self.node(next(self.events), child)
        return value

    def key(self, event: Any, path: Path_) -> Key:
        if event.value == "<<" and event.style is None:
            self.object_to(event.start_mark, (*path, "<<"), "merge keys are not allowed; write the keys out")
        key = self.scalar(event, path)
        return key if isinstance(key, int) and not isinstance(key, bool) else str(event.value)


def dotted(path: Path_) -> str:
    """Return ``a.b.0`` for ``("a", "b", 0)``."""
    return ".".join(str(key) for key in path)

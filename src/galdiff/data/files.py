"""Finding the image that a row of a table means, in whatever folder and by whatever suffix."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

import pandas as pd

from galdiff.errors import DataError

__all__ = ["FileIndex", "file_stems", "without_suffix"]


def without_suffix(name: str, suffixes: Sequence[str]) -> str:
    """Return a name without its suffix if it is one of these, in any case; names of surveys contain other dots."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix.lower()}" in suffixes else name


def file_stems(names: pd.Series, suffixes: Sequence[str]) -> pd.Series:
    """Return ids without the folder and the suffix of a file that some tables give them."""

    def stem(name: str) -> str:
        return without_suffix(name.strip().replace("\\", "/").rpartition("/")[2], suffixes).strip()

    return names.astype(str).map(stem)


class FileIndex:
    """The files of a folder and its subfolders, by path and by name.

    Survey folders hold 300,000 files: they are kept as text, and a `Path` is made of those that are read.

    Parameters
    ----------
    folder : Path
        The folder.
    suffixes : sequence of str
        Which files, in lower case; other files, and those whose names begin with a dot, are not seen.

    Attributes
    ----------
    names : list of str
        Every file, in order: its path below the folder.
    stems : dict
        From names without folder and suffix, which may contain dots, to files; the first of several.

    Raises
    ------
    DataError
        Where the folder is absent or has no such file.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str]) -> None:
        if not folder.is_dir():
            raise DataError(
                "the images folder is missing", where=folder, remedy="Set data.images, a folder in data.root"
            )
        self.folder, self._suffixes = folder, tuple(suffixes)
        self.names: list[str] = []
        for place, _, names in os.walk(folder):
            prefix = Path(place).relative_to(folder).as_posix() + "/" if place != str(folder) else ""
            self.names += [prefix + n for n in names if n.lower().endswith(self._suffixes) and n[0] != "."]
        if not self.names:
            raise DataError(f"there is no {' or '.join(self._suffixes)} file here", where=folder)
        self.names.sort(key=lambda name: name.replace("/", "\0"))  # folder by folder, as paths are compared
        self.stems: dict[str, str] = {}
        self._twins: dict[str, str] = {}
        for name in self.names:
            stem = name.rpartition("/")[2].rpartition(".")[0]
            if self.stems.setdefault(stem, name) is not name:
                self._twins.setdefault(stem, name)
        self._by_path: tuple[set[str], dict[str, list[str]]] | None = None

    def path(self, name: str) -> Path:
        """Return where a file is."""
        return self.folder / name

    def refuse_twins(self) -> None:
        """Raise a `DataError` where two files have one name, in folders or by suffixes of their own."""
        for stem in self._twins:
            self._only_stem(stem)

    def find(self, name: str, *, by_path: bool = False) -> str | None:
        """Return the file that a name means, or None.

        Parameters
        ----------
        name : str
            With or without a suffix, which need not be the file's.
        by_path : bool
            The name is a path: it is looked for below the folder as it is, then by another suffix, then in any
            folder by its last part, since tables remember folders of other machines.

        Raises
        ------
        DataError
            Where several files may be meant.
        """
        if not by_path:
            return self._only_stem(without_suffix(name, self._suffixes))
        name = PurePosixPath(name.replace("\\", "/")).as_posix()
        stem = without_suffix(name, self._suffixes)
        if self._by_path is None:
            bare: dict[str, list[str]] = defaultdict(list)
            for other in self.names:
                bare[without_suffix(other, self._suffixes)].append(other)
            self._by_path = set(self.names), bare
        exact, bare = self._by_path
        if name in exact:
            return name
        if here := bare.get(stem):
            if len(here) > 1:
                self._refuse(stem, *here[:2])
            return here[0]
        return self._only_stem(PurePosixPath(stem).name)

    def _only_stem(self, stem: str) -> str | None:
        if stem in self._twins:
            self._refuse(stem, self.stems[stem], self._twins[stem])
        return self.stems.get(stem)

    def _refuse(self, stem: str, first: str, second: str) -> NoReturn:
        remedy = f"The other is {self.path(first)}; name them by their paths in a column, with 'file'"
        raise DataError(f"two files are called '{stem}'", where=self.path(second), remedy=remedy)

    def ids(self) -> list[str]:
        """Return an id for every file: its name without suffix, or its path where names repeat."""
        return self.names if self._twins else list(self.stems)

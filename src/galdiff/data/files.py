"""Finding the image that a row of a table means, in whatever folder and by whatever suffix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from galdiff.errors import DataError

__all__ = ["FileIndex"]


class FileIndex:
    """The files of a folder and its subfolders, by path and by name.

    Parameters
    ----------
    folder : Path
        The folder.
    suffixes : sequence of str
        Which files, in lower case; other files, and those whose names begin with a dot, are not seen.

    Attributes
    ----------
    paths : list of Path
        Every file, in order.

    Raises
    ------
    DataError
        Where the folder is absent or has no such file.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str]) -> None:
        if not folder.is_dir():
            raise DataError("the images folder is missing", where=folder)
        self.folder, self._suffixes = folder, tuple(suffixes)
        self.paths = sorted(
            p for p in folder.rglob("*") if p.suffix.lower() in self._suffixes and not p.name.startswith(".")
        )
        if not self.paths:
            raise DataError(f"there is no {' or '.join(self._suffixes)} file here", where=folder)
        self._exact: dict[str, Path] = {}
        self._bare: dict[str, list[Path]] = defaultdict(list)
        self._stems: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            relative = path.relative_to(folder).as_posix()
            self._exact[relative] = path
            self._bare[self.bare(relative)].append(path)
            self._stems[path.stem].append(path)

    def bare(self, name: str) -> str:
        """Return a name without its image suffix, if it has one; names of surveys contain other dots."""
        suffix = PurePosixPath(name).suffix
        return name[: -len(suffix)] if suffix.lower() in self._suffixes else name

    def find(self, name: str, *, by_path: bool = False) -> Path | None:
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
        if by_path:
            name = PurePosixPath(name.replace("\\", "/")).as_posix()
            if name in self._exact:
                return self._exact[name]
            if here := self._bare.get(self.bare(name)):
                return self._only(here, name)
        found = self._stems.get(PurePosixPath(self.bare(name)).name if by_path else self.bare(name))
        return self._only(found, name) if found else None

    def _only(self, found: list[Path], name: str) -> Path:
        if len(found) > 1:
            remedy = f"The other is {found[0]}; name them by their paths in a column, with 'file'"
            raise DataError(f"two files are called '{self.bare(name)}'", where=found[1], remedy=remedy)
        return found[0]

    def ids(self) -> list[str]:
        """Return an id for every file: its name without suffix, or its path where names repeat."""
        if len(self._stems) == len(self.paths):
            return [path.stem for path in self.paths]
        return list(self._exact)

"""Files that are whole or absent, and hashes.

A file is written under a temporary name, synced, renamed over its place, and the folder is synced: a crash at any
moment leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from galdiff.errors import ResourceError

__all__ = [
    "append_line",
    "atomic_write",
    "read_json_lines",
    "refuse_missing_folder",
    "resource_errors",
    "sha256_file",
    "sha256_json",
    "sync_folder",
    "write_json",
    "write_text",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_REFUSED |= {errno.EIO, errno.ENAMETOOLONG}


@contextmanager
def resource_errors(path: object) -> Iterator[None]:
    """Turn the operating system's refusals to write into a `ResourceError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            remedy = "Free some space and run again: nothing is lost"
            raise ResourceError("the disk is full", where=path, remedy=remedy) from error
        if error.errno in _REFUSED:
            remedy = "Give a folder that you may write to"
            raise ResourceError(f"cannot write: {error.strerror}", where=path, remedy=remedy) from error
        # As NumPy raises it, where a disk is full; what other libraries raise is of types of their own.
        if type(error) is OSError and error.errno is None:
            raise ResourceError(f"cannot be written: {error}", where=path, remedy="The disk may be full") from error
        raise


def refuse_missing_folder(path: Path) -> None:
    """Raise a `ResourceError` where the folder of a file to write is not there."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ResourceError("there is no such folder", where=folder, remedy="Make it, or write elsewhere with -o")


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces ``path`` when the block ends without an error.

    Raises
    ------
    ResourceError
        Where the disk is full or the folder cannot be written; ``path`` is untouched and no temporary file stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with resource_errors(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a journal and sync it; a last line that a crash cut off is ended first."""
    path = Path(path)
    with resource_errors(path), open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        file.write((b"" if file.read(1) in (b"", b"\n") else b"\n") + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects of a journal, a line each; none where there is no file, and none of a line that is damaged."""
    lines = []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]


def sha256_file(path: str | Path) -> str:
    """Hash a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

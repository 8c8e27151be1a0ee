"""Places: where a store is, and what stands there besides Zarr's arrays.

A store needs of its place a few things that Zarr does not do: to look at metadata before they are acted on, to see
whether a shard is there, to keep a journal, and to let one process write. A folder has all of them, by files that are
whole or absent and by the kernel's lock. Any other Zarr store has keys that are whole or absent, which is all that the
journal needs; it has no lock, and who writes there sees to it alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype

# Zarr has no public way to run a store's coroutine on the loop that the store's own connections belong to.
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from galdiff.atomic import atomic_write, resource_errors, sync_folder
from galdiff.errors import GaldiffError, StoreError, reason
from galdiff.lock import release_lock, take_lock

__all__ = ["LocalPlace", "Place", "Target", "place_of"]

Target = str | os.PathLike[str] | Store
"""What names a store: a path, a URL of fsspec's or obstore's, or any Zarr store."""

_OBSTORE_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")


class Place:
    """A Zarr store of any kind; the journal is made of keys below ``.journal`` that go when the store is finished.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Its root is the group.
    name : str
        For messages.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name

    def __str__(self) -> str:
        return self.name

    def errors(self) -> AbstractContextManager[None]:
        """Turn what is raised where the store cannot be reached or written into a `GaldiffError`."""
        return _unreachable(self.name)

    def get(self, key: str) -> bytes | None:
        """Return what is stored under a key, None where there is nothing."""
        with self.errors():
            buffer = sync(self.store.get(key, default_buffer_prototype()))
        return None if buffer is None else buffer.to_bytes()

    def put(self, key: str, data: bytes) -> None:
        """Store bytes under a key, wholly or not at all."""
        with self.errors():
            sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(data)))

    def exists(self, key: str) -> bool:
        """Whether there is something under a key."""
        with self.errors():
            return sync(self.store.exists(key))

    def delete(self, key: str) -> None:
        """Remove what is under a key, if anything is."""
        with self.errors():
            sync(self.store.delete(key))

    def settle(self, key: str) -> None:
        """Make what Zarr wrote under a key last."""

    def taken(self) -> bool:
        """Whether something is here that is to be gone on with, or left alone."""
        raw = self.get("zarr.json")
        if raw is None:
            return False
        # The journal begins when the group is whole: a group of ours without it was cut off while it was made.
        attributes = json.loads(raw).get("attributes", {})
        return attributes.get("complete") is not False or self.get(".journal/begun.json") is not None

    def build(self, fill: Callable[[zarr.Group], None]) -> None:
        """Make the group and fill it: it is here whole, or not at all."""
        with self.errors():
            fill(zarr.open_group(self.store, mode="w", zarr_format=3))
        self.put(".journal/begun.json", b"{}")

    def note(self, k: int, entry: dict[str, Any]) -> None:
        """Journal a shard."""
        self.put(f".journal/{k}.json", json.dumps(entry).encode())

    def noted(self, k: int) -> dict[str, Any] | None:
        """Return a shard's journal entry; None where there is none, or one that a crash cut."""
        try:
            entry = json.loads(self.get(f".journal/{k}.json") or b"")
        except ValueError:
            return None
        return entry if isinstance(entry, dict) else None

    def forget(self, shards: int) -> None:
        """Remove the journal."""
        for name in ("begun", *range(shards)):
            self.delete(f".journal/{name}.json")

    def lock(self) -> None:
        """Keep other writers out, where the place can."""

    def unlock(self) -> None:
        """Let other writers in."""


class LocalPlace(Place):
    """A folder; its journal, its lock and its draft stand beside it, so that only Zarr's files are in it.

    Parameters
    ----------
    path : Path
        The group's folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path), str(path))
        self.path = path

    def errors(self) -> AbstractContextManager[None]:
        """As in `Place`."""
        return resource_errors(self.path)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{suffix}")

    def _file(self, key: str) -> Path:
        return self._beside("journal") / key[len(".journal/") :] if key.startswith(".journal/") else self.path / key

    def get(self, key: str) -> bytes | None:
        """As in `Place`."""
        try:
            return self._file(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, key: str, data: bytes) -> None:
        """As in `Place`."""
        with resource_errors(self.path):
            self._file(key).parent.mkdir(exist_ok=True)
        with atomic_write(self._file(key)) as file:
            file.write(data)

    def exists(self, key: str) -> bool:
        """As in `Place`."""
        return self._file(key).is_file()

    def delete(self, key: str) -> None:
        """As in `Place`."""
        self._file(key).unlink(missing_ok=True)

    def settle(self, key: str) -> None:
        """As in `Place`."""
        with open(self._file(key), "rb+") as file:
            os.fsync(file.fileno())

    def taken(self) -> bool:
        """As in `Place`."""
        return self.path.exists()

    def build(self, fill: Callable[[zarr.Group], None]) -> None:
        """As in `Place`."""
        self.forget(0)
        # Made under another name: a creation that is cut off leaves nothing at the store's place.
        draft = self._beside("tmp")
        shutil.rmtree(draft, ignore_errors=True)
        with self.errors():
            fill(zarr.open_group(draft, mode="w", zarr_format=3))
            os.replace(draft, self.path)
            sync_folder(self.path.parent)

    def forget(self, shards: int) -> None:
        """As in `Place`."""
        shutil.rmtree(self._beside("journal"), ignore_errors=True)

    def lock(self) -> None:
        """As in `Place`.

        Raises
        ------
        ResourceError
            Where another process is at work on the store, or its folder cannot be written.
        """
        with resource_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        take_lock(self._beside("lock"))

    def unlock(self) -> None:
        """As in `Place`."""
        release_lock(self._beside("lock"))


@contextmanager
def _unreachable(name: str) -> Iterator[None]:
    try:
        yield
    except GaldiffError:
        raise
    except Exception as error:  # of whichever library the store is of, which may go on for pages
        remedy = "See that the address, your credentials and the network are right"
        raise StoreError(f"cannot be reached: {reason(error).splitlines()[0]}", where=name, remedy=remedy) from error


def place_of(target: Target | Place) -> Place:
    """Return the place that a path, a URL or a Zarr store names.

    A URL without a scheme or of ``file`` is a folder; those of object stores are opened by obstore where it is
    installed; all others, and those where it is not, by fsspec.

    Raises
    ------
    StoreError
        Where nothing can open the URL.
    """
    if isinstance(target, Place):
        return target
    if isinstance(target, LocalStore):
        return LocalPlace(target.root)
    if isinstance(target, Store):
        return Place(target, str(target))
    text = os.fspath(target)
    url = urlsplit(text)
    if "://" not in text or url.scheme == "file":
        return LocalPlace(Path(unquote(url.path) if "://" in text else text))
    try:
        return Place(_open_url(text, url.scheme), text)
    except Exception as error:  # of whichever library the scheme is for
        remedy = "Give a folder, a URL that fsspec or obstore can open (pip install galdiff[cloud]), or a Zarr store"
        raise StoreError(f"nothing can open this URL: {error}", where=text, remedy=remedy) from error


def _open_url(url: str, scheme: str) -> Store:
    if scheme in _OBSTORE_SCHEMES:
        try:
            from obstore.store import from_url
        except ModuleNotFoundError:
            pass
        else:
            return ObjectStore(from_url(url))
    return FsspecStore.from_url(url)

"""One process at work on a store or in a run directory.

The lock is the kernel's (``flock``), which lets go of it when its process dies, however it dies: after a crash, on this
machine or, in a shared folder, on another, nothing has to be cleared away by hand and no process number is trusted.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from galdiff.atomic import resource_errors
from galdiff.errors import ResourceError

__all__ = ["release_lock", "take_lock"]

_held: dict[Path, int] = {}


def take_lock(path: Path) -> None:
    """Hold a lock file until it is released or this process ends; held already, it stays held.

    Parameters
    ----------
    path : Path
        The lock file; made if absent. On a file system without locks nothing is held.

    Raises
    ------
    ResourceError
        Where another process holds it.
    """
    path = path.resolve()
    while path not in _held:
        with resource_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 32, 0).decode().strip() or "unknown"
            os.close(handle)
            remedy = "Wait until it ends, or end it"
            raise ResourceError(f"another process (pid {owner}) is at work here", where=path, remedy=remedy) from None
        except OSError:
            os.close(handle)
            return
        if _is_at(handle, path):
            os.ftruncate(handle, 0)
            os.write(handle, b"%d\n" % os.getpid())
            _held[path] = handle
        else:  # released, and so unlinked, between opening and locking it
            os.close(handle)


def release_lock(path: Path) -> None:
    """Let go of a lock file and remove it; nothing happens where it is not held."""
    path = path.resolve()
    handle = _held.pop(path, None)
    if handle is not None:
        path.unlink(missing_ok=True)
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False

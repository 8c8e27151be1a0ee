"""One writer a store: a file beside it names the process that writes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from galdiff.atomic import resource_errors
from galdiff.errors import StoreError

__all__ = ["beside", "take_lock"]


def beside(path: Path, suffix: str) -> Path:
    """Name a file beside a store that belongs to it."""
    return path.with_name(f"{path.name}.{suffix}")


def take_lock(path: Path) -> None:
    """Refuse a second writer that lives on this machine; a dead one's lock is taken over.

    Raises
    ------
    StoreError
        Where another process writes, or one on another machine may.
    """
    lock = beside(path, "lock")
    me = {"pid": os.getpid(), "host": socket.gethostname()}
    with resource_errors(lock):
        try:
            with open(lock, "x") as file:
                json.dump(me, file)
            return
        except FileExistsError:
            pass
        try:
            owner = json.loads(lock.read_text())
            pid, host = int(owner["pid"]), owner["host"]
        except (ValueError, KeyError, TypeError):
            pid, host = -1, me["host"]  # cut by a crash
        if host != me["host"]:
            remedy = f"If it is dead, delete {lock}"
            raise StoreError(f"another writer on {host} (pid {pid}) has this store", where=path, remedy=remedy)
        if pid > 0 and pid != me["pid"] and _alive(pid):
            remedy = "Wait until it ends, or end it"
            raise StoreError(f"another writer (pid {pid}) has this store", where=path, remedy=remedy)
        lock.write_text(json.dumps(me))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

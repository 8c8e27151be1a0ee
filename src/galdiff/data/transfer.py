"""Files over HTTP that go on where a broken connection left them.

What has arrived stands in ``<name>.part``, and beside it what tells one version of the file from another (a strong
ETag, or else the date of its last change). A request for the rest carries it in ``If-Range``: where the file has
changed meanwhile, or the server knows nothing of ranges, it sends the whole file and the old part is dropped (RFC 9110,
sections 13.1.5 and 14.2).
"""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import WARNING
from pathlib import Path
from typing import Any

from galdiff.atomic import resource_errors, sha256_file, write_text
from galdiff.errors import DataError, ResourceError
from galdiff.progress import stage_progress

__all__ = ["ResumingDownloader", "fetch", "require_space"]

_BLOCK = 1 << 20
_AGAIN = (408, 429, 500, 502, 503, 504)


class _BrokenError(Exception):
    """The connection broke; another attempt may go on from here."""


class ResumingDownloader:
    """A downloader for `pooch.retrieve` that keeps what has arrived.

    Parameters
    ----------
    target : Path
        Where the file will be in the end; its parts stand beside it.
    waits : sequence of float
        Seconds to wait before each further attempt; they begin anew whenever something has arrived. None: one attempt.
    timeout : float
        Seconds of silence that count as a broken connection.
    """

    def __init__(self, target: Path, *, waits: Sequence[float] = (1, 2, 4, 8, 16), timeout: float = 60) -> None:
        self.part = target.with_name(f"{target.name}.part")
        self.version = target.with_name(f"{target.name}.part.version")
        self.name, self.waits, self.timeout = target.name, tuple(waits), timeout

    def __call__(self, url: str, output_file: str | Path, pooch: Any = None, check_only: bool = False) -> None:
        """Download ``url`` to ``output_file``, a temporary name that pooch gives.

        Raises
        ------
        DataError
            Where the server has no such file.
        ResourceError
            Where there is no network, the connection keeps breaking, or the disk is full.
        """
        left = list(self.waits)
        while True:
            had = self._size()
            try:
                self._receive(url)
                break
            except _BrokenError as error:
                if self._size() > had:
                    left = list(self.waits)
                if not left:
                    kept = f"{self._size():,} bytes are kept: the same command goes on from there"
                    remedy = kept if self._size() else "Is there a network? Mirrors go by --base-url"
                    raise ResourceError(f"cannot be downloaded: {error}", where=url, remedy=remedy) from error
                time.sleep(left.pop(0))
        with resource_errors(self.part):
            os.replace(self.part, output_file)
            self.version.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _receive(self, url: str) -> None:
        """Receive what is missing."""
        known = self.version.read_text().strip() if self.version.is_file() else ""
        start = self._size() if known else 0
        headers = {"User-Agent": "galdiff", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": known}
        with _connection_errors(url), self._open(url, headers) as response:
            version = _version(response)
            if response.status == 206:
                if not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-") or version != known:
                    self._forget()
                    raise _BrokenError("the server sent another part than was asked for")
            else:
                start = 0
                self._forget()
            length = response.headers.get("Content-Length")
            total = None if length is None else start + int(length)
            if total is not None:
                require_space(self.part, total - start)
            with resource_errors(self.part):
                write_text(self.version, version)
            self._append(response, start, total)

    def _append(self, response: Any, start: int, total: int | None) -> None:
        done = start
        with (
            stage_progress(self.name, total=total or 0, unit="bytes", done=start) as bar,
            resource_errors(self.part),
            open(self.part, "ab" if start else "wb") as file,
        ):
            while block := _read(response):
                file.write(block)
                done += len(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done != total:
            raise _BrokenError(f"the connection broke after {done:,} of {total:,} bytes")

    def _open(self, url: str, headers: dict[str, str]) -> Any:
        try:
            return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # nothing is left of the file at this place: it is another one
                self._forget()
                raise _BrokenError("the file has changed") from error
            if error.code in _AGAIN:
                raise _BrokenError(f"the server answers {error.code} {error.reason}") from error
            remedy = "It may have moved; mirrors go by --base-url"
            raise DataError(f"the server answers {error.code} {error.reason}", where=url, remedy=remedy) from error

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)


def fetch(url: str, target: Path, checksum: str | None, *, waits: Sequence[float] = (1, 2, 4, 8, 16)) -> bool:
    """Download a file unless it is there, and verify it.

    Parameters
    ----------
    url : str
        Its address.
    target : Path
        Where it goes; there is either the whole, verified file or none.
    checksum : str or None
        ``sha256:…`` or ``md5:…`` as published. Where none is, the sha256 of what was first received is written to
        ``<target>.sha256``, and later calls verify by that.
    waits : sequence of float
        As of `ResumingDownloader`.

    Returns
    -------
    bool
        Whether the content is verified by a published checksum.

    Raises
    ------
    DataError
        Where the server has no such file, or its checksum is another; the file is removed.
    ResourceError
        Where there is no network or the disk is full.
    """
    import pooch

    received = target.with_name(f"{target.name}.sha256")
    if checksum is None and target.is_file() and received.is_file():
        if received.read_text().split()[:1] != [sha256_file(target)]:
            remedy = f"Remove it to download it again, or remove {received.name} if you changed it"
            raise DataError("is not what was first received", where=target, remedy=remedy)
        return False
    downloader = ResumingDownloader(target, waits=waits)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(WARNING)  # its lines would cut through the progress
    try:
        with resource_errors(target):
            pooch.retrieve(url, checksum, fname=target.name, path=target.parent, downloader=downloader)
    except ValueError as error:
        remedy = "It was removed: run again, or from a mirror by --base-url"
        raise DataError(f"what was received is not what was published: {error}", where=url, remedy=remedy) from error
    finally:
        logger.setLevel(level)
    if checksum is None:
        write_text(received, f"{sha256_file(target)}  {target.name}\n")
    return checksum is not None


def require_space(path: Path, needed: int) -> None:
    """Check that there is room for so many bytes beside a file.

    Raises
    ------
    ResourceError
        Where there is not.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        message = f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
        raise ResourceError(message, where=path, remedy="Free some space and run again: nothing is lost")


def _version(response: Any) -> str:
    """Return what tells this version of the file from others; a weak ETag does not."""
    tag = response.headers.get("ETag") or ""
    return tag if tag.startswith('"') else response.headers.get("Last-Modified") or ""


def _read(response: Any) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection broke: {error}") from error


@contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.URLError as error:
        raise _BrokenError(str(error.reason)) from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error

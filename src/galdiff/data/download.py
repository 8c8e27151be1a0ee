"""The published data sets that galdiff reads, from where their authors keep them.

A checksum stands here only where a public source gives it, named beside it.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from galdiff.atomic import resource_errors
from galdiff.data.images import SUFFIXES
from galdiff.data.transfer import fetch, require_space
from galdiff.errors import DataError
from galdiff.progress import stage_progress

__all__ = ["BASE_URL", "RECORDS", "Record", "Remote", "download", "unzip_images"]

BASE_URL = "GALDIFF_DOWNLOAD_URL"
"""The environment variable of a mirror: a folder that has the files by their names."""


@dataclass(frozen=True)
class Remote:
    """A file of a record: its name, address and published checksum."""

    name: str
    url: str
    checksum: str | None = None


@dataclass(frozen=True)
class Record:
    """A data set: its files, how a catalog file reads them, and what to cite."""

    files: tuple[Remote, ...]
    section: Mapping[str, Any]
    cite: str
    images: str | None = None
    """Name of the archive of images, which is unpacked."""


_ZENODO = "https://zenodo.org/records"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"  # the mirror that torchvision uses, with its MD5
_GZ2_TABLES = (
    # Linked by data.galaxyzoo.org, section GZ2; no checksum is published there.
    Remote("gz2_hart16.csv.gz", "https://gz2hart.s3.amazonaws.com/gz2_hart16.csv.gz"),
    # MD5 of Zenodo record 3565489, as several public loaders of the record state and check it.
    Remote(
        "gz2_filename_mapping.csv",
        f"{_ZENODO}/3565489/files/gz2_filename_mapping.csv",
        "md5:7e28465e6dfbf96c0d828c595a5bbd80",
    ),
)
_GZ2_CITE = "Willett et al. 2013 (MNRAS 435, 2835), Hart et al. 2016 (MNRAS 461, 3663), Zenodo 3565489"

RECORDS = {
    "gz2": Record(
        files=(
            *_GZ2_TABLES,
            # MD5 of Zenodo record 3565489, as several public loaders of the record check it.
            Remote("images_gz2.zip", f"{_ZENODO}/3565489/files/images_gz2.zip", "md5:bc647032d31e50c798770cf4430525c7"),
        ),
        section={"kind": "gz2", "crop": 0.5, "size": 64},
        cite=_GZ2_CITE,
        images="images_gz2.zip",
    ),
    "gz2-table": Record(files=_GZ2_TABLES, section={"kind": "gz2", "crop": 0.5, "size": 64}, cite=_GZ2_CITE),
    "galaxy10-sdss": Record(
        files=(
            # SHA256: henrysky/astroNN, src/astroNN/datasets/galaxy10sdss.py
            Remote(
                "Galaxy10.h5",
                f"{_ZENODO}/10844811/files/Galaxy10.h5",
                "sha256:969a6b1cefcc36e09fffa86febd2f699a4aa19b837ba0427f01b0bc6ded458af",
            ),
        ),
        section={"kind": "hdf5", "file": "Galaxy10.h5", "classes": "galaxy10_sdss", "size": 64},
        cite="Leung and Bovy 2019 (MNRAS 483, 3255), Lintott et al. 2011 (MNRAS 410, 166)",
    ),
    "galaxy10-decals": Record(
        files=(
            # SHA256: henrysky/Galaxy10, README, and henrysky/astroNN, src/astroNN/datasets/galaxy10.py
            Remote(
                "Galaxy10_DECals.h5",
                f"{_ZENODO}/10845026/files/Galaxy10_DECals.h5",
                "sha256:19aefc477c41bb7f77ff07599a6b82a038dc042f889a111b0d4d98bb755c1571",
            ),
        ),
        section={"kind": "hdf5", "file": "Galaxy10_DECals.h5", "classes": "galaxy10_decals", "size": 64},
        cite="Leung and Bovy (Zenodo 10845026), Walmsley et al. 2022 (MNRAS 509, 3966), Dey et al. 2019 (AJ 157, 168)",
    ),
    "mnist": Record(
        files=tuple(
            # MD5: pytorch/vision, torchvision/datasets/mnist.py
            Remote(name, f"{_MNIST}/{name}", f"md5:{md5}")
            for name, md5 in (
                ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
                ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
                ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
            )
        ),
        section={"kind": "idx", "images": "train-images-idx3-ubyte.gz", "size": 32},
        cite="LeCun, Cortes and Burges, The MNIST database of handwritten digits",
    ),
}
"""The data sets by the names that ``galdiff download`` knows."""


def download(
    name: str, folder: str | Path, *, base_url: str | None = None, say: Callable[[str], object] = lambda text: None
) -> str:
    """Download a data set; what is there and whole is not downloaded again.

    Parameters
    ----------
    name : str
        One of `RECORDS`.
    folder : path-like
        Where the files go.
    base_url : str, optional
        A mirror; by default that of the environment variable ``GALDIFF_DOWNLOAD_URL``, or where the authors keep them.
    say : callable
        Takes a line of text a file.

    Returns
    -------
    str
        The ``data`` section of a catalog file that reads it.

    Raises
    ------
    DataError
        For an unknown name, a file that the server does not have, or one whose checksum is not the published one.
    ResourceError
        Where there is no network or the disk is full; what has arrived is kept.
    """
    if name not in RECORDS:
        raise DataError(f"no data set is called '{name}'", remedy=f"Known: {', '.join(RECORDS)}")
    base = base_url or os.environ.get(BASE_URL)
    if base is not None and not base.startswith(("http://", "https://")):
        raise DataError("the mirror is no http:// or https:// address", where=base)
    record, folder = RECORDS[name], Path(folder).expanduser().absolute()
    with resource_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for remote in record.files:
        url = remote.url if base is None else f"{base.rstrip('/')}/{remote.name}"
        path = folder / remote.name
        if fetch(url, path, remote.checksum):
            say(f"{path}: as published, {str(remote.checksum).partition(':')[0]} verified")
        else:
            kept = f"the sha256 of what was received is in {path.name}.sha256"
            say(f"{path}: no published checksum, the content is not verified; {kept}")
    if record.images is not None:
        count = unzip_images(folder / record.images, folder / "images")
        say(f"{folder / 'images'}: {count} images; {record.images} is no longer needed")
    say(f"please cite {record.cite}")
    return yaml.safe_dump({"data": {**record.section, "root": str(folder)}}, sort_keys=False)


def unzip_images(archive: Path, folder: Path) -> int:
    """Unpack the images of an archive into one folder, whatever folders it has inside; those that are there stay.

    Parameters
    ----------
    archive : Path
        A zip file.
    folder : Path
        The folder; nothing is written outside it.

    Returns
    -------
    int
        How many images there are.

    Raises
    ------
    DataError
        Where the archive is damaged, has names that lead outside it, has two images of one name, or none.
    ResourceError
        Where the disk is full.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _images(opened, archive)
            with resource_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            left = {n: m for n, m in members.items() if not _is_there(folder / n, m.file_size)}
            require_space(folder / "image", sum(m.file_size for m in left.values()))
            with stage_progress("images", total=len(members), unit="images", done=len(members) - len(left)) as bar:
                for name, member in left.items():
                    part = folder / f".{name}.part"
                    with resource_errors(folder):
                        with opened.open(member) as source, open(part, "wb") as file:
                            shutil.copyfileobj(source, file)
                        part.replace(folder / name)
                    bar.update(1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"cannot be unpacked: {error}", where=archive, remedy="Remove it and run again") from error
    return len(members)


def _images(opened: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Members that are images, by the name they get."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise DataError(f"the archive has a name that leads outside it, '{member.filename}'", where=archive)
        # macOS adds "._" files that look like images.
        if member.is_dir() or path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        if path.name in members:
            raise DataError(f"the archive has two images called '{path.name}'", where=archive)
        members[path.name] = member
    if not members:
        raise DataError("the archive has no images", where=archive)
    return members


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size

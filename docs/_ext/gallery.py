"""``gallery.md``: pictures of what every loader reads, where the data are at hand; otherwise a page that says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sphinx.application import Sphinx
from sphinx.util import logging

import galdiff.data
from galdiff.data import CutoutDataset
from galdiff.errors import GaldiffError
from galdiff.report.plots import render, save_grid

_COLUMNS, _SIZE = 8, 96
_MEANING = """# Gallery

What every loader reads, as the networks get it: cropped and resized, {columns} items a loader, evenly through the
files. Display units are shown as they are, physical ones with one asinh stretch a row of pictures.
"""
_ABSENT = "\nThis copy was built without data: the environment variable `GALDIFF_DATA` names no folder.\n"


class Entry(NamedTuple):
    """One row of pictures: the loader's name in `galdiff.data`, its folder, and its other arguments."""

    title: str
    loader: str
    folder: str
    options: dict[str, Any] = {}  # noqa: RUF012 (never written to)


ENTRIES = [
    Entry(
        "Galaxy Zoo 2, by asset id",
        "ImageFolderDataset",
        "gz2",
        {
            "images": "images_gz2",
            "table": "labels_8class_for_images.csv",
            "id": "galaxyID",
            "crop": 0.5,
            "on_bad": "skip",
        },
    ),
    Entry(
        "Galaxy Zoo 2, Kaggle's cumulative votes",
        "GZ2Dataset",
        "galaxyzoo",
        {"images": "images_training_rev1", "table": "training_solutions_rev1_subset.csv", "count": 40, "crop": 0.5},
    ),
    Entry(
        "Galaxy Zoo 1, by class",
        "ImageFolderDataset",
        "gz1",
        {"images": "images", "table": "smallCSV_class.csv", "id": "OBJID", "label": "CLASS", "crop": 0.5},
    ),
    Entry("Galaxy Zoo DECaLS", "ImageFolderDataset", "decals", {"images": "images", "crop": 0.7}),
    Entry("DeepLense, Model I", "DeepLenseDataset", "deeplense_generated/Model_I", {"allow_object_arrays": True}),
    Entry("DeepLense, Model II", "DeepLenseDataset", "deeplense_generated/Model_II", {"allow_object_arrays": True}),
    Entry("MNIST", "IDXDataset", "mnist"),
    Entry("JWST", "FITSDataset", "fits/jwst", {"files": "{id}_data.fits", "max_invalid": 0.2}),
    Entry("DECaLS, g, r and z", "FITSDataset", "fits/decals"),
    Entry("Lens-finding challenge, from space", "FITSDataset", "fits/lensfinding/space_based"),
    Entry("Lens-finding challenge, from the ground", "FITSDataset", "fits/lensfinding/ground_based"),
    Entry("Hyper Suprime-Cam", "FITSDataset", "fits/scarlet", {"files": "Cut_HS{id}.fits", "limit": 1}),
]


def pictures(dataset: CutoutDataset) -> np.ndarray:
    """Render items evenly through a data set, uint8 ``(n, y, x, 3)``."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, _COLUMNS).astype(int))
    return render(np.stack([dataset.read(int(i)) for i in rows]), dataset.unit)


def described(entry: Entry, dataset: CutoutDataset) -> str:
    """Say in a line what a loader found."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in entry.options.items())
    fields = ", ".join(f"`{field.name}` ({field.kind})" for field in dataset.schema.fields) or "none"
    call = f"`{entry.loader}({', '.join(filter(None, ['root', arguments]))})`"
    bands, unit = ", ".join(dataset.bands), dataset.unit or "not stated"
    return f"{call}: {len(dataset)} items, bands {bands}, unit {unit}, conditions {fields}."


def sections(root: Path, folder: Path, warn: Callable[[str], None]) -> list[str]:
    """Write a picture a loader, and return the page's sections."""
    lines = []
    for number, entry in enumerate(ENTRIES):
        loader = getattr(galdiff.data, entry.loader, None)
        if loader is None or not (root / entry.folder).is_dir():
            continue
        try:
            dataset = loader(root / entry.folder, **{"size": _SIZE, **entry.options})
            image = pictures(dataset)
        except GaldiffError as error:
            warn(f"{entry.title}: {error}")
            continue
        save_grid(folder / f"{number:02d}.png", image, columns=_COLUMNS)
        picture = f"```{{image}} {folder.name}/{number:02d}.png\n:alt: {entry.title}\n:width: 100%\n```"
        lines += [f"## {entry.title}", described(entry, dataset), picture]
    return lines


def write(app: Sphinx) -> None:
    """Write the page, before anything is read."""
    source = Path(app.srcdir)
    named = os.environ.get("GALDIFF_DATA")
    root = Path(named) if named else None
    page = _MEANING.format(columns=_COLUMNS)
    if root is None or not root.is_dir():
        page += _ABSENT
    else:
        lines = sections(root, source / "gallery_pictures", logging.getLogger(__name__).info)
        page += "\n" + "\n\n".join(lines) + "\n"
    place = source / "gallery.md"
    if not place.is_file() or place.read_text() != page:  # an unchanged page is not read again
        place.write_text(page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the page when the build begins."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}

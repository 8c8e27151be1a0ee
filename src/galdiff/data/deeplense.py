"""DeepLense: simulated strong lenses in one folder a substructure class, as ``.npy`` arrays of several layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from galdiff.atomic import sha256_json
from galdiff.data.dataset import CutoutDataset, file_sizes
from galdiff.data.geometry import Crop
from galdiff.data.npy import read_npy
from galdiff.data.splits import SPELLINGS
from galdiff.data.stretch import Stretch
from galdiff.errors import DataError
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar

__all__ = ["CLASSES", "DeepLenseDataset"]

CLASSES = ("no_sub", "cdm", "axion")
"""Substructure of the lens, in the order of the labels."""
_SPELLINGS = {
    "no_sub": "no_sub",
    "nosub": "no_sub",
    "no": "no_sub",
    "cdm": "cdm",
    "sphere": "cdm",
    "axion": "axion",
    "vort": "axion",
    "vortex": "axion",
}
_BANDS = 5  # an axis of at most this length is an axis of bands


class DeepLenseDataset(CutoutDataset):
    """Lenses with their substructure class, and the axion's mass where the files hold it.

    Folders may be spelled no, no_sub or nosub; cdm or sphere; axion or vort; and lie in train and val folders. Arrays
    may have rank 2 to 4, bands first or last and axes of length one; counts become floating-point numbers. Nothing is
    scaled file by file, because that destroys flux. Source: Alexander et al. 2020 (ApJ 893, 15).

    Parameters
    ----------
    root : path-like
        The folder.
    allow_object_arrays : bool
        Read ``[image, mass]`` object arrays by a restricted reader that can execute nothing; the mass becomes the
        condition ``log10_mass`` [log10 eV].
    size : int, optional
        Side after resizing; None keeps the arrays' own.
    crop, conserve, limit, stretch
        As in `GZ2Dataset`; "asinh" by default. ``limit`` keeps so many of each class.
    on_bad : {"fail", "skip"}
        Whether a bad array is an error when the masses are read, or is listed in `skipped`.

    Raises
    ------
    DataError
        For a missing or unknown folder, and for object arrays without the switch.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        allow_object_arrays: bool = False,
        size: int | None = None,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        limit: int | None = None,
        stretch: str | Stretch = "asinh",
        on_bad: str = "fail",
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise DataError("the data folder is missing", where=root, remedy="Set data.root")
        paths, labels = _files(root, limit)
        self._allow, masses, skipped, kept = allow_object_arrays, [], [], []
        for i, path in enumerate(paths):
            try:
                # Headers are quick; only object arrays are read here, for the mass they carry.
                masses.append(_mass(path, allow_object_arrays))
                kept.append(i)
            except DataError as error:
                if on_bad == "fail":
                    raise
                skipped.append((str(path.relative_to(root)), str(error)))
        paths = [paths[i] for i in kept]
        ids = np.array([p.relative_to(root).with_suffix("").as_posix() for p in paths])
        coded = torch.tensor([labels[i] for i in kept], dtype=torch.int64)
        mass = torch.tensor([m if m is not None and m > 0 else float("nan") for m in masses], dtype=torch.float64)
        log_mass, known = mass.log10().float(), mass.isfinite()
        fields: list[Class | Scalar] = [Class("substructure", CLASSES)]
        values, masks = {"substructure": coded}, {"substructure": torch.ones(len(coded), dtype=torch.bool)}
        if known.any():
            center, spread = float(log_mass[known].mean()), float(log_mass[known].std(correction=0))
            fields.append(Scalar("log10_mass", "log10 eV", round(center, 3), round(max(spread, 0.1), 3)))
            values["log10_mass"], masks["log10_mass"] = torch.where(known, log_mass, center), known
        self._paths = paths
        first = _image(paths[0], allow_object_arrays) if paths else np.zeros((1, 1, 1), np.float32)
        super().__init__(
            table=pd.DataFrame(
                {
                    "id": ids,
                    "class": np.asarray(CLASSES)[coded.numpy()],
                    "mass": mass.numpy(),
                    "split": [_split_folder(path.relative_to(root)) for path in paths],
                }
            ),
            ids=ids,
            schema=ConditionSchema(fields),
            conditions=Conditions(values, masks),
            bands=("flux",) if len(first) == 1 else tuple(f"band{k}" for k in range(len(first))),
            unit="count",
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        self.skipped = skipped

    def load(self, i: int) -> np.ndarray:
        """Read an array as ``(band, y, x)``, in the simulator's own units."""
        image = _image(self._paths[i], self._allow)
        if len(image) != len(self.bands):
            raise DataError(f"has {len(image)} bands, others have {len(self.bands)}", where=self._paths[i])
        return image

    def source(self, i: int) -> Path:
        """Return the row's file."""
        return self._paths[i]

    def fingerprint(self) -> dict[str, Any]:
        """Describe files and geometry."""
        files = sha256_json(file_sizes(self._paths))
        return {"kind": "deeplense", "schema": self.schema.to_dict(), **self._geometry(), "files": files}


def _files(root: Path, limit: int | None) -> tuple[list[Path], list[int]]:
    """Array files with their class, from folders of any accepted spelling at any depth."""
    paths: list[Path] = []
    labels: list[int] = []
    strangers = set()
    for path in sorted(root.rglob("*.npy")):
        spelled = _SPELLINGS.get(path.parent.name.lower())
        if spelled is None:
            strangers.add(path.parent.name)
        elif limit is None or labels.count(CLASSES.index(spelled)) < limit:
            paths.append(path)
            labels.append(CLASSES.index(spelled))
    if not paths:
        found = f"; found {', '.join(sorted(strangers))}" if strangers else ""
        remedy = f"Name them {', '.join(_SPELLINGS)}"
        raise DataError(f"there is no class folder with .npy arrays{found}", where=root, remedy=remedy)
    return paths, labels


def _split_folder(path: Path) -> str | None:
    """Return the split whose folder a file lies in, for ``split: {by: column}``."""
    return next((part.lower() for part in path.parts[:-1] if part.lower() in SPELLINGS), None)


def _mass(path: Path, allow_object_arrays: bool) -> float | None:
    with open(path, "rb") as file:
        head = file.read(512)
    # Without the switch, reading raises the error that names it; plain arrays are not read for a mass they lack.
    if b"'|O'" not in head:
        return None
    parts = read_npy(path, allow_object_arrays=allow_object_arrays)
    return float(parts[1]) if len(parts) == 2 and parts[1].ndim == 0 else None


def _image(path: Path, allow_object_arrays: bool) -> np.ndarray:
    parts = read_npy(path, allow_object_arrays=allow_object_arrays)
    image = parts[0]
    if not 2 <= image.ndim <= 4:
        raise DataError(f"has shape {image.shape}, not an image", where=path)
    shape = image.shape
    while image.ndim > 3 and 1 in image.shape:
        image = image.squeeze(image.shape.index(1))
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3 and image.shape[-1] <= _BANDS < image.shape[0]:
        image = image.transpose(2, 0, 1)
    if image.ndim != 3 or image.shape[0] > _BANDS or min(image.shape[1:]) < 2:
        raise DataError(f"has shape {shape}, not (y, x), (band, y, x) or (y, x, band)", where=path)
    return np.ascontiguousarray(image, dtype=np.float32)

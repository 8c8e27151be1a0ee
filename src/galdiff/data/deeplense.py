"""DeepLense: simulated strong lenses with their substructure, as ``.npy`` arrays of several layouts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from galdiff.atomic import sha256_json
from galdiff.data.dataset import CutoutDataset, check_arguments, file_sizes
from galdiff.data.geometry import Crop
from galdiff.data.labels import Column, join_columns, scalar_columns
from galdiff.data.npy import read_npy
from galdiff.data.splits import SPELLINGS
from galdiff.data.stretch import Stretch
from galdiff.data.tables import id_column, read_table, refuse_absent
from galdiff.errors import DataError, all_at_once
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar

__all__ = ["CLASSES", "DeepLenseDataset"]

CLASSES = ("no_sub", "cdm", "axion")
"""Substructure of the lens, in the order of the labels."""
TRUTH = "lenses.csv"
"""What simulated lenses are, by the names of their files."""
_UNITS = {
    **dict.fromkeys(("theta_e", "source_x", "source_y", "vortex_half_length"), "arcsec"),
    **{"exposure": "s", "subhalo_mass": "solar mass", "axion_mass": "eV", "vortex_angle": "rad"},
}
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
_SPELLED = re.compile(rf"(?<![a-z])({'|'.join(_SPELLINGS)})(?![a-z])")  # longest spelling first
_BANDS = 5  # an axis of at most this length is an axis of bands


class DeepLenseDataset(CutoutDataset):
    """Lenses with their substructure class, and the axion's mass where the files hold it.

    The class is that of the folder, spelled no, no_sub or nosub; cdm or sphere; axion, vort or vortex; or of the
    file's name, as in ``axion_sim_123.npy``, where no folder says it. Folders may lie in train, val and test folders,
    which become the column ``split`` of the table. Arrays may have rank 2 to 4, bands first or last and axes of length
    one; counts become floating-point numbers. Source: Alexander et al. 2020 (ApJ 893, 15).

    Parameters
    ----------
    root : path-like
        The folder.
    allow_object_arrays : bool
        Read object arrays by a restricted reader that can execute nothing. Of ``[image, mass]`` the mass [eV] becomes
        the condition ``log10_mass`` [log10 eV] and the column ``mass``; of ``[image, v1, v2, …]`` the values become
        columns ``value1``, ``value2``, ….
    scalars : sequence of str or mapping
        Columns of ``lenses.csv``, which `galdiff simulate lenses` writes beside its arrays, that are each a scalar
        condition, or from such columns to units: ``theta_e`` and others of `galdiff.simulate.simulate_lenses`;
        ``log10_mass`` is the axion's mass as above. A lens without a value has it masked.
    normalize : {"minmax"}, optional
        Scale every array to [0, 1] by its own extremes, as some published loaders do. This destroys flux: a bright
        lens and a faint one become the same.
    size : int, optional
        Side after resizing; None keeps the arrays' own.
    crop, conserve, limit, stretch
        As in `GZ2Dataset`; "asinh" by default. ``limit`` keeps so many of each class.
    on_bad : {"fail", "skip"}
        Whether a bad array is an error when the masses are read, or is listed in `skipped`. Arrays of no class are
        listed in either case. One whose shape is not that of most is bad when it is read.

    Raises
    ------
    DataError
        For a missing or unknown folder, for object arrays without the switch, and for scalars without a table that
        has them for every array.
    """

    one_size = True

    def __init__(
        self,
        root: str | Path,
        *,
        allow_object_arrays: bool = False,
        scalars: Sequence[str] | Mapping[str, str] = (),
        normalize: str | None = None,
        size: int | None = None,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        limit: int | None = None,
        stretch: str | Stretch = "asinh",
        on_bad: str = "fail",
    ) -> None:
        check_arguments(on_bad, limit)
        root = Path(root)
        if not root.is_dir():
            raise DataError("the data folder is missing", where=root, remedy="Set data.root")
        if normalize not in (None, "minmax"):
            raise DataError(f"unknown way to normalize '{normalize}'", remedy="Known: minmax")
        units = dict(scalars) if isinstance(scalars, Mapping) else {name: _UNITS.get(name, "") for name in scalars}
        self._allow, self._normalize, self._tables = allow_object_arrays, normalize, [root / TRUTH] if units else []
        with all_at_once() as part:
            with part():
                table, self._paths, skipped = _read_arrays(root, limit, allow_object_arrays, on_bad)
            with part():
                truth = _read_truth(root / TRUTH, units) if units else None
        if truth is not None:
            table = _join_truth(table, truth, root / TRUTH)
        schema, conditions = _conditions(table, {k: v for k, v in units.items() if k != "log10_mass"}, root / TRUTH)
        self._bands = len(self._image(self._paths[0])) if self._paths else 1
        super().__init__(
            table=table if table["split"].notna().any() else table.drop(columns="split"),
            ids=table["id"].to_numpy(),
            schema=schema,
            conditions=conditions,
            bands=("flux",) if self._bands == 1 else tuple(f"band{k}" for k in range(self._bands)),
            unit="count" if normalize is None else "relative",
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        self.skipped = skipped

    def load(self, i: int) -> np.ndarray:
        """Read an array as ``(band, y, x)``, in the simulator's own units unless it is to be normalized."""
        image = self._image(self._paths[i])
        if len(image) != self._bands:
            raise DataError(f"has {len(image)} bands, others have {self._bands}", where=self._paths[i])
        if np.abs(image).max() > np.finfo(np.float32).max:
            raise DataError("has values beyond those of 32-bit floating-point numbers", where=self._paths[i])
        if self._normalize == "minmax":
            low, high = image.min(), image.max()
            image = (image - low) / (high - low if high > low else 1)
        return image.astype(np.float32)

    def _image(self, path: Path) -> np.ndarray:
        return _band_first(read_npy(path, allow_object_arrays=self._allow)[0], path)

    def source(self, i: int) -> Path:
        """Return the row's file."""
        return self._paths[i]

    def fingerprint(self) -> dict[str, Any]:
        """Describe files and geometry."""
        return {
            "kind": "deeplense",
            "schema": self.schema.to_dict(),
            "normalize": self._normalize,
            **self._geometry(),
            "files": sha256_json(file_sizes([*self._paths, *self._tables])),
        }


def _files(root: Path, limit: int | None) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Array files with their class, by the nearest folder that is called as one, else by their name; and the others."""
    found: list[tuple[Path, str]] = []
    strangers: list[Path] = []
    counts: Counter[str] = Counter()
    for path in sorted(root.rglob("*.npy")):
        if path.name.startswith("."):  # what a Mac leaves beside every file
            continue
        label = _label(path.relative_to(root))
        if label is None:
            strangers.append(path)
        elif limit is None or counts[label] < limit:
            counts[label] += 1
            found.append((path, label))
    if not found:
        others = ", ".join(sorted({p.parent.name for p in strangers}))
        message = f"there is no class folder with .npy arrays{f'; found {others}' if others else ''}"
        raise DataError(message, where=root, remedy=f"Name them {', '.join(_SPELLINGS)}")
    return found, strangers


def _label(path: Path) -> str | None:
    for folder in reversed(path.parts[:-1]):
        if folder.lower() in _SPELLINGS:
            return _SPELLINGS[folder.lower()]
    named = {_SPELLINGS[spelled] for spelled in _SPELLED.findall(path.stem.lower())}
    return named.pop() if len(named) == 1 else None


def _values(path: Path, allow_object_arrays: bool) -> dict[str, float]:
    """Numbers that come with the image, by the names of their columns."""
    with open(path, "rb") as file:
        head = file.read(512)
    # Without the switch, reading raises the error that names it; plain arrays are not read for values they lack.
    if b"'|O'" not in head:
        return {}
    _, *rest = read_npy(path, allow_object_arrays=allow_object_arrays)
    if any(part.size != 1 for part in rest):
        raise DataError("holds more arrays than the image", where=path)
    names = ["mass"] if len(rest) == 1 else [f"value{k}" for k in range(1, len(rest) + 1)]
    return {name: float(part.item()) for name, part in zip(names, rest, strict=True)}


def _read_arrays(
    root: Path, limit: int | None, allow_object_arrays: bool, on_bad: str
) -> tuple[pd.DataFrame, list[Path], list[tuple[str, str]]]:
    """Return the table, the paths of its rows, and what is left out."""
    found, strangers = _files(root, limit)
    skipped = [(path.relative_to(root).as_posix(), "no class in its folder or name") for path in strangers]
    rows, paths = [], []
    for path, label in found:
        name = path.relative_to(root)
        try:
            # Headers are quick; only object arrays are read here, for the values they carry.
            values = _values(path, allow_object_arrays)
        except DataError as error:
            if on_bad == "fail":
                raise
            skipped.append((name.as_posix(), str(error)))
            continue
        split = next((SPELLINGS[p.lower()] for p in name.parts[:-1] if p.lower() in SPELLINGS), None)
        rows.append({"id": name.with_suffix("").as_posix(), "class": label, "split": split, "mass": None} | values)
        paths.append(path)
    table = pd.DataFrame(rows, columns=None if rows else ["id", "class", "split", "mass"])
    return table.astype({"mass": float}), paths, skipped


def _read_truth(path: Path, units: Mapping[str, str]) -> pd.DataFrame:
    """Read the columns that are asked for, by the names of the arrays and under those of our own table."""
    truth = read_table(path, ids=["id"])
    # The axion's mass goes where object arrays have it.
    sources = dict(("mass", "axion_mass") if name == "log10_mass" else (name, name) for name in units)
    refuse_absent(truth, ["id", *sources.values()], path)
    index = pd.Index(id_column(truth, "id", path).astype(str))
    return pd.DataFrame({column: truth[source].to_numpy() for column, source in sources.items()}, index=index)


def _join_truth(table: pd.DataFrame, truth: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the columns that are asked for, by the names of the files."""
    names = table["id"].str.rsplit("/", n=1).str[-1]
    missing = names[~names.isin(truth.index)]
    if len(missing):
        remedy = "Leave scalars out, or use the folder that the simulation wrote"
        raise DataError(f"{len(missing)} arrays are not in it, such as '{missing.iloc[0]}'", where=path, remedy=remedy)
    return table.assign(**{name: column.to_numpy() for name, column in truth.loc[names].items()})


def _conditions(table: pd.DataFrame, units: Mapping[str, str], path: Path) -> tuple[ConditionSchema, Conditions]:
    label = torch.tensor([CLASSES.index(name) for name in table["class"]], dtype=torch.int64)
    columns = [Column(Class("substructure", CLASSES), label, torch.ones(len(label), dtype=torch.bool))]
    mass = torch.from_numpy(table["mass"].to_numpy(np.float64, copy=True))
    known = mass > 0
    if known.any():
        log_mass = mass.log10().float()
        center, spread = float(log_mass[known].mean()), float(log_mass[known].std(correction=0))
        field = Scalar("log10_mass", "log10 eV", round(center, 3), round(max(spread, 0.1), 3))
        columns.append(Column(field, torch.where(known, log_mass, center), known))
    return join_columns([*columns, *scalar_columns(table, units, where=path)])


def _band_first(image: np.ndarray, path: Path) -> np.ndarray:
    shape = image.shape
    image = image.squeeze() if 2 <= image.ndim <= 4 else image
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3 and image.shape[-1] <= _BANDS < image.shape[0]:
        image = image.transpose(2, 0, 1)
    if len(shape) > 4 or image.ndim != 3 or image.shape[0] > _BANDS or min(image.shape[1:]) < 2:
        raise DataError(f"has shape {shape}, not (y, x), (band, y, x) or (y, x, band)", where=path)
    return np.ascontiguousarray(image)

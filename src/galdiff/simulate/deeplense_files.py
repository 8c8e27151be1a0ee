"""Simulated lenses in the files of DeepLense: ``no_sub``, ``cdm`` or ``axion``/``<class>_sim_<128-bit number>.npy``.

``lenses.csv`` has what was drawn, by file. With ``compat`` an axion's file is the authors' object array
``[image, mass]``, otherwise every file is a plain array. Files appear whole; the table comes next and
``simulation.json`` last. Until then ``unfinished.json`` says what the folder will be, and the same call goes on where
it was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from galdiff.atomic import atomic_write, resource_errors, write_json
from galdiff.errors import DataError
from galdiff.progress import stage_progress
from galdiff.randomness import integers
from galdiff.simulate.lenses import CLASSES, draw_lenses, simulate_lenses
from galdiff.simulate.record import is_recorded, make_folder

__all__ = ["write_deeplense"]

FORMAT = 1
BATCH = 192


def write_deeplense(
    folder: str | Path,
    n: int,
    *,
    seed: int,
    model: str = "I",
    compat: bool = False,
    subhalo: str = "point",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Simulate lenses and write them as DeepLense has its own.

    A folder that is complete and was made with the same arguments is left as it is; one that was interrupted is
    completed.

    Parameters
    ----------
    folder : path-like
        Where to write; it is made if need be.
    n : int
        Number of lenses, a third of each class.
    seed, model, compat, subhalo, device
        As in `simulate_lenses`.

    Returns
    -------
    dict
        What ``simulation.json`` says: the arguments.

    Raises
    ------
    DataError
        If the folder holds another simulation or other lenses, or for arguments that mean nothing.
    ResourceError
        If caustics is missing, the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    if n < 1:
        raise DataError(f"{n} lenses cannot be written", remedy="Ask for one or more")
    record = {"simulation": "lenses", "format": FORMAT, "n": n, "seed": seed}
    record |= {"model": model, "compat": compat, "subhalo": subhalo}
    done, unfinished = folder / "simulation.json", folder / "unfinished.json"
    options: dict[str, Any] = {"seed": seed, "model": model, "compat": compat, "subhalo": subhalo}
    draw_lenses(0, **options)  # refuses what means nothing before anything is written
    if is_recorded(done, record):
        return record
    with resource_errors(folder), stage_progress("simulation", total=n, unit="images") as bar:
        if not is_recorded(unfinished, record):
            strangers = [name for name in CLASSES if (folder / name).exists()]
            if strangers:
                raise DataError(f"already has a folder {strangers[0]}", where=folder, remedy="Write elsewhere")
            make_folder(folder)
            write_json(unfinished, record)
        for name in CLASSES:
            make_folder(folder / name)
        tables = []
        for start in range(0, n, BATCH):
            count = min(BATCH, n - start)
            truth = draw_lenses(count, start=start, **options)
            truth.insert(0, "id", _names(truth, seed))
            if not all(_path(folder, row).exists() for row in truth.to_dict("records")):
                images, _ = simulate_lenses(count, start=start, device=device, **options)
                for image, row in zip(images, truth.to_dict("records"), strict=True):
                    _save(_path(folder, row), image, row["axion_mass"] if compat else None)
            tables.append(truth)
            bar.update(count)
        with atomic_write(folder / "lenses.csv") as file:
            text = pd.concat(tables).to_csv(index=False, float_format="%.9g", lineterminator="\n")
            file.write(text.encode())
        write_json(done, record)
        unfinished.unlink()
    return record


def _names(truth: pd.DataFrame, seed: int) -> list[str]:
    """Names as the authors' scripts make them, of 128 random bits."""
    words = integers(seed, "name", torch.from_numpy(truth["index"].to_numpy(copy=True)), 65_536, (8,)).tolist()
    numbers = [sum(word << 16 * i for i, word in enumerate(row)) for row in words]
    return [f"{label}_sim_{number}" for label, number in zip(truth["class"], numbers, strict=True)]


def _path(folder: Path, row: dict[str, Any]) -> Path:
    return folder / row["class"] / f"{row['id']}.npy"


def _save(path: Path, image: NDArray[Any], mass: float | None) -> None:
    array = image
    if mass is not None and np.isfinite(mass):
        array = np.empty(2, dtype=object)
        array[:] = [image, mass]
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=array.dtype == object)

"""Simulated galaxies in the files of Galaxy Zoo 2: JPEG cutouts, the table of Hart et al. 2016, the filename mapping.

The columns of ``gz2_hart16.csv`` are those of Hart et al. 2016 (MNRAS 461, 3663): for every answer its count, weight,
fraction, weighted fraction, debiased fraction and flag. ``truth.csv`` has what was drawn, under the same asset ids.
Images are written first, the tables next and ``simulation.json`` last: a folder without it is unfinished.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from galdiff.atomic import atomic_write, resource_errors, write_json
from galdiff.errors import DataError
from galdiff.progress import stage_progress
from galdiff.randomness import uniform
from galdiff.schema.trees import GZ2_TREE
from galdiff.simulate.galaxies import simulate_galaxies
from galdiff.simulate.population import REFERENCE_SIZE
from galdiff.simulate.record import is_recorded, make_folder
from galdiff.simulate.volunteers import Ballots, answer_probabilities, vote

__all__ = ["hart16_table", "write_gz2"]

FORMAT = 1
JPEG_QUALITY = 95
BATCH = 512
FLAG_FRACTION, FLAG_VOTES = 0.8, 10


def write_gz2(folder: str | Path, n: int, *, seed: int, size: int = REFERENCE_SIZE, workers: int = 2) -> dict[str, Any]:
    """Simulate galaxies and write them as Galaxy Zoo 2 has its own.

    The folder gets ``images/<asset_id>.jpg``, ``gz2_hart16.csv``, ``gz2_filename_mapping.csv``, ``truth.csv`` and
    ``simulation.json``. A folder that is complete and was made with the same arguments is left as it is.

    Parameters
    ----------
    folder : path-like
        Where to write; it is made if need be.
    n : int
        Number of galaxies, their asset ids are 1 to n.
    seed : int
        Seed of the simulation.
    size : int
        Side of the cutouts [pixel].
    workers : int
        Threads; they do not change the files.

    Returns
    -------
    dict
        What ``simulation.json`` says: the arguments.

    Raises
    ------
    DataError
        If the folder holds another simulation, or for a number or size that cannot be simulated.
    ResourceError
        If the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    if n < 1:
        raise DataError(f"{n} galaxies cannot be written", remedy="Ask for one or more")
    record = {"simulation": "galaxies", "format": FORMAT, "n": n, "seed": seed, "size": size}
    done = folder / "simulation.json"
    if is_recorded(done, record):
        return record
    simulate_galaxies(0, seed=seed, size=size)  # refuses a wrong size before anything is written
    images = folder / "images"
    with resource_errors(folder), stage_progress("simulation", total=n, unit="images") as bar:
        make_folder(images, of=folder)
        batches = []
        for start in range(0, n, BATCH):
            index = np.arange(start, min(start + BATCH, n))
            batches.append(_write_images(images, index, seed=seed, size=size, workers=workers))
            bar.update(len(index))
    truth, table = (pd.concat(frames, ignore_index=True) for frames in zip(*batches, strict=True))
    ids = pd.DataFrame({"asset_id": np.arange(1, n + 1), "dr7objid": table["dr7objid"]})
    mapping = pd.DataFrame({"objid": ids["dr7objid"], "sample": table["sample"], "asset_id": ids["asset_id"]})
    tables = {"truth.csv": ids.join(truth), "gz2_filename_mapping.csv": mapping, "gz2_hart16.csv": table}
    for name, frame in tables.items():
        with atomic_write(folder / name) as file:
            file.write(frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    write_json(done, record)
    return record


def hart16_table(truth: pd.DataFrame, index: NDArray[np.int64], *, seed: int) -> pd.DataFrame:
    """Let volunteers vote on galaxies and lay the votes out as Hart et al. 2016 did.

    Parameters
    ----------
    truth : DataFrame (n rows)
        The fields of `galdiff.simulate.population.Galaxy`.
    index : int64 array (n,)
        Global indices of the galaxies.
    seed : int
        Seed of the simulation.

    Returns
    -------
    DataFrame (n rows)
        Ids int64 of 18 digits, positions [deg], and six columns an answer.
    """
    ballots = vote(answer_probabilities(truth), index, seed=seed)
    where = uniform(seed, "position", torch.from_numpy(index), (3,)).numpy().astype(np.float64)
    debiased = _debias(ballots)
    columns: dict[str, Any] = {
        # An odd multiplier permutes the 2^50 ids from 5877... on: unique, and too long for a float.
        "dr7objid": 587_722_952_767_439_450 + (index * 689_435_977_411 + seed % 2**20 * 1_000_003) % 2**50,
        "ra": 110 + 150 * where[:, 0],
        "dec": np.degrees(np.arcsin(0.9 * where[:, 1])),
        "sample": np.where(where[:, 2] < 0.9, "original", "extra"),
        "gz2_class": _class_names(debiased),
        "total_classifications": ballots.volunteers,
        "total_votes": ballots.count.sum(1),
    }
    fraction, weighted = _shares(ballots.count), _shares(ballots.weight)
    asked = _totals(ballots.count)
    for a, answer in enumerate(GZ2_TREE.answers):
        columns[f"{answer.name}_count"] = ballots.count[:, a]
        columns[f"{answer.name}_weight"] = ballots.weight[:, a]
        columns[f"{answer.name}_fraction"] = fraction[:, a]
        columns[f"{answer.name}_weighted_fraction"] = weighted[:, a]
        columns[f"{answer.name}_debiased"] = debiased[:, a]
        columns[f"{answer.name}_flag"] = ((debiased[:, a] > FLAG_FRACTION) & (asked[:, a] >= FLAG_VOTES)).astype(int)
    return pd.DataFrame(columns)


def _write_images(
    folder: Path, index: NDArray[np.int64], *, seed: int, size: int, workers: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the cutouts of a batch; return its truth and its votes."""
    images, truth = simulate_galaxies(len(index), seed=seed, size=size, start=int(index[0]), workers=workers)
    pixels = np.rint(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)

    def save(i: int) -> None:
        # No chroma subsampling: at 64 pixels it would blur the colors of arms and bars.
        path = folder / f"{index[i] + 1}.jpg"
        Image.fromarray(pixels[i]).save(path, "JPEG", quality=JPEG_QUALITY, subsampling=0)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        list(pool.map(save, range(len(index))))
    return truth, hart16_table(truth, index, seed=seed)


def _totals(votes: NDArray[Any]) -> NDArray[np.float64]:
    """Votes on the question that every answer belongs to."""
    slices = [GZ2_TREE.answer_slice(q) for q in range(len(GZ2_TREE.questions))]
    totals = [votes[:, s].sum(1, keepdims=True).repeat(s.stop - s.start, 1) for s in slices]
    return np.hstack(totals).astype(np.float64)


def _shares(votes: NDArray[Any]) -> NDArray[np.float64]:
    """Shares of the votes on a question; zero where nobody was asked, as in the catalog."""
    return votes / np.maximum(_totals(votes), 1e-9)


def _debias(ballots: Ballots) -> NDArray[np.float64]:
    """Raise the odds of fine structure a little, as the correction for redshift does."""
    odds = np.ones(len(GZ2_TREE.answers))
    for alias in ("features", "spiral", "bar"):
        odds[GZ2_TREE.find(alias)[1]] = 1.1
    return _shares(ballots.weight * odds)


# The letters of the catalog's gz2_class, in the order of each question's answers.
_LETTERS = {
    "t07_rounded": ("r", "i", "c"),
    "t09_bulge_shape": ("r", "b", "n"),
    "t05_bulge_prominence": ("d", "c", "b", "a"),
    "t11_arms_number": ("1", "2", "3", "4", "+", "?"),
    "t10_arms_winding": ("t", "m", "l"),
}


def _class_names(share: NDArray[np.float64]) -> list[str]:
    """Name each galaxy by its most frequent answers (Willett et al. 2013, appendix A)."""
    names = [q.name for q in GZ2_TREE.questions]
    first = {name: share[:, GZ2_TREE.answer_slice(q)].argmax(1) for q, name in enumerate(names)}
    letter = {name: np.array(letters)[first[name]] for name, letters in _LETTERS.items()}
    classes = []
    for i, kind in enumerate(first["t01_smooth_or_features"]):
        if kind == 2:
            text = "A"
        elif kind == 0:
            text = "E" + letter["t07_rounded"][i]
        elif first["t02_edgeon"][i] == 0:
            text = "Se" + letter["t09_bulge_shape"][i]
        else:
            text = ("SB" if first["t03_bar"][i] == 0 else "S") + letter["t05_bulge_prominence"][i]
            if first["t04_spiral"][i] == 0:
                text += letter["t11_arms_number"][i] + letter["t10_arms_winding"][i]
        classes.append(str(text) + ("(o)" if first["t06_odd"][i] == 0 and kind != 2 else ""))
    return classes

"""Stage: decode, crop and resize every image once, in parallel, into the cutout cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import numpy as np

from galdiff.atomic import append_line
from galdiff.data import CutoutDataset, split_rows
from galdiff.errors import DataError
from galdiff.latents import CutoutStore
from galdiff.progress import stage_progress

__all__ = ["SKIPPED", "write_cutouts"]

SKIPPED = "skipped"
"""The split of rows whose file could not be read; no stage trains on or compares with it."""


def write_cutouts(
    dataset: CutoutDataset,
    path: Path,
    *,
    split: Mapping[str, Any],
    on_bad: str = "fail",
    workers: int = 2,
    attrs: dict[str, Any] | None = None,
) -> CutoutStore:
    """Write the cutout cache; finished shards are kept when it is run again.

    Parameters
    ----------
    dataset : CutoutDataset
        Where the pixel values come from.
    path : Path
        The store; the list of bad files stands beside it as ``<stem>.skipped.jsonl``.
    split : mapping
        Arguments of `galdiff.data.splits.split_rows`, such as the shares of train, validation and test.
    on_bad : {"fail", "skip"}
        What to do with a file that cannot be read: stop with its error, or list it and go on without it.
    workers : int
        Threads (Pillow and NumPy release the interpreter lock while they work).
    attrs : dict, optional
        Further attributes of the store.

    Raises
    ------
    DataError
        For the first bad file, or where every file is bad.
    """
    listed = path.with_suffix(".skipped.jsonl")
    splits = split_rows(dataset.ids, dataset.table, **split)
    probe = _first_readable(dataset, on_bad)
    store = CutoutStore.create(
        path,
        shape=probe.shape,
        bands=dataset.bands,
        dtype=dataset.storage_dtype,
        ids=dataset.ids,
        split=splits,
        conditions=dataset.conditions,
        schema=dataset.schema,
        attrs={"unit": dataset.unit, **(attrs or {})},
    )

    def read(i: int) -> np.ndarray | DataError:
        try:
            image = dataset.read(i)
            if image.shape != probe.shape:
                raise DataError(f"the image is {image.shape}, others are {probe.shape}", where=dataset.ids[i])
            return image
        except DataError as error:
            return error

    with stage_progress("cutouts", total=len(dataset), unit="images") as bar:
        for shard in store.missing_shards():
            rows = range(*store.shard_rows(shard).indices(len(dataset)))
            images = np.zeros((len(rows), *probe.shape), np.float32)
            for start in range(0, len(rows), 256):
                part = rows[start : start + 256]
                results = dask.compute(
                    *(dask.delayed(read, pure=False)(i) for i in part), scheduler="threads", num_workers=workers
                )
                for row, result in zip(part, results, strict=True):
                    if isinstance(result, DataError):
                        if on_bad == "fail":
                            raise result
                        append_line(listed, json.dumps({"row": row, "id": str(dataset.ids[row]), "why": str(result)}))
                    else:
                        images[row - rows.start] = result
                bar.update(len(part))
            store.write_shard(shard, images)
        skipped = (
            sorted({json.loads(line)["row"] for line in listed.read_text().splitlines()}) if listed.is_file() else []
        )
        store.finish(skipped=skipped)
    return CutoutStore.open(path)


def _first_readable(dataset: CutoutDataset, on_bad: str) -> np.ndarray:
    """Return the first image that can be read: it gives the shape of all."""
    for i in range(len(dataset)):
        try:
            return dataset.read(i)
        except DataError:
            if on_bad == "fail":
                raise
    raise DataError("not one image can be read", remedy="Look at the data folder, or set on_bad: fail to see why")

"""Stage: decode, crop and resize every image once, in parallel, into the cutout cache."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np

from galdiff.atomic import append_line, read_json_lines
from galdiff.data import CutoutDataset, split_rows
from galdiff.errors import DataError
from galdiff.latents import CutoutStore
from galdiff.progress import say, stage_progress

__all__ = ["too_few", "write_cutouts"]

_BATCH, _ROUND = 16, 512  # images a task, and between two updates of the progress


def write_cutouts(
    dataset: CutoutDataset,
    path: Path,
    *,
    split: Mapping[str, Any],
    on_bad: str = "fail",
    workers: int = 2,
    attrs: dict[str, Any] | None = None,
) -> CutoutStore:
    """Write the cutout cache; finished shards, and a finished cache, are kept when it is run again.

    Parameters
    ----------
    dataset : CutoutDataset
        Where the pixel values come from.
    path : Path
        The store; the list of what is left out, rows of the table and bad files, stands beside it as
        ``<stem>.skipped.jsonl``.
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
        masks=dataset.masked,
        attrs={"unit": dataset.unit, **(attrs or {})},
    )
    if store.complete:  # by a run that was killed before it made a note of it
        return store
    _list_left_out(dataset, listed)
    read = partial(_read, dataset, on_bad)
    with stage_progress("cutouts", total=len(dataset), unit="images") as bar, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for shard in store.missing_shards():
            rows = range(*store.shard_rows(shard).indices(len(dataset)))
            images = np.zeros((len(rows), *probe.shape), dataset.storage_dtype)
            masks = np.ones(images.shape, bool) if dataset.masked else None
            for start in range(0, len(rows), _ROUND):
                # A task costs as much as an image: it takes some.
                parts = [slice(k, k + _BATCH) for k in range(start, min(start + _ROUND, len(rows)), _BATCH)]
                tasks = [
                    dask.delayed(read, pure=False)(rows[part], images[part], None if masks is None else masks[part])
                    for part in parts
                ]
                for bad in dask.compute(*tasks, scheduler="threads", num_workers=workers):
                    for row, why in bad:
                        append_line(listed, json.dumps({"row": row, "id": str(dataset.ids[row]), "why": str(why)}))
                bar.update(min(_ROUND, len(rows) - start))
            if written is not None:
                written.result()
            # A shard is hashed and written while the next one is read.
            written = writer.submit(store.write_shard, shard, images, masks)
        if written is not None:
            written.result()
        skipped = _listed_rows(listed)
        store.finish(skipped=skipped)
    for count, what in ((len(dataset.skipped), "rows or images are left out"), (len(skipped), "files cannot be read")):
        if count:
            say("cutouts", f"{count} {what}: {listed} lists them; mended ones come in with --redo cutouts")
    return CutoutStore.open(path)


def _read(
    dataset: CutoutDataset, on_bad: str, rows: range, out: np.ndarray, valid: np.ndarray | None
) -> list[tuple[int, DataError]]:
    """Read rows into their places; return what was bad."""
    bad = []
    for k, (i, place) in enumerate(zip(rows, out, strict=True)):
        try:
            image, mask = dataset.read_masked(i)
            if image.shape != place.shape:
                raise DataError(f"the image is {image.shape}, others are {place.shape}", where=dataset.ids[i])
            place[:] = image
            if valid is not None and mask is not None:
                valid[k] = mask
        except DataError as error:
            if on_bad == "fail":
                raise
            bad.append((i, error))
    return bad


def too_few(
    train: int, held_out: int, stages: Set[str], *, where: object = None, cached: bool = False
) -> DataError | None:
    """Return what some stages would find too few rows for, None where there are enough.

    Parameters
    ----------
    train, held_out : int
        Rows.
    stages : set of str
        Those that are to be done.
    where : str or path-like, optional
        For the error.
    cached : bool
        The run has its cutouts, which other rows make stale.
    """
    redo = ", with --redo cutouts" if cached else ""
    # The noise model of an autoencoder has a scatter between images, which one image does not show.
    if train < 2 and "autoencoder" in stages:
        remedy = f"Use more images, or a larger split.train{redo}"
        return DataError("fewer than two images are in the training split", where=where, remedy=remedy)
    if not held_out and stages & {"samples", "evaluation"}:
        message = "no image is held out, and samples are drawn for such images and judged by them"
        remedy = f"Use more images, or a larger split.test{redo}; or leave samples and evaluation out with --stages"
        return DataError(message, where=where, remedy=remedy)
    return None


def _list_left_out(dataset: CutoutDataset, listed: Path) -> None:
    """List what the dataset has no row of, once."""
    lines = [json.dumps({"id": name, "why": why}) for name, why in dataset.skipped]
    if lines and not any("row" not in line for line in read_json_lines(listed)):
        append_line(listed, "\n".join(lines))


def _listed_rows(listed: Path) -> list[int]:
    """Return the rows of the list of bad files; a line that a crash cut was written again with its shard."""
    return sorted({int(line["row"]) for line in read_json_lines(listed) if "row" in line})


def _first_readable(dataset: CutoutDataset, on_bad: str) -> np.ndarray:
    """Return the first image that can be read: it gives the shape of all."""
    for i in range(len(dataset)):
        try:
            return dataset.read(i)
        except DataError:
            if on_bad == "fail":
                raise
    raise DataError("not one image can be read", remedy="Look at the data folder, or set on_bad: fail to see why")

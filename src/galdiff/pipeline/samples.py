"""Stage: draw the samples that are scored and shown."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from galdiff.errors import GaldiffError, StoreError
from galdiff.latents import CutoutStore
from galdiff.model import DiffusionModel
from galdiff.pipeline.sweeps import default_sweeps, sweep_conditions
from galdiff.progress import stage_progress
from galdiff.report.files import load_group, write_group
from galdiff.schema.conditions import Class, Conditions, ConditionSchema

__all__ = ["GRID_SEEDS", "default_asks", "held_out_rows", "read_samples", "write_samples"]

GRID_SEEDS = 64
"""Seeds of every grid: 0 up to this."""
_NEAR = 0.25  # a real object counts as an example of what was asked within this distance of the fractions


def default_asks(schema: ConditionSchema) -> dict[str, dict[str, Any]]:
    """Return one ask a class of the first class field; where there is none, one that asks for nothing."""
    for field in schema.fields:
        if isinstance(field, Class):
            return {name: {field.name: name} for name in field.classes}
    return {"any": {}}


def held_out_rows(store: CutoutStore) -> np.ndarray:
    """Return the rows that no stage trained on: validation and test, in order."""
    return np.sort(np.concatenate([store.rows("validation"), store.rows("test")]))


def write_samples(
    model: DiffusionModel,
    cutouts: CutoutStore,
    path: Path,
    *,
    n: int,
    asks: Mapping[str, Any] | None,
    sweeps: Mapping[str, Any] | None = None,
    seed: int,
) -> None:
    """Write ``samples.zarr`` with its groups ``evaluation``, ``grid``, ``real`` and, where there are any, ``sweep``.

    Parameters
    ----------
    model : DiffusionModel
        On its device.
    cutouts : CutoutStore
        For the held-out conditions and the real counterparts of the grids.
    path : Path
        The store, written whole under another name and renamed.
    n : int
        Samples for the figures, with the conditions of held-out objects; no more than there are.
    asks : mapping, optional
        Names of grids and what they ask for; by default `default_asks`.
    sweeps : mapping, optional
        Names of sweeps and what they ask for; by default `galdiff.pipeline.sweeps.default_sweeps`.
    seed : int
        The figures' samples have the numbers ``1_000_000 * (seed + 1)`` and up; the grids' are 0…63, the sweeps' 0…3.
    """
    asks = asks or default_asks(model.schema)
    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    conditions, held_out = cutouts.conditions(), held_out_rows(cutouts)
    if not len(held_out):
        raise GaldiffError("there are no held-out objects to compare with", remedy="Give split.test a larger share")
    chosen = held_out[np.random.default_rng(seed).permutation(len(held_out))[:n]]
    # Samples without guidance show what was learned.
    usual = model.sampling["guidance"]
    weights: dict[float, Any] = {1.0: 1.0, _recorded(usual): usual}
    if sweeps is None:
        sweeps = default_sweeps(model.schema, conditions[torch.from_numpy(cutouts.rows("train"))])
    swept, swept_seeds, swept_columns = sweep_conditions(model.schema, sweeps)
    total = len(chosen) + len(asks) * GRID_SEEDS * len(weights) + len(swept_seeds)
    with stage_progress("samples", total=total, unit="samples") as bar:

        def draw(seeds: torch.Tensor, wanted: Conditions, guidance: Any) -> np.ndarray:
            parts = []
            for part in model.generate(model.sampler(guidance=guidance), seeds, wanted):
                parts.append(part.numpy())
                bar.update(len(part))
            return np.concatenate(parts)

        # The figures ask whether the distribution is right, which is a question to the unguided model.
        seeds = 1_000_000 * (seed + 1) + torch.arange(len(chosen))
        images = draw(seeds, conditions[torch.from_numpy(chosen)], 1.0)
        columns = {"seed": seeds.numpy(), "guidance": np.ones(len(chosen)), "row": chosen}
        _write(unfinished, "evaluation", images, columns, model)
        grid = [
            draw(torch.arange(GRID_SEEDS), model.schema.ask(GRID_SEEDS, ask), guidance)
            for guidance in weights.values()
            for ask in asks.values()
        ]
        if len(swept_seeds):
            weight, guidance = list(weights.items())[-1]
            images = draw(swept_seeds, swept, guidance)
            columns = {**swept_columns, "seed": swept_seeds.numpy(), "guidance": np.full(len(images), weight)}
            _write(unfinished, "sweep", images, columns, model)
    names = np.repeat(list(asks), GRID_SEEDS)
    columns = {
        "ask": np.tile(names, len(weights)),
        "seed": np.tile(np.arange(GRID_SEEDS), len(asks) * len(weights)),
        "guidance": np.repeat(list(weights), len(names)),
    }
    _write(unfinished, "grid", np.concatenate(grid), columns, model)
    known = conditions[torch.from_numpy(held_out)]
    near = {name: held_out[_nearest(model.schema, known, ask)] for name, ask in asks.items()}
    real = np.concatenate(list(near.values()))
    columns = {"ask": np.repeat(list(near), [len(rows) for rows in near.values()]), "row": real}
    _write(unfinished, "real", cutouts.images(real), columns, model)
    shutil.rmtree(path, ignore_errors=True)
    unfinished.rename(path)


def read_samples(path: Path, group: str, *columns: str) -> xr.Dataset:
    """Read a group of ``samples.zarr`` into memory.

    Parameters
    ----------
    path : Path
        The store.
    group : str
        One that every run has: ``evaluation``, ``grid`` or ``real``.
    *columns : str
        What it must have besides ``image``.

    Raises
    ------
    StoreError
        Where the group or one of its arrays is gone or damaged.
    """
    data = load_group(path, group)
    lost = [name for name in ("image", *columns) if name not in data.variables]
    if lost:
        message = f"group '{group}' has no {', '.join(lost)}"
        raise StoreError(message, where=path, remedy="Draw the samples again with --redo samples")
    return data


def _recorded(guidance: float | Mapping[str, float]) -> float:
    """Return the number that stands for a guidance: of weights by condition the one farthest from none, which is 1."""
    weights = guidance.values() if isinstance(guidance, Mapping) else [guidance]
    return float(max(weights, key=lambda weight: (abs(weight - 1), weight)))


def _nearest(schema: ConditionSchema, known: Conditions, ask: Any) -> np.ndarray:
    """Return the rows that are examples of an ask, the nearest first, as many as a grid has at most."""
    distance = schema.distance(known, schema.ask(1, ask)).numpy()
    near: np.ndarray = np.argsort(distance, kind="stable")[:GRID_SEEDS]
    return near[distance[near] < _NEAR]


def _write(
    path: Path, group: str, images: np.ndarray, columns: Mapping[str, np.ndarray], model: DiffusionModel
) -> None:
    data = xr.Dataset(
        {"image": (("sample", "band", "y", "x"), images.astype(np.float32), {"units": model.format.unit})},
        coords={"band": _text(model.format.bands)} | {k: ("sample", _text(v)) for k, v in columns.items()},
    )
    write_group(data, path, group)


def _text(values: Any) -> np.ndarray:
    """Give text the variable-length type that Zarr v3 has a specification for."""
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind == "U" else array

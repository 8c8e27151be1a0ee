"""Everything that can be found wrong with a run before it starts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from galdiff.config.build import build_dataset
from galdiff.config.cost import Cost, time_stages
from galdiff.config.cost import estimate as estimate_cost
from galdiff.config.guidance import guidance_problems
from galdiff.config.images import check_autoencoder
from galdiff.config.spec import RunSpec, SplitSpec
from galdiff.config.theory import check_theory
from galdiff.data.duplicates import LOADED, Duplicates, find_duplicates
from galdiff.data.sky import sky_positions
from galdiff.data.splits import DROPPED, SPLITS, near_held_out, split_rows
from galdiff.errors import CatalogFileError, DataError, GaldiffError, ResourceError, parts_of, together
from galdiff.memory import machine_memory
from galdiff.metrics import feature_space
from galdiff.pipeline.cutouts import too_few
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Votes
from galdiff.schema.sweeps import sweep_steps
from galdiff.schema.trees import GZ2_TREE
from galdiff.simulate.lenses import CLASSES
from galdiff.simulate.lensing import caustics_functions
from galdiff.stages import STAGES

if TYPE_CHECKING:
    from galdiff.data import CutoutDataset

__all__ = ["Findings", "check"]


@dataclass(frozen=True)
class _Simulated:
    """What simulated data will be like."""

    noun: str
    bands: int
    bytes_per_value: int
    schema: ConditionSchema
    require: Callable[[], object]
    """Raises an error where a package is missing."""
    limits: int = 1
    """Rows that a limit of one leaves."""


_SIMULATED = {
    "gz2": _Simulated("galaxies", 3, 2, ConditionSchema([Votes("votes", GZ2_TREE)]), lambda: None),
    "deeplense": _Simulated(
        "lenses", 1, 4, ConditionSchema([Class("substructure", CLASSES)]), caustics_functions, len(CLASSES)
    ),
}


@dataclass
class Findings:
    """What a check found.

    Attributes
    ----------
    problems : list of GaldiffError
        What would stop the run.
    facts : list of str
        What it will work on, a line each.
    dataset : CutoutDataset, optional
        The data, where they are there.
    cost : Cost, optional
        What it will take; None where the data are not there to measure by.
    """

    problems: list[GaldiffError] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    dataset: CutoutDataset | None = None
    cost: Cost | None = None

    def raise_problems(self) -> None:
        """Raise a single problem as it is, and several as one error with a line each."""
        if self.problems:
            raise together(self.problems)


def check(
    spec: RunSpec,
    folder: Path,
    *,
    cached: bool = False,
    afresh: bool = False,
    stages: Sequence[str] | None = None,
    estimate: bool = True,
) -> Findings:
    """Look for everything that would stop a run, and estimate what it takes.

    Parameters
    ----------
    spec : RunSpec
        The catalog file.
    folder : Path
        The run folder; it need not exist.
    cached : bool
        The run has its cutouts, and may go on without the data.
    afresh : bool
        What the run has simulated is to be archived.
    stages : sequence of str, optional
        Those that are to be done; all by default.
    estimate : bool
        Time a training step of either network, a matter of seconds; disk and memory are estimated in any case.
    """
    found = Findings()
    device = _device(spec, found)
    try:
        check_theory(spec)
    except GaldiffError as error:
        found.problems.append(error)
    place = _writable(folder, found)
    _features(spec, found)
    if spec.data.root is not None and not spec.data.root.is_dir() and cached:
        return found
    todo = {*(STAGES if stages is None else stages)}
    dataset = found.dataset = _dataset(spec, folder, found, afresh=afresh)
    if dataset is None and (found.problems or not spec.simulates):
        return found
    if dataset is not None:
        rows, bands, schema = len(dataset), len(dataset.bands), dataset.schema
        bytes_per_value = 2 if dataset.storage_dtype == "float16" else 4
        if not cached:
            _splits(spec.split, dataset, todo, found)
    else:
        simulated = _SIMULATED[spec.data.kind]
        bands, bytes_per_value, schema = simulated.bands, simulated.bytes_per_value, simulated.schema
        assert spec.data.simulation is not None  # or there were a dataset, or problems
        rows = spec.data.simulation.n
        rows = min(rows, simulated.limits * spec.data.limit) if spec.data.limit else rows
        found.facts.append(f"images      {rows} {simulated.noun} to simulate, {spec.data.size} pixels, {bands} bands")
        if not cached:
            _simulated_rows(spec.split, rows, todo, found)
    _asks(spec, schema, None if dataset is None else dataset.conditions, found)
    found.problems += guidance_problems(spec, schema)
    try:
        check_autoencoder(spec.autoencoder, bands=bands, size=spec.data.size)
    except GaldiffError as error:
        found.problems.append(error)
        return found
    cost = found.cost = estimate_cost(spec, rows=rows, bands=bands, schema=schema, bytes_per_value=bytes_per_value)
    _room(cost, place, found)
    if device is not None and _fits(cost, device, todo, found) and estimate:
        seconds = time_stages(spec, rows=rows, bands=bands, schema=schema, device=device)
        found.cost = replace(cost, seconds=seconds)
    return found


def _device(spec: RunSpec, found: Findings) -> torch.device | None:
    has_cuda = torch.cuda.is_available()
    if spec.device == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    device = torch.device(spec.device)
    if device.type == "cuda" and (not has_cuda or (device.index or 0) >= torch.cuda.device_count()):
        remedy = "Use device: cpu, or auto"
        found.problems.append(GaldiffError(f"there is no {spec.device} here", where="device", remedy=remedy))
        return None
    return device


def _writable(folder: Path, found: Findings) -> Path:
    """Try to write where the run folder will be; the nearest folder that exists is what counts."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        found.problems.append(ResourceError("is a file, not a folder", where=place, remedy="Choose another --out"))
        return place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        message = f"the run folder cannot be written: {error.strerror}"
        found.problems.append(ResourceError(message, where=place, remedy="Choose another --out, or make it writable"))
    return place


def _is_to_simulate(spec: RunSpec, folder: Path) -> bool:
    return spec.simulates and not (folder / "simulated" / "simulation.json").is_file()


def _dataset(spec: RunSpec, folder: Path, found: Findings, *, afresh: bool) -> CutoutDataset | None:
    if _is_to_simulate(spec, folder) or (afresh and spec.simulates):
        try:
            _SIMULATED[spec.data.kind].require()
        except GaldiffError as error:
            found.problems.append(error)
        return None
    root = spec.data.root
    if root is not None and not root.is_dir():
        remedy = "Set data.root in the catalog file, or give --set data.root=FOLDER"
        found.problems.append(DataError("there is no such folder", where=root, remedy=remedy))
        return None
    try:
        dataset = build_dataset(spec, folder)
    except GaldiffError as error:
        found.problems += parts_of(error)
        return None
    # What a loader left out it was told to leave out; with `on_bad: fail` it raised.
    skipped = [f"{name}: {why}" for name, why in dataset.skipped]
    problems = [problem for problem in dataset.check() if problem not in skipped]
    if spec.data.on_bad == "fail":
        found.problems += [DataError(problem) for problem in problems]
    found.facts.append(f"images      {len(dataset)}, {spec.data.size} pixels, bands {', '.join(dataset.bands)}")
    if skipped:
        found.facts.append(f"left out    {len(skipped)}, the first: {skipped[0]}")
    return dataset


def _simulated_rows(spec: SplitSpec, rows: int, todo: Set[str], found: Findings) -> None:
    """Look for what no simulation can mend; which rows are held out is known when they are simulated."""
    shares = spec.by == "column" or spec.validation + spec.test > 0
    problem = too_few(rows, int(shares and rows > 2), todo, where="split")
    if problem is not None:
        found.problems.append(problem)


def _splits(spec: SplitSpec, dataset: CutoutDataset, todo: Set[str], found: Findings) -> None:
    try:
        split = split_rows(dataset.ids, dataset.table, **spec.settings())
        if spec.separation and spec.close == "report":
            close = near_held_out(sky_positions(dataset.table, spec.ra, spec.dec), split, spec.separation).sum()
            found.facts.append(f"close       {close} training rows within {spec.separation:g} arcsec of held-out ones")
        duplicates = find_duplicates(dataset, split, ra=spec.ra, dec=spec.dec)
    except DataError as error:
        found.problems.append(error)
        return
    if len(dataset) > LOADED and dataset.source(0) is None:
        found.facts.append(f"content     rows share files: twins were looked for in the first {LOADED:,} alone")
    counts = {name: int((split == name).sum()) for name in (*SPLITS, DROPPED)}
    found.facts.append("split       " + ", ".join(f"{name} {n}" for name, n in counts.items() if n or name != DROPPED))
    # A column need not have both kinds of held-out rows.
    asked = ["train"] if spec.by == "column" else [name for name in SPLITS if getattr(spec, name) > 0]
    empty = [name for name in asked if counts[name] == 0]
    for name in empty:
        message = f"the {name} split of {len(dataset)} images is empty"
        found.problems.append(DataError(message, where="split", remedy="Use more images, or change the shares"))
    problem = too_few(counts["train"], counts["validation"] + counts["test"], todo, where="split")
    if problem is not None and not empty:
        found.problems.append(problem)
    _classes(dataset, split, found)
    _duplicates(spec, dataset, split, duplicates, found)


def _classes(dataset: CutoutDataset, split: np.ndarray, found: Findings) -> None:
    """Name the classes that could be asked for but not learned."""
    for kind in dataset.schema.fields:
        if isinstance(kind, Class):
            values, known = dataset.conditions.values[kind.name].numpy(), dataset.conditions.masks[kind.name].numpy()
            seen = set(values[known & (split == "train")].tolist())
            lost = [name for number, name in enumerate(kind.classes) if number not in seen]
            if lost:
                found.facts.append(f"unlearned   no training image is of {kind.name} {', '.join(lost)}")


def _duplicates(
    spec: SplitSpec, dataset: CutoutDataset, split: np.ndarray, duplicates: list[Duplicates], found: Findings
) -> None:
    for twins in duplicates:
        if len(twins.others):
            shown = twins.describe(twins.others, dataset.ids, split)
            found.facts.append(f"duplicates  {len(twins.others)} pairs by {twins.by} that leak nothing: {shown}")
        if not len(twins.leaks):
            continue
        shown = twins.describe(twins.leaks, dataset.ids, split)
        message = f"{len(twins.leaks)} held-out rows have a twin in the training split by {twins.by}: {shown}"
        if spec.duplicates == "allow":
            found.facts.append(f"duplicates  {message}")
        else:
            remedy = "Leave one of each out with data.where, set split.separation, or set split.duplicates: allow"
            found.problems.append(DataError(message, where="split", remedy=remedy))


def _asks(spec: RunSpec, schema: ConditionSchema, known: Conditions | None, found: Findings) -> None:
    asks = [(f"asks.{name}", asked) for name, asked in (spec.sampling.asks or {}).items()]
    for name, asked in (spec.sampling.sweeps or {}).items():
        asks += [(f"sweeps.{name}", step) for _, step in sweep_steps(asked)]
    known_of = {} if known is None else {key: mask.any(dim=0) for key, mask in known.masks.items()}
    for name, asked in asks:
        try:
            masks = schema.ask(1, asked).masks
        except GaldiffError as error:
            found.problems.append(CatalogFileError(str(error), where=f"sampling.{name}"))
            continue
        except (TypeError, ValueError) as error:
            found.problems.append(CatalogFileError(f"means nothing: {error}", where=f"sampling.{name}"))
            continue
        for key, is_known in known_of.items():
            if (masks[key][0] & ~is_known).any():
                message = f"asks for a '{key}' of which no image knows anything, and no model could learn it"
                found.problems.append(CatalogFileError(message, where=f"sampling.{name}"))


def _features(spec: RunSpec, found: Findings) -> None:
    """Make the feature spaces now: their weights are missed only after the training otherwise."""
    for name in spec.evaluation.features:
        try:
            feature_space(name)
        except GaldiffError as error:
            found.problems.append(error)


def _room(cost: Cost, place: Path, found: Findings) -> None:
    free = shutil.disk_usage(place).free
    found.facts.append(f"free disk   {free / 2**30:.1f} GiB at {place}")
    if cost.disk > free:
        message = f"the run needs {cost.disk / 2**30:.2f} GiB of disk and {free / 2**30:.2f} GiB are free"
        found.problems.append(ResourceError(message, where=place, remedy="Free some, or choose another --out"))


def _fits(cost: Cost, device: torch.device, todo: Set[str], found: Findings) -> bool:
    """Refuse what the machine has not the memory for, whatever else it does."""
    needed, there, remedy = cost.memory, machine_memory(), "Choose smaller networks, batches or images"
    if device.type == "cuda":
        # Half of it: on a GPU, what a step keeps is bfloat16.
        needed, there = cost.memory // 2, torch.cuda.get_device_properties(device).total_memory
    needs = [("training", needed, str(device), there, remedy)]
    if todo & {"samples", "evaluation"}:
        remedy = "Hold fewer images out (section split), or take fewer (data.limit, sampling.n)"
        needs.append(("drawing and comparing images", cost.host, "the machine", machine_memory(), remedy))
    lacking = [need for need in needs if need[1] > need[3]]
    for what, needed, where, there, remedy in lacking:
        message = f"{what} needs {needed / 2**30:.1f} GiB of memory, and {where} has {there / 2**30:.1f} GiB"
        found.problems.append(ResourceError(message, where="device", remedy=remedy))
    return not lacking

"""The flow: every stage in order, each finished once, in one run directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from galdiff.atomic import sha256_json, write_json, write_text
from galdiff.autoencoder import Autoencoder, load_autoencoder, weights_hash
from galdiff.data import CutoutDataset
from galdiff.data.stretch import Stretch
from galdiff.errors import GaldiffError, StoreError
from galdiff.imageformat import CALIBRATION, ImageFormat
from galdiff.latents import CutoutStore, LatentStore
from galdiff.lock import release_lock, take_lock
from galdiff.model import DiffusionModel, resolve_device
from galdiff.pipeline.autoencoder import train_autoencoder
from galdiff.pipeline.cutouts import too_few, write_cutouts
from galdiff.pipeline.denoiser import denoiser_size, train_denoiser
from galdiff.pipeline.latents import write_latents
from galdiff.pipeline.records import Run
from galdiff.pipeline.samples import held_out_rows, write_samples
from galdiff.pipeline.scores import write_scores
from galdiff.randomness import choose
from galdiff.report import write_report
from galdiff.stages import ARTIFACTS, STAGES

__all__ = ["Settings", "run"]

_STRETCH_SAMPLE = 1024


@dataclass(frozen=True)
class Settings:
    """What the stages need besides the data, as plain values.

    Attributes
    ----------
    autoencoder : mapping
        ``model``, ``loss``, ``training`` (`galdiff.pipeline.train_autoencoder`).
    denoiser : mapping
        ``backbone``, ``schedule``, ``prediction``, ``objective``, ``null``, ``augment``, ``training``, ``reader``
        (`galdiff.pipeline.train_denoiser`), and ``views`` (`galdiff.pipeline.write_latents`).
    sampling : mapping
        The default options of `DiffusionModel.sampler`.
    samples : mapping
        ``n``, ``asks`` and by choice ``sweeps`` (`galdiff.pipeline.write_samples`).
    evaluation : mapping
        Arguments of `galdiff.pipeline.write_scores`.
    split : mapping
        Arguments of `galdiff.data.splits.split_rows`, such as the shares ``train``, ``validation`` and ``test``.
    seed : int
        Seed of everything.
    on_bad : {"fail", "skip"}
        What to do with an unreadable file.
    workers : int
        Threads that decode images.
    scheduler : str
        Where latents are encoded: "threads", or the address of a Dask cluster.
    """

    autoencoder: Mapping[str, Any]
    denoiser: Mapping[str, Any]
    sampling: Mapping[str, Any]
    samples: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    seed: int = 0
    on_bad: str = "fail"
    workers: int = 2
    scheduler: str = "threads"


class _Flow:
    """One run: loads what a stage needs from the files of the stages before it."""

    def __init__(
        self,
        record: Run,
        dataset: Callable[[], CutoutDataset],
        settings: Settings,
        *,
        data: Mapping[str, Any],
        device: torch.device,
        budget: tuple[float | None, float | None],
    ) -> None:
        self.record, self.folder, self.settings = record, record.folder, settings
        self.dataset, self.data, self.device, self.budget = dataset, data, device, budget

    @property
    def views(self) -> int:
        return int(self.settings.denoiser.get("views", 1))

    @property
    def sampling(self) -> dict[str, Any]:
        """The model's options of sampling: those that the settings do not leave open."""
        return {k: v for k, v in self.settings.sampling.items() if v is not None}

    def inputs(self, stage: str) -> dict[str, Any]:
        """Everything the stage's result depends on."""
        s = self.settings
        own: dict[str, Any] = {
            "cutouts": {"data": dict(self.data), "split": dict(s.split), "on_bad": s.on_bad},
            "autoencoder": {**_lasting(s.autoencoder), "seed": s.seed, "budget": self.budget[0]},
            "latents": {} if self.views == 1 else {"views": self.views},
            "denoiser": {**_lasting(s.denoiser), "seed": s.seed, "budget": self.budget[1]},
            "samples": {**s.sampling, **s.samples, "seed": s.seed},
            "evaluation": dict(s.evaluation),
            "report": {},
        }[stage]
        position = STAGES.index(stage)
        return {**own, "after": sha256_json(self.inputs(STAGES[position - 1]))} if position else own

    def check(self, todo: Sequence[str], redo: Sequence[str]) -> None:
        """Refuse what cannot be done, or not with what is there, before anything is archived, written or trained."""
        strangers = [stage for stage in redo if stage not in todo]
        if strangers:
            message = f"stage '{strangers[0]}' is to be done again, but is not among the stages to do"
            remedy = f"Leave out --stages, or give --stages {_listed({*todo, *strangers})}"
            raise GaldiffError(message, where=self.folder, remedy=remedy)
        kept = STAGES[: min(map(STAGES.index, redo), default=len(STAGES))]
        passed = STAGES[: STAGES.index(todo[-1]) + 1] if todo else ()
        for stage in passed:
            if stage in kept:
                self.record.compare(stage, self.inputs(stage))
        finished = [stage for stage in passed if stage in kept and self.record.record(stage)]
        missing = [stage for stage in passed if stage not in todo and stage not in finished]
        if missing:
            names = "', '".join(missing)
            message = f"stage '{todo[-1]}' needs '{names}', which {'is' if len(missing) == 1 else 'are'} not finished"
            remedy = f"Do what is missing as well: --stages {_listed({*missing, *todo})}"
            raise GaldiffError(message, where=self.folder, remedy=remedy)
        to_come = set(todo).difference(finished, ["report"])
        if "cutouts" in finished and to_come:
            self.suffice(to_come)

    def suffice(self, stages: Set[str]) -> None:
        """Refuse cutouts that are too few for stages to come, some of which would say so only after the training."""
        store = self.cutouts()
        counts = len(store.rows("train")), len(held_out_rows(store))
        problem = too_few(*counts, stages, where=self.folder, cached=True)
        if problem is not None:
            raise problem

    def cutouts(self) -> CutoutStore:
        return CutoutStore.open(self.folder / "cutouts.zarr")

    def image_format(self, store: CutoutStore) -> ImageFormat:
        stretch = Stretch.from_dict(store.attrs["stretch"])
        # Fitted on the training split alone: what it learns from other rows would leak into the figures.
        stretch = stretch.fit(store.images(choose(store.rows("train"), _STRETCH_SAMPLE)))
        return ImageFormat.from_dict({**store.attrs, "stretch": stretch.to_dict()})

    def do_cutouts(self) -> dict[str, Any]:
        dataset = self.dataset()
        attrs = {"stretch": dataset.stretch.to_dict(), "size": dataset.size, "source": dataset.fingerprint()}
        known = {name: getattr(dataset, name) for name in CALIBRATION}
        attrs |= {name: value for name, value in known.items() if value is not None}
        s = self.settings
        store = write_cutouts(
            dataset,
            self.folder / "cutouts.zarr",
            split=dict(s.split),
            on_bad=s.on_bad,
            workers=s.workers,
            attrs=attrs,
        )
        if not len(store.rows("train")):
            raise GaldiffError(
                "the training split is empty", where=self.folder, remedy="Give more images or a larger split.train"
            )
        return {"images": len(store.ids), "train": len(store.rows("train"))}

    def do_autoencoder(self) -> None:
        store = self.cutouts()
        train_autoencoder(
            store,
            self.folder / "autoencoder",
            image_format=self.image_format(store),
            settings=self.settings.autoencoder,
            seed=self.settings.seed,
            device=self.device,
            metrics=self.folder / "metrics.jsonl",
            budget=self.budget[0],
        )

    def autoencoder(self) -> Autoencoder:
        return load_autoencoder(self.folder / "autoencoder").to(self.device)

    def do_latents(self) -> None:
        store = self.cutouts()
        write_latents(
            store,
            self.autoencoder(),
            self.folder / "latents.zarr",
            image_format=self.image_format(store),
            device=self.device,
            views=self.views,
            scheduler=self.settings.scheduler,
            autoencoder_hash=weights_hash(self.folder / "autoencoder"),
        )

    def do_denoiser(self) -> dict[str, Any]:
        latents, cutouts = LatentStore.open(self.folder / "latents.zarr"), self.cutouts()
        autoencoder = self.autoencoder()  # damaged weights are not another autoencoder's
        if latents.attrs["autoencoder"]["sha256"] != weights_hash(self.folder / "autoencoder"):
            remedy = "Encode again with --redo latents"
            raise StoreError(
                "the latents are of another autoencoder", where=self.folder / "latents.zarr", remedy=remedy
            )
        model = train_denoiser(
            latents,
            autoencoder,
            self.folder / "denoiser",
            image_format=self.image_format(cutouts),
            settings=self.settings.denoiser,
            sampling=self.sampling,
            seed=self.settings.seed,
            device=self.device,
            metrics=self.folder / "metrics.jsonl",
            budget=self.budget[1],
        )
        return {"network": denoiser_size(model).to_dict()}

    def model(self) -> DiffusionModel:
        return DiffusionModel.load(self.folder, device=self.device)

    def do_samples(self) -> None:
        s, path = self.settings, self.folder / "samples.zarr"
        model = replace(self.model(), sampling=self.sampling)
        # Where samples alone are done again, with other options, these become the model's own.
        spec = self.folder / "denoiser" / "spec.json"
        write_json(spec, {**json.loads(spec.read_text()), "sampling": self.sampling})
        write_samples(model, self.cutouts(), path, **s.samples, seed=s.seed)

    def do_evaluation(self) -> None:
        write_scores(self.folder, self.model(), self.cutouts(), seed=self.settings.seed, **self.settings.evaluation)

    def do_report(self) -> None:
        for name in ("evaluation.json", "evaluation.zarr/zarr.json"):
            # A page would leave out what is not there, as that of a run without an evaluation does.
            if not (self.folder / name).is_file():
                raise StoreError("is gone", where=self.folder / name, remedy="Write it again with --redo evaluation")
        write_report(self.folder)


def run(
    folder: str | Path,
    dataset: Callable[[], CutoutDataset],
    settings: Settings,
    *,
    data: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    stages: Sequence[str] | None = None,
    redo: Sequence[str] = (),
    budget: tuple[float | None, float | None] = (None, None),
    catalog_text: str = "",
) -> Path:
    """Run the flow, or the named stages of it; finished stages are skipped.

    Parameters
    ----------
    folder : path-like
        The run directory.
    dataset : callable
        Builds the dataset; called only when the cutout cache is to be written.
    settings : Settings
        Sizes and lengths of everything.
    data : mapping, optional
        JSON description of the dataset, compared with the run's earlier one; by default the dataset's fingerprint.
    device : str
        "auto", "cpu", "cuda", "cuda:1".
    threads : int, optional
        CPU threads of torch; results are bit-identical for equal counts.
    stages : sequence of str, optional
        Some of `STAGES`; all by default.
    redo : sequence of str
        Stages to archive, with everything made from them, and do again; some of those to do.
    budget : pair of float, optional
        Seconds of training for autoencoder and denoiser, instead of their counts of images.
    catalog_text : str
        Kept as ``catalog.yaml`` in the run directory, unless the run is refused.

    Returns
    -------
    Path
        The run directory.

    Raises
    ------
    StaleRunError
        Where a finished stage, up to the last one to do, was made from other inputs.
    DataError
        Where no image is held out that samples and figures need, or too few are there to train on.
    ResourceError
        Where another process is at work in the run directory.
    """
    chosen = STAGES if stages is None else _known(stages)
    todo, redo = [stage for stage in STAGES if stage in chosen], _known(redo)
    record = Run(Path(folder))
    take_lock(record.folder / "lock")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        described = data if data is not None else dataset().fingerprint()
        flow = _Flow(record, dataset, settings, data=described, device=resolve_device(device), budget=budget)
        flow.check(todo, redo)
        for stage in redo:
            record.archive(stage)
        # What is finished after the stages to do may be of other settings, which the file goes on to say.
        if catalog_text and not any(record.changes(stage, flow.inputs(stage)) for stage in STAGES):
            write_text(record.folder / "catalog.yaml", catalog_text)
        for stage in todo:
            done = record.do(stage, flow.inputs(stage), getattr(flow, f"do_{stage}"))
            if done and stage == "cutouts":
                flow.suffice({stage for stage in todo if record.record(stage) is None})
    finally:
        torch.set_num_threads(before)
        release_lock(record.folder / "lock")
    return record.folder


def _known(stages: Sequence[str]) -> list[str]:
    for stage in stages:
        if stage not in ARTIFACTS:
            raise GaldiffError(f"unknown stage '{stage}'", remedy=f"Known: {', '.join(STAGES)}")
    return list(stages)


def _listed(stages: Collection[str]) -> str:
    return ",".join(stage for stage in STAGES if stage in stages)


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out how often a training saves and draws, how it reads and compiles, and what is an earlier stage's."""
    often = ("save_every", "plot_every") + (() if _validation_decides(settings) else ("validate_every",))
    training = {k: v for k, v in settings["training"].items() if k not in often}
    return {k: v for k, v in settings.items() if k not in ("reader", "views", "compile")} | {"training": training}


def _validation_decides(settings: Mapping[str, Any]) -> bool:
    return settings.get("keep", "last") == "best" or "early_stopping" in settings["training"]

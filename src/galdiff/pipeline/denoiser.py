"""Stage: train the denoiser on the latent store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galdiff.atomic import write_json
from galdiff.autoencoder import Autoencoder, LatentPosterior
from galdiff.diffusion import Objective
from galdiff.imageformat import ImageFormat
from galdiff.latents import LatentBlocks, LatentStore, LatentTable, SplitIds
from galdiff.model import DiffusionModel, build_denoiser
from galdiff.nn import dihedral
from galdiff.nn.size import NetworkSize, network_size
from galdiff.progress import say
from galdiff.randomness import Draws, choose
from galdiff.report.plots import render, save_grid
from galdiff.schema.conditions import random_subset
from galdiff.schema.posterior import sample_votes
from galdiff.training import train
from galdiff.training.log import Names

__all__ = ["DenoiserTask", "denoiser_size", "train_denoiser"]

_PLOTTED = 32


class DenoiserTask:
    """What the engine trains: a denoiser on whitened, sampled latents, turned or of turned images.

    Parameters
    ----------
    model : DiffusionModel
        With the denoiser to train.
    table : LatentTable or LatentBlocks
        Latents and conditions of the training split, in batches on the model's device.
    objective : Objective
        Time sampling and weighting.
    seed : int
        Seed of the run.
    null : float
        Share of samples trained without any condition.
    sampled_votes : bool
        Draw fractions of votes from their posterior for every sample.
    augment : bool
        Turn and reflect the latents, or take the view that is turned so (reflections swap mirror classes).
    compiled : int, optional
        The batch that the backbone is compiled for; any other, and pictures, run without the compiler.
    ids : Names, optional
        What the training rows are called, for messages (`galdiff.training.log.Names`).
    """

    def __init__(
        self,
        model: DiffusionModel,
        table: LatentTable | LatentBlocks,
        objective: Objective,
        *,
        seed: int,
        null: float = 0.1,
        sampled_votes: bool = False,
        augment: bool = True,
        compiled: int | None = None,
        ids: Names | None = None,
    ) -> None:
        self.model, self.diffusion, self.table, self.objective = model.denoiser, model, table, objective
        self.null, self.sampled_votes, self.compiled, self.ids = null, sampled_votes, compiled, ids
        self.draws = Draws(seed, range(0), model.device)
        self.augment, self.rows = augment, len(table)

    def order(self, seed: int, epoch: int) -> Any:
        """Return the order of the training rows in an epoch."""
        return self.table.order(seed, epoch)

    def loss(self, rows: Tensor, positions: range) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the training rows at the global sample positions."""
        draws = self.draws.at(positions)
        element = draws.integers("dihedral", 8) if self.augment else None
        batch = self.table.take(rows, element)
        posterior = LatentPosterior(batch.mean.float(), batch.log_var.float())
        noise = draws.normal("latent", posterior.mean.shape[1:])
        z, conditions = self.diffusion.whiten(posterior.sample(noise)), batch.conditions
        if element is not None:
            z = z if self.table.views > 1 else dihedral(z, element)
            conditions = self.diffusion.schema.dihedral(conditions, element)
        if self.sampled_votes:
            conditions = sample_votes(self.diffusion.schema, conditions, draws)
        conditions = random_subset(conditions, draws, null=self.null)
        with self._eagerly(len(rows) != self.compiled):
            loss = self.objective(self.model, z, draws, condition=conditions)
        return loss.per_sample.mean(), {}

    def _eagerly(self, eager: bool) -> AbstractContextManager[Any]:
        """Leave the compiler out, so that a last smaller batch and pictures do not have it start again."""
        return torch.compiler.set_stance("force_eager") if eager and self.compiled is not None else nullcontext()

    def plot(self, folder: Path, images: int) -> None:
        """Write a picture of samples of the current weights with the conditions of some training rows."""
        rows = torch.from_numpy(choose(self.rows, _PLOTTED))
        sampler = self.diffusion.sampler(guidance=1.0)
        batches = self.diffusion.generate(sampler, torch.arange(len(rows)), self.table.take(rows).conditions)
        with self._eagerly(True):
            pixels = torch.cat(list(batches)).numpy()
        save_grid(folder / f"samples-{images:09d}.png", render(pixels, self.diffusion.format.unit), columns=8)


def train_denoiser(
    store: LatentStore,
    autoencoder: Autoencoder,
    folder: Path,
    *,
    image_format: ImageFormat,
    settings: Mapping[str, Any],
    sampling: Mapping[str, Any],
    seed: int,
    device: torch.device,
    metrics: Path,
    budget: float | None = None,
) -> DiffusionModel:
    """Train and save; resumes where it was stopped.

    Parameters
    ----------
    store : LatentStore
        Finished, of this autoencoder.
    autoencoder : Autoencoder
        For pictures on the way, and for the model that comes out.
    folder : Path
        The stage's folder.
    image_format : ImageFormat
        Bands, size, unit and stretch of the cutouts.
    settings : mapping
        ``backbone``, ``schedule``, ``prediction``, ``objective``, ``null``, ``augment``, ``training``, and by choice
        ``sampled_votes``, ``reader`` of `LatentStore.reader` ("auto" by default) and ``compile``
        (True, False, or "auto", which is on a GPU).
    sampling : mapping
        Default ``sampler``, ``steps`` and ``guidance`` of the model.
    seed, device, metrics, budget
        As in `train_autoencoder`.
    """
    torch.manual_seed(seed)  # the initial weights
    schema = store.schema
    backbone = {**settings["backbone"], "channels": autoencoder.latent_channels}
    learns = settings["objective"].get("weighting") == "learned"
    denoiser = build_denoiser(backbone, schema, settings["schedule"], settings["prediction"], uncertainty=learns)
    model = DiffusionModel(
        autoencoder,
        denoiser,
        schema,
        image_format,
        torch.tensor(store.attrs["channel_mean"]),
        torch.tensor(store.attrs["channel_std"]),
        dict(sampling),
    ).to(device)
    compiles = _compiles(settings.get("compile", "auto"), device)
    if compiles:
        model.denoiser.backbone.compile(dynamic=False)
    task = DenoiserTask(
        model,
        _reader(store, device, settings.get("reader", "auto"), folder / "reader.json"),
        Objective(**settings["objective"]),
        seed=seed,
        null=settings["null"],
        sampled_votes=settings.get("sampled_votes", False),
        augment=settings["augment"],
        compiled=settings["training"]["batch"] if compiles else None,
        ids=SplitIds(store, "train"),
    )
    say("denoiser", str(denoiser_size(model)))
    result = train(
        task, folder, seed=seed, device=device, metrics=metrics, stage="denoiser", budget=budget, **settings["training"]
    )
    model.denoiser.load_state_dict(result.ema_state)
    model.denoiser.eval()
    model.save_denoiser(folder)
    return model


def denoiser_size(model: DiffusionModel) -> NetworkSize:
    """Measure a model's denoiser on the latents of its images."""
    side = model.format.size // model.autoencoder.factor
    spec: dict[str, Any] = model.denoiser.backbone.spec  # type: ignore[assignment]
    return network_size(spec, model.schema, side)


def _compiles(choice: bool | str, device: torch.device) -> bool:
    """Whether to compile: by itself on a GPU alone, where what it takes is installed."""
    if isinstance(choice, bool):
        return choice
    has_compiler = find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
    return device.type == "cuda" and has_compiler


def _reader(store: LatentStore, device: torch.device, reader: str, note: Path) -> LatentTable | LatentBlocks:
    """Open the training split; a training that goes on reads in the order that was chosen when it began."""
    if reader == "auto" and note.is_file():
        reader = json.loads(note.read_text())["reader"]
    table = store.reader("train", device, reader=reader)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {"reader": "blocks" if isinstance(table, LatentBlocks) else "resident"})
    return table

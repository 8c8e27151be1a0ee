"""Stage: train the autoencoder on the cutout cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from galdiff.autoencoder import Autoencoder, AutoencoderLoss, SkyAutoencoder, build_autoencoder
from galdiff.autoencoder.deviation import stretched_deviation
from galdiff.errors import DataError, GaldiffError
from galdiff.imageformat import ImageFormat
from galdiff.latents import CutoutStore
from galdiff.nn import PatchDiscriminator
from galdiff.pipeline.diagnostics import diagnose
from galdiff.randomness import Draws, choose
from galdiff.training import train

__all__ = ["AutoencoderTask", "Cutouts", "train_autoencoder"]

_BATCH = 64
_CALIBRATED, _CALIBRATED_ON_THE_WAY = 512, 64
_CALIBRATE_EVERY = 1024  # images, while there is an adversary
_DIAGNOSED = 256
_DISCRIMINATOR_RATE = 0.3  # of the autoencoder's, which is high for an adversary
_VALIDATION = 512


class Cutouts(NamedTuple):
    """Pixel values ``(n, band, y, x)``, any float type, and where they are valid, if that is not everywhere."""

    pixels: Tensor
    valid: Tensor | None = None

    @classmethod
    def read(cls, store: CutoutStore, split: str, limit: int | None = None) -> Cutouts:
        """Read a split, or so many of its rows."""
        rows = store.rows(split)
        rows = rows if limit is None else np.sort(choose(rows, limit))
        valid = torch.from_numpy(store.masks(rows)) if "mask" in store.arrays else None
        return cls(torch.from_numpy(store.images(rows)), valid)

    def to(self, device: torch.device) -> Cutouts:
        """Return the cutouts on a device."""
        return Cutouts(self.pixels.to(device), None if self.valid is None else self.valid.to(device))

    def take(self, rows: Tensor, device: torch.device) -> Cutouts:
        """Return rows on a device, as float32."""
        at = rows.to(self.pixels.device, non_blocking=True)
        valid = None if self.valid is None else self.valid[at].to(device, non_blocking=True)
        return Cutouts(self.pixels[at].to(device, non_blocking=True).float(), valid)


class AutoencoderTask:
    """What the engine trains: an autoencoder on stretched cutouts, against an adversary by choice.

    Parameters
    ----------
    autoencoder : SkyAutoencoder
        The model.
    cutouts : Cutouts or Tensor
        Training cutouts, or their pixel values alone; read once, kept in memory.
    image_format : ImageFormat
        With the stretch.
    loss : AutoencoderLoss
        The objective.
    seed : int
        Seed of the run.
    held_out : Cutouts, optional
        What `validate` judges by.
    discriminator : torch.nn.Module, optional
        The adversary.
    ids : numpy.ndarray, optional
        What the training cutouts are called, for messages.
    """

    def __init__(
        self,
        autoencoder: SkyAutoencoder,
        cutouts: Cutouts | Tensor,
        image_format: ImageFormat,
        loss: AutoencoderLoss,
        *,
        seed: int,
        held_out: Cutouts | None = None,
        discriminator: nn.Module | None = None,
        ids: np.ndarray | None = None,
    ) -> None:
        self.cutouts = Cutouts(cutouts) if isinstance(cutouts, Tensor) else cutouts
        self.autoencoder, self.format, self.objective = autoencoder, image_format, loss
        self.held_out, self.discriminator, self.ids = held_out, discriminator, ids
        self.rows = len(self.cutouts.pixels)
        self.device = next(autoencoder.parameters()).device
        self.draws, self.fixed = Draws(seed, range(0), self.device), Draws(seed, range(0), self.device)
        self.model: nn.Module = autoencoder
        if discriminator is not None:
            self.model = nn.ModuleDict({"autoencoder": autoencoder, "discriminator": discriminator})

    def parts(self) -> list[tuple[nn.Module, float]]:
        """Return the adversaries, each with the factor of its learning rate."""
        adversary = [] if self.discriminator is None else [(self.discriminator, _DISCRIMINATOR_RATE)]
        return [(self.autoencoder, 1.0), *adversary]

    def loss(self, rows: Tensor, positions: range) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the training rows at the global sample positions, with its terms."""
        since = [p - self.objective.adversarial_start for p in positions]
        if self.discriminator is not None and any(p >= 0 and p % _CALIBRATE_EVERY == 0 for p in since):
            # The adversary is shown images with their noise.
            self.calibrate(_CALIBRATED_ON_THE_WAY, by_content=False)
        batch = self.cutouts.take(rows, self.device)
        return self._judge(self.objective, batch, self.draws.at(positions), self.discriminator)

    def after_step(self, finite: Tensor) -> None:
        """Let the model follow the step, unless it was skipped."""
        self.autoencoder.after_step(finite)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the loss of held-out cutouts with fixed noise and without the adversary, and its terms."""
        if self.held_out is None:
            return {}
        objective = replace(self.objective, kl_warmup_images=0)
        sums: dict[str, float] = {}
        n = len(self.held_out.pixels)
        for start in range(0, n, _BATCH):
            positions = range(start, min(n, start + _BATCH))
            batch = self.held_out.take(torch.arange(positions.start, positions.stop), self.device)
            loss, figures = self._judge(objective, batch, self.fixed.at(positions))
            for name, value in {"loss": loss, **figures}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(positions) / n
        return sums

    def _judge(
        self, objective: AutoencoderLoss, batch: Cutouts, draws: Draws, discriminator: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x, deviation = self.format.stretch(batch.pixels), None
        if objective.chi2:
            deviation = stretched_deviation(batch.pixels, self.format.stretch, batch.valid)
        return objective(
            self.autoencoder, x, draws, valid=batch.valid, deviation=deviation, discriminator=discriminator
        )

    def plot(self, folder: Path, images: int) -> dict[str, Any]:
        """Write pictures of some training cutouts, and return figures of their latents."""
        rows = torch.from_numpy(choose(self.rows, _DIAGNOSED))
        x = self.format.stretch(self.cutouts.take(rows, self.device).pixels)
        adversary = self.discriminator if images > self.objective.adversarial_start else None
        return diagnose(self.autoencoder, x, folder, images, image_format=self.format, discriminator=adversary)

    def calibrate(self, count: int = _CALIBRATED, *, by_content: bool = True) -> None:
        """Fit the noise model to training cutouts."""
        batch = self.cutouts.take(torch.from_numpy(choose(self.rows, count)), self.device)
        x = self.format.stretch(batch.pixels)
        self.autoencoder.calibrate(x, valid=batch.valid, by_content=by_content)


def train_autoencoder(
    store: CutoutStore,
    folder: Path,
    *,
    image_format: ImageFormat,
    settings: Mapping[str, Any],
    seed: int,
    device: torch.device,
    metrics: Path,
    budget: float | None = None,
) -> Autoencoder:
    """Train, calibrate the noise model and save; resumes where it was stopped.

    Where there is nothing to train, as in a pretrained autoencoder or none at all, the rest is done.

    Parameters
    ----------
    store : CutoutStore
        The cutout cache.
    folder : Path
        The stage's folder: checkpoints, pictures and, at the end, the weights. Where validation decides, the weights
        that were not chosen, the best or the last, are kept in a folder of that name in it.
    image_format : ImageFormat
        Bands, size, unit and stretch of the cutouts.
    settings : mapping
        ``model`` (what `build_autoencoder` reads, without bands; by default of kind kl), ``loss`` (fields of
        `AutoencoderLoss`), ``training`` (arguments of `galdiff.training.train`), ``keep`` ("last" by default, or
        "best": which weights become the autoencoder) and ``discriminator`` (arguments of
        `galdiff.nn.PatchDiscriminator`, where the loss has an adversarial term).
    seed : int
        Seed of the run.
    device : torch.device
        Where to train.
    metrics : Path
        The run's ``metrics.jsonl``.
    budget : float, optional
        Train for this many seconds instead of the given count of images.

    Raises
    ------
    DataError
        Where validation is to decide and no cutout is in the validation split.
    GaldiffError
        Where the autoencoder cannot have these images, or the best weights are wanted and no validation was finite.
    """
    training, keep, bands = settings["training"], settings.get("keep", "last"), len(image_format.bands)
    torch.manual_seed(seed)  # the initial weights
    autoencoder = build_autoencoder({"kind": "kl", "bands": bands, **settings["model"]}).to(device)
    if image_format.size % autoencoder.factor:
        message = f"the downsampling of the autoencoder, {autoencoder.factor}, does not divide {image_format.size}"
        raise GaldiffError(message, where=folder, remedy="Choose another factor, or another size of the images")
    if not autoencoder.trainable:
        few = Cutouts.read(store, "train", _CALIBRATED)
        few = few.take(torch.arange(len(few.pixels)), device)
        autoencoder.eval().calibrate(image_format.stretch(few.pixels), valid=few.valid)
        autoencoder.save(folder)
        return autoencoder
    assert isinstance(autoencoder, SkyAutoencoder)
    held_out = Cutouts.read(store, "validation", _VALIDATION) if len(store.rows("validation")) else None
    if held_out is None and (keep == "best" or training.get("early_stopping")):
        remedy = "Give split.validation a share, or leave out autoencoder.keep and autoencoder.early_stopping"
        raise DataError("there are no validation images to stop or to choose by", where=store.path, remedy=remedy)
    loss = AutoencoderLoss(**settings["loss"])
    discriminator = None
    if loss.adversarial:
        discriminator = PatchDiscriminator(bands, **settings.get("discriminator", {})).to(device)
    cutouts = Cutouts.read(store, "train")
    if device.type == "cuda" and cutouts.pixels.nbytes < torch.cuda.mem_get_info(device)[0] // 2:
        cutouts = cutouts.to(device)  # so that no step waits for a copy
    task = AutoencoderTask(
        autoencoder,
        cutouts,
        image_format,
        loss,
        seed=seed,
        held_out=held_out,
        discriminator=discriminator,
        ids=store.ids[store.rows("train")],
    )
    if held_out is None:
        training = {**training, "validate_every": None}
    result = train(
        task, folder, seed=seed, device=device, metrics=metrics, stage="autoencoder", budget=budget, **training
    )
    if keep == "best" and result.best_state is None:
        remedy = "Look at validation_loss in metrics.jsonl, or set autoencoder.keep: last"
        raise GaldiffError("no validation loss was finite to choose weights by", where=folder, remedy=remedy)
    states = {"last": result.ema_state, "best": result.best_state}
    if keep == "last" and not training.get("early_stopping"):
        del states["best"]  # nobody asked for it, and its noise model takes seconds; the checkpoint has its weights
    for name in sorted(states, key=lambda name: name == keep):  # the chosen one last: it stays
        state = states[name]
        if state is not None:
            task.model.load_state_dict(state)
            autoencoder.eval()
            task.calibrate()
            autoencoder.save(folder if name == keep else folder / name)
    return autoencoder

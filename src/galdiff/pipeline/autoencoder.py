"""Stage: train the autoencoder on the cutout cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.autoencoder import Autoencoder, AutoencoderLoss
from galdiff.latents import CutoutStore
from galdiff.model import ImageFormat
from galdiff.randomness import Draws
from galdiff.report.plots import render, save_grid
from galdiff.training import train

__all__ = ["AutoencoderTask", "train_autoencoder"]

_CALIBRATION = 512
_PLOTTED = 8


class AutoencoderTask:
    """What the engine trains: an autoencoder on stretched cutouts.

    Parameters
    ----------
    autoencoder : Autoencoder
        The model.
    pixels : Tensor
        Training cutouts as pixel values ``(n, band, y, x)``, any float type; read once, kept in memory.
    image_format : ImageFormat
        With the stretch.
    loss : AutoencoderLoss
        The objective.
    seed : int
        Seed of the run.
    """

    def __init__(
        self, autoencoder: Autoencoder, pixels: Tensor, image_format: ImageFormat, loss: AutoencoderLoss, *, seed: int
    ) -> None:
        self.model, self.pixels, self.format, self.objective = autoencoder, pixels, image_format, loss
        self.rows = len(pixels)
        self.ids: np.ndarray | None = None
        self.draws = Draws(seed, range(0), next(autoencoder.parameters()).device)

    def stretched(self, rows: Tensor) -> Tensor:
        """Return training cutouts as the network sees them."""
        device = next(self.model.parameters()).device
        pixels = self.pixels[rows.to(self.pixels.device, non_blocking=True)]
        return self.format.stretch(pixels.to(device, non_blocking=True).float())

    def loss(self, rows: Tensor, positions: range) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the training rows at the global sample positions, with its terms."""
        return self.objective(self.model, self.stretched(rows), self.draws.at(positions))

    @torch.no_grad()
    def plot(self, folder: Path, images: int) -> None:
        """Write a picture of inputs above their reconstructions."""
        x = self.stretched(torch.arange(min(_PLOTTED, self.rows)))
        y = self.model.decode(self.model.encode(x).mean).mean
        pixels = self.format.pixels(torch.cat([x, y])).cpu().numpy()
        save_grid(folder / f"reconstructions-{images:09d}.png", render(pixels, self.format.unit), columns=len(x))

    @torch.no_grad()
    def calibrate(self) -> None:
        """Fit the noise model's gains and band correlation to the training residuals, in closed form."""
        x = self.stretched(torch.arange(min(_CALIBRATION, self.rows)))
        parts = [self.model.decode(self.model.encode(part).mean) for part in x.split(64)]
        mean, maps = torch.cat([p.mean for p in parts]), torch.cat([p.maps for p in parts])
        self.model.grain.calibrate(mean, x - mean, maps)


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

    Parameters
    ----------
    store : CutoutStore
        The cutout cache.
    folder : Path
        The stage's folder: checkpoints, pictures and, at the end, the weights.
    image_format : ImageFormat
        Bands, size, unit and stretch of the cutouts.
    settings : mapping
        ``model`` (constructor of `Autoencoder`), ``loss`` (fields of `AutoencoderLoss`) and ``training`` (arguments of
        `galdiff.training.train`).
    seed : int
        Seed of the run.
    device : torch.device
        Where to train.
    metrics : Path
        The run's ``metrics.jsonl``.
    budget : float, optional
        Train for this many seconds instead of the given count of images.
    """
    torch.manual_seed(seed)  # the initial weights
    autoencoder = Autoencoder(len(image_format.bands), **settings["model"]).to(device)
    pixels = torch.from_numpy(store.images(store.rows("train")))
    if device.type == "cuda" and pixels.nbytes < torch.cuda.mem_get_info(device)[0] // 2:
        pixels = pixels.to(device)  # so that no step waits for a copy
    loss = AutoencoderLoss(**settings["loss"])
    task = AutoencoderTask(autoencoder, pixels, image_format, loss, seed=seed)
    task.ids = store.ids[store.rows("train")]
    result = train(
        task,
        folder,
        seed=seed,
        device=device,
        metrics=metrics,
        stage="autoencoder",
        budget=budget,
        **settings["training"],
    )
    autoencoder.load_state_dict(result.ema_state)
    autoencoder.eval()
    task.calibrate()
    autoencoder.save(folder)
    return autoencoder

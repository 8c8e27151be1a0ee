"""What a training autoencoder is doing: pictures beside the checkpoints, and figures for the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from galdiff.autoencoder import Autoencoder, LatentPosterior
from galdiff.autoencoder.statistics import equivariance_error, latent_statistics
from galdiff.imageformat import ImageFormat
from galdiff.report.plots import COLORS, render, save_grid

__all__ = ["confidence_maps", "diagnose", "latent_maps"]

_PLOTTED = 8
_BATCH = 64
_RANGE = 3.0  # standard deviations of a channel from black to white, and logits to either full color


@torch.no_grad()
def diagnose(
    autoencoder: Autoencoder,
    x: Tensor,
    folder: Path,
    images: int,
    *,
    image_format: ImageFormat,
    discriminator: nn.Module | None = None,
) -> dict[str, Any]:
    """Write pictures of the first images and return figures of all.

    Parameters
    ----------
    autoencoder : Autoencoder
        In evaluation mode.
    x : Tensor
        Stretched images ``(n, band, y, x)``.
    folder : Path
        Where ``reconstructions-<images>.png`` (inputs above their mean images) and ``latents-<images>.png`` (a row of
        channels an image) go, and with a discriminator ``confidences-<images>.png`` (what it is shown, real and made,
        and below each what it says: blue real, red made).
    images : int
        Position of the training.
    image_format : ImageFormat
        For the pixel values.
    discriminator : torch.nn.Module, optional
        The adversary.

    Returns
    -------
    dict
        `galdiff.autoencoder.statistics.latent_statistics` and, of square images, ``equivariance_error`` and
        ``equivariance_mse``.
    """
    parts = [autoencoder.encode(part) for part in x.split(_BATCH)]
    posterior = LatentPosterior(torch.cat([p.mean for p in parts]), torch.cat([p.log_var for p in parts]))
    few = x[:_PLOTTED]
    decoded = autoencoder.decode(posterior.mean[:_PLOTTED])

    def save(name: str, pictures: np.ndarray, columns: int) -> None:
        save_grid(folder / f"{name}-{images:09d}.png", pictures, columns=columns)

    def shown(y: Tensor) -> np.ndarray:
        return render(image_format.pixels(y).cpu().numpy(), image_format.unit)

    save("reconstructions", shown(torch.cat([few, decoded.mean])), len(few))
    save("latents", latent_maps(posterior.mean.cpu().numpy(), _PLOTTED, autoencoder.factor), posterior.mean.shape[1])
    if discriminator is not None:
        made = decoded.sample(0, torch.arange(len(few), device=x.device))
        maps = confidence_maps(discriminator(torch.cat([few, made])).cpu().numpy(), x.shape[-1])
        pictures = shown(torch.cat([few, made]))
        n = len(few)
        save("confidences", np.concatenate([pictures[:n], maps[:n], pictures[n:], maps[n:]]), n)
    figures = latent_statistics(posterior)
    if x.shape[-1] == x.shape[-2]:
        found = equivariance_error(autoencoder, x[:_BATCH])
        figures |= {name: found[name] for name in ("equivariance_error", "equivariance_mse")}
    return figures


def latent_maps(z: np.ndarray, count: int, factor: int) -> np.ndarray:
    """Render the channels of the first latents as gray pictures of the image's size, uint8 ``(n, y, x, 3)``."""
    spread = z.std(axis=(0, 2, 3), keepdims=True).clip(1e-12)
    level = (z[:count] - z.mean(axis=(0, 2, 3), keepdims=True)) / spread / (2 * _RANGE) + 0.5
    gray = (level.clip(0, 1) * 255).round().astype(np.uint8).reshape(-1, *z.shape[2:])
    return _enlarged(np.repeat(gray[..., None], 3, axis=-1), factor)


def confidence_maps(logits: np.ndarray, size: int) -> np.ndarray:
    """Render a discriminator's logits ``(n, 1, y, x)``: blue where it says real, red where made; white: undecided."""
    share = (logits[:, 0, :, :, None] / _RANGE).clip(-1, 1)
    real, made = (np.array([int(COLORS[of][i : i + 2], 16) for i in (1, 3, 5)]) for of in ("real", "generated"))
    color = 255 + np.where(share > 0, share * (real - 255), -share * (made - 255))
    return _enlarged(color.round().astype(np.uint8), -(-size // logits.shape[-1]))[:, :size, :size]


def _enlarged(pictures: np.ndarray, factor: int) -> np.ndarray:
    return pictures.repeat(factor, axis=1).repeat(factor, axis=2)

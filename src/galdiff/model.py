r"""The trained model: an autoencoder, a denoiser of its whitened latents, and the map back to pixel values.

A sample is :math:`x = s^{-1}(D(\mu + \varsigma z))` with z from the denoiser's sampler, :math:`\mu, \varsigma` the
channel statistics of the latents of the training split, D the decoder with its sky noise and s the stretch. Sample
number ``seed`` starts from the same noise in any batch and on any device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from galdiff.atomic import write_json
from galdiff.autoencoder import Autoencoder, load_autoencoder
from galdiff.diffusion import ClassifierFree, Denoiser, FieldGuidance, Floor, Guidance, Sampler, Schedule, build_sampler
from galdiff.errors import CheckpointError, GaldiffError, reason
from galdiff.imageformat import ImageFormat
from galdiff.nn import build_backbone
from galdiff.randomness import normal
from galdiff.schema.conditions import Conditions, ConditionSchema
from galdiff.training import posthoc
from galdiff.weights import load_weights, save_weights

__all__ = ["DiffusionModel", "ImageFormat", "build_denoiser", "load_denoiser", "resolve_device"]

_BATCH = 64
_OF_THE_ESTIMATE = ("guidance", "interval", "rescale", "floor")
"""Options of sampling that are of the denoiser's estimate, whichever sampler asks for it."""


def build_denoiser(
    backbone: Mapping[str, Any],
    schema: ConditionSchema,
    schedule: Mapping[str, Any],
    prediction: str,
    *,
    uncertainty: bool = False,
) -> Denoiser:
    """Build a denoiser of unit-variance latents from its description."""
    network = build_backbone(backbone, schema)
    return Denoiser(network, Schedule.from_dict(schedule), prediction=prediction, uncertainty=uncertainty)


@dataclass(frozen=True)
class DiffusionModel:
    """Autoencoder and denoiser of one image format.

    Attributes
    ----------
    autoencoder : Autoencoder
        Pixels to latents and back.
    denoiser : Denoiser
        Over whitened latents.
    schema : ConditionSchema
        What it can be asked for.
    format : ImageFormat
        Bands, size, unit, stretch.
    latent_mean, latent_std : Tensor
        Channel statistics ``(channel,)``.
    sampling : dict
        Default options of `sampler`.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    schema: ConditionSchema
    format: ImageFormat
    latent_mean: Tensor
    latent_std: Tensor
    sampling: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.latent_mean.device

    def to(self, device: torch.device | str) -> DiffusionModel:
        """Move the model to a device."""
        return replace(
            self,
            autoencoder=self.autoencoder.to(device),
            denoiser=self.denoiser.to(device),
            latent_mean=self.latent_mean.to(device),
            latent_std=self.latent_std.to(device),
        )

    def sampler(self, **chosen: Any) -> Sampler:
        """Build a sampler; what is not given, or is None, is the model's default.

        Parameters
        ----------
        **chosen
            As of `options`.

        Raises
        ------
        GaldiffError
            For options that are none, or do not go with the sampler, its grid, the schedule or the autoencoder.
        """
        options = self.options(**chosen)
        estimate = {name: options.pop(name) for name in _OF_THE_ESTIMATE if name in options}
        return build_sampler(options.pop("sampler"), self._estimate(**estimate), **options)

    def options(self, **chosen: Any) -> dict[str, Any]:
        """Return the options of `sampler`: those chosen, and the model's own for the rest.

        The model's own steps, grid and noise are of its own sampler; another one has the defaults of its kind, and so
        has another grid.

        Parameters
        ----------
        **chosen
            ``sampler``, ``steps``, ``grid``, ``shift``, ``rho``, ``eta``, ``noise_scale``; ``guidance`` (a weight, or
            weights by the names of conditions and answers), ``interval``, ``rescale``; ``floor`` (a pixel value).
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        own = dict(self.sampling)
        if given.get("sampler", own["sampler"]) != own["sampler"]:
            own = {name: own[name] for name in _OF_THE_ESTIMATE if name in own}
        elif given.get("grid", own.get("grid")) != own.get("grid"):
            own = {name: value for name, value in own.items() if name not in ("shift", "rho")}
        return {**own, **given}

    def _estimate(
        self, guidance: float | Mapping[str, float], *, floor: float | None = None, **options: Any
    ) -> Denoiser | Guidance | Floor:
        estimate: Denoiser | Guidance = self.denoiser
        if isinstance(guidance, Mapping):
            estimate = FieldGuidance(self.denoiser, self.schema.weights(guidance), **options)
        elif guidance != 1 and self.schema.fields:  # where nothing can be asked for there is nothing to guide
            estimate = ClassifierFree(self.denoiser, guidance, **options)
        return estimate if floor is None else Floor(estimate, self._level(floor))

    def _level(self, floor: float) -> Tensor:
        """Return a pixel value as the denoiser sees it, ``(1, band, 1, 1)``."""
        if self.autoencoder.KIND != "identity":
            remedy = "Leave the floor out, or train with autoencoder: identity"
            raise GaldiffError("a floor is of pixels, and the denoiser of this model sees latents", remedy=remedy)
        pixels = torch.full((1, len(self.format.bands), 1, 1), floor, device=self.device)
        return self.whiten(self.format.stretch(pixels))

    @torch.no_grad()
    def generate(
        self,
        sampler: Sampler,
        seeds: Tensor,
        conditions: Conditions,
        *,
        noise: bool = True,
        batch: int = _BATCH,
        stretched: bool = False,
        precision: str = "float32",
    ) -> Iterator[Tensor]:
        """Yield batches of pixel values ``(≤ batch, band, y, x)`` on the CPU.

        Parameters
        ----------
        sampler : Sampler
            From `sampler`.
        seeds : Tensor
            int64 ``(n,)``, one number a sample.
        conditions : Conditions
            ``n`` rows.
        noise : bool
            Draw the sky noise too; False gives the mean image.
        batch : int
            Samples at once; the samples do not depend on it.
        stretched : bool
            Yield what the networks see instead of pixel values.
        precision : {"float32", "bfloat16"}
            Of the denoiser's products; in float32 a sample is the same on any device to 1e-4, bfloat16 is faster on a
            GPU.

        Raises
        ------
        GaldiffError
            For another precision.
        """
        if precision not in ("float32", "bfloat16"):
            raise GaldiffError(f"unknown precision '{precision}'", remedy="Known: float32, bfloat16")
        lower = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")
        side = self.format.size // self.autoencoder.factor
        shape = (self.autoencoder.latent_channels, side, side)
        for rows in torch.arange(len(seeds)).split(batch):
            index = seeds[rows].to(self.device)
            start = normal(0, "sample", index, shape, device=self.device)
            with lower:
                z = sampler(start, conditions[rows].to(self.device), seeds=index)
            decoded = self.autoencoder.decode(self.unwhiten(z.float()))
            x = decoded.sample(0, index) if noise else decoded.mean
            yield (x.float() if stretched else self.format.pixels(x.float())).cpu()

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor, *, noise: bool = False) -> Tensor:
        """Encode and decode pixel values ``(n, band, y, x)``, without sampling the posterior."""
        parts = []
        for start in range(0, len(pixels), _BATCH):
            x = self.format.stretch(pixels[start : start + _BATCH].to(self.device))
            decoded = self.autoencoder.decode(self.autoencoder.encode(x).mean)
            index = torch.arange(start, start + len(x), device=self.device)
            parts.append(self.format.pixels(decoded.sample(0, index) if noise else decoded.mean).cpu())
        return torch.cat(parts)

    def whiten(self, z: Tensor) -> Tensor:
        """Latents to zero mean and unit variance by channel."""
        return (z - self.latent_mean.view(-1, 1, 1)) / self.latent_std.view(-1, 1, 1)

    def unwhiten(self, z: Tensor) -> Tensor:
        """Undo `whiten`."""
        return z * self.latent_std.view(-1, 1, 1) + self.latent_mean.view(-1, 1, 1)

    def save_denoiser(self, folder: Path) -> None:
        """Write the denoiser's ``weights.safetensors`` and, last, ``spec.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / "weights.safetensors", self.denoiser.state_dict())
        spec = {
            "backbone": self.denoiser.backbone.spec,
            "schedule": self.denoiser.schedule.to_dict(),
            "prediction": self.denoiser.prediction,
            "uncertainty": self.denoiser.uncertainty is not None,
            "schema": self.schema.to_dict(),
            "format": self.format.to_dict(),
            "latent_mean": self.latent_mean.tolist(),
            "latent_std": self.latent_std.tolist(),
            "sampling": dict(self.sampling),
        }
        write_json(folder / "spec.json", spec)

    def save(self, folder: str | Path) -> None:
        """Write ``autoencoder/`` and ``denoiser/``, each loadable on its own."""
        folder = Path(folder)
        self.autoencoder.save(folder / "autoencoder")
        self.save_denoiser(folder / "denoiser")

    @classmethod
    def load(
        cls, folder: str | Path, *, device: torch.device | str = "cpu", ema: float | None = None
    ) -> DiffusionModel:
        """Read a run directory or what `save` wrote, by choice with a weight average of another length.

        Raises
        ------
        CheckpointError
            Where a part is missing, damaged or of another architecture.
        """
        folder = Path(folder)
        if not (folder / "denoiser" / "spec.json").is_file():
            remedy = "Give a run directory whose denoiser stage is finished, or a saved model"
            raise CheckpointError("there is no trained denoiser here", where=folder, remedy=remedy)
        autoencoder = load_autoencoder(folder / "autoencoder")
        with _denoiser_errors(folder / "denoiser"):
            denoiser, spec = load_denoiser(folder / "denoiser", ema=ema)
            model = cls(
                autoencoder,
                denoiser,
                ConditionSchema.from_dict(spec["schema"]),
                ImageFormat.from_dict(spec["format"]),
                torch.tensor(spec["latent_mean"]),
                torch.tensor(spec["latent_std"]),
                spec["sampling"],
            )
        return model.to(device)


def load_denoiser(folder: str | Path, *, ema: float | None = None) -> tuple[Denoiser, dict[str, Any]]:
    """Read what `DiffusionModel.save_denoiser` wrote; no autoencoder is needed.

    Parameters
    ----------
    folder : path-like
        The folder ``denoiser`` of a run directory or a saved model.
    ema : float, optional
        Length of the power-function average of the weights, of a run that kept snapshots; by default the one that was
        saved.

    Returns
    -------
    denoiser : Denoiser
        In evaluation mode, over whitened latents.
    spec : dict
        Its description, with ``schema``, ``format``, ``latent_mean``, ``latent_std`` and ``sampling``.

    Raises
    ------
    CheckpointError
        Where a file is missing, damaged or of another architecture, or there are no snapshots to average.
    """
    folder = Path(folder)
    with _denoiser_errors(folder):
        spec = json.loads((folder / "spec.json").read_text())
        schema = ConditionSchema.from_dict(spec["schema"])
        theory = spec["schedule"], spec["prediction"]
        denoiser = build_denoiser(spec["backbone"], schema, *theory, uncertainty=spec["uncertainty"])
        weights = load_weights(folder / "weights.safetensors")[0]
        if ema is not None:
            weights |= posthoc(folder / "snapshots", ema)
        denoiser.load_state_dict(weights)
    return denoiser.eval(), spec


@contextmanager
def _denoiser_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        remedy = "Take a whole copy, or train it again: galdiff-train CATALOG --redo denoiser"
        raise CheckpointError(f"cannot load the denoiser: {reason(error)}", where=folder, remedy=remedy) from error


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:1" into a device that is there.

    Others that PyTorch has, such as Apple's mps, are refused: random numbers, schedules and statistics are computed in
    float64 and 64-bit integers, which mps does not have, and no test has run there.

    Raises
    ------
    GaldiffError
        Where there is none, or it is of another kind.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise GaldiffError(f"there is no device '{name}'", remedy="Use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        reason = "its numbers need float64, and it was never tested there"
        raise GaldiffError(f"galdiff does not run on '{name}': {reason}", remedy="Use auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise GaldiffError(f"device '{name}' was asked for but CUDA is not available", remedy="Use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GaldiffError(f"there is no device '{name}': the last is cuda:{torch.cuda.device_count() - 1}")
    return device

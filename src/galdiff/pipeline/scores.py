"""Stage: the figures and curves of a run, and the pictures that its report shows."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from galdiff.atomic import write_json
from galdiff.diffusion import Objective
from galdiff.judges import Classifier
from galdiff.latents import CutoutStore
from galdiff.metrics import PROTOCOL, morphology
from galdiff.model import DiffusionModel
from galdiff.pipeline.evaluation import Figure, evaluate
from galdiff.pipeline.reconstruction import reconstruction_scores
from galdiff.pipeline.samples import held_out_rows
from galdiff.progress import stage_progress
from galdiff.randomness import Draws
from galdiff.schema.conditions import Class

__all__ = ["write_scores"]

_TRAIN = 5000
_PICTURES = 8
_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
_MINIMUM = 50


def write_scores(
    folder: Path, model: DiffusionModel, cutouts: CutoutStore, *, seed: int, classifier: bool = True, draws: int = 20
) -> None:
    """Write ``evaluation.zarr`` and, last, ``evaluation.json``.

    Parameters
    ----------
    folder : Path
        The run directory, with ``samples.zarr``.
    model : DiffusionModel
        For reconstructions and the loss by noise level.
    cutouts : CutoutStore
        The real images.
    seed : int
        Seed of the run.
    classifier : bool
        Train a judge of classes on real images and read it on generated ones, where the model has a class condition.
    draws : int
        Bootstrap draws.
    """
    start = time.monotonic()
    with stage_progress("evaluation", total=4, unit="parts") as bar:
        samples = xr.open_zarr(folder / "samples.zarr", group="evaluation", consolidated=False).load()
        train_rows = cutouts.rows("train")[:_TRAIN]
        train = cutouts.images(train_rows).astype(np.float32)
        held_out = held_out_rows(cutouts)
        real = cutouts.images(held_out).astype(np.float32)
        bands = model.format.bands
        result = evaluate(train, real, samples["image"].to_numpy(), bands=bands, seed=seed, draws=draws)
        bar.update(1)
        figures = [*result.figures, *_axis_ratios(folder)]
        bar.update(1)
        if classifier:
            figures += _class_figures(model, cutouts, train, train_rows, real, held_out, samples, seed)
        bar.update(1)
        kept, kept_curves = reconstruction_scores(model, real, seed=seed, draws=draws)
        figures += kept
        curves = (
            result.curves.merge(kept_curves).merge(_pictures(model, real)).merge(_noise_levels(model, cutouts, seed))
        )
        unfinished, path = folder / "evaluation.unfinished", folder / "evaluation.zarr"
        for old in (unfinished, path):
            shutil.rmtree(old, ignore_errors=True)
        curves.to_zarr(unfinished, mode="w", zarr_format=3, consolidated=False)
        unfinished.rename(path)
        bar.update(1)
    record = {
        "protocol": PROTOCOL,
        "figures": [figure.to_dict() for figure in figures],
        "versions": _versions(),
        "seconds": round(time.monotonic() - start, 1),
    }
    write_json(folder / "evaluation.json", record)


def _versions() -> dict[str, str]:
    names = ("galdiff", "torch", "numpy", "zarr", "xarray")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _axis_ratios(folder: Path) -> list[Figure]:
    """Median axis ratio of every ask's grid, beside that of its real counterparts."""
    grid = xr.open_zarr(folder / "samples.zarr", group="grid", consolidated=False).load()
    real = xr.open_zarr(folder / "samples.zarr", group="real", consolidated=False).load()
    figures = []
    weight = float(grid["guidance"].max())
    for ask in dict.fromkeys(grid["ask"].to_numpy().tolist()):
        drawn = grid["image"].to_numpy()[(grid["ask"].to_numpy() == ask) & (grid["guidance"].to_numpy() == weight)]
        like = real["image"].to_numpy()[real["ask"].to_numpy() == ask]
        value, floor = _axis_ratio(drawn), _axis_ratio(like) if len(like) >= 5 else None
        note = f"guidance {weight:g}; the floor is the median of {len(like)} real counterparts"
        protocol = f"{PROTOCOL}, median axis ratio by moments"
        status = "too few" if value is None else "ok"
        figures.append(Figure(f"axis_ratio[{ask}]", value, None, floor, len(drawn), protocol, status, note))
    return figures


def _axis_ratio(images: np.ndarray) -> float | None:
    """Median over the objects that are found; rings of lensed light have nothing at their centers."""
    ratios = morphology(images)["axis_ratio"].to_numpy()
    found = ratios[np.isfinite(ratios)]
    return float(np.median(found)) if len(found) else None


def _class_figures(
    model: DiffusionModel,
    cutouts: CutoutStore,
    train: np.ndarray,
    train_rows: np.ndarray,
    real: np.ndarray,
    held_out: np.ndarray,
    samples: xr.Dataset,
    seed: int,
) -> list[Figure]:
    """Accuracy of a judge trained on real images, on generated ones and, as the floor, on held-out real ones."""
    field = next((f for f in model.schema.fields if isinstance(f, Class)), None)
    if field is None:
        return []
    protocol = "convolutional judge trained on the training split, balanced accuracy over classes with 10 or more"
    labels = cutouts.conditions().values[field.name].numpy()
    if len(train) < _MINIMUM * len(field.classes) or len(real) < _MINIMUM:
        note = f"{len(train)} training images"
        return [Figure("class_accuracy", None, None, None, len(real), protocol, status="too few", note=note)]
    stretch = model.format.stretch
    judge = Classifier(len(model.format.bands), len(field.classes))
    judge.fit(stretch(train), labels[train_rows], seed=seed, field=field)
    rows = samples["row"].to_numpy()
    generated = samples["image"].to_numpy()
    # The best rule for classes that count alike divides out how frequent they were in training.
    frequency = np.bincount(labels[train_rows], minlength=len(field.classes)).clip(min=1)
    value = _balanced((judge.predict(stretch(generated)) / frequency).argmax(1), labels[rows])
    floor = _balanced((judge.predict(stretch(real)) / frequency).argmax(1), labels[held_out])
    note = "the floor is the accuracy on held-out real images; samples at guidance 1"
    return [Figure("class_accuracy", value, None, floor, len(generated), protocol, note=note)]


def _balanced(predicted: np.ndarray, truth: np.ndarray) -> float:
    classes = [c for c in np.unique(truth) if (truth == c).sum() >= 10]
    return float(np.mean([(predicted[truth == c] == c).mean() for c in classes]))


def _pictures(model: DiffusionModel, real: np.ndarray) -> xr.Dataset:
    """Held-out images and their reconstructions, without and with the sky noise."""
    inputs = torch.from_numpy(real[:_PICTURES])
    images = {
        "reconstruction_input": inputs,
        "reconstruction_mean": model.reconstruct(inputs),
        "reconstruction_noisy": model.reconstruct(inputs, noise=True),
    }
    return xr.Dataset({name: (("example", "band", "y", "x"), x.numpy()) for name, x in images.items()})


@torch.no_grad()
def _noise_levels(model: DiffusionModel, cutouts: CutoutStore, seed: int) -> xr.Dataset:
    """Loss and example predictions of held-out images by noise level."""
    rows = held_out_rows(cutouts)[:256]
    pixels = torch.from_numpy(cutouts.images(rows)).float().to(model.device)
    z = model.whiten(torch.cat([model.autoencoder.encode(model.format.stretch(p)).mean for p in pixels.split(64)]))
    conditions = cutouts.conditions()[torch.from_numpy(rows)].to(model.device)
    draws, schedule = Draws(seed, range(len(z)), model.device), model.denoiser.schedule
    objective, losses = Objective(), []
    noised: list[np.ndarray] = []
    clean: list[np.ndarray] = []
    few = slice(0, min(_PICTURES, len(z)))
    # Levels are shares of noise in the variance, the same for every schedule.
    shares = torch.tensor(_LEVELS, dtype=torch.float64)
    times = schedule.time(torch.log((1 - shares) / shares))
    for t in times.float():
        at = t.to(model.device).expand(len(z))
        losses.append(float(objective(model.denoiser, z, draws, condition=conditions, t=at).per_sample.mean()))
        epsilon = torch.randn(z[few].shape, generator=torch.Generator().manual_seed(seed)).to(model.device)
        x_t = schedule.noise(z[few], epsilon, at[few])
        predicted = model.denoiser(x_t, at[few], conditions[few])
        scale = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
        shown = [model.autoencoder.decode(model.unwhiten(y)).mean for y in (x_t / scale.sqrt(), predicted)]
        for store, image in zip((noised, clean), shown, strict=True):
            store.append(model.format.pixels(image).cpu().numpy())
    dims = ("level", "picture", "band", "y", "x")
    return xr.Dataset(
        {
            "noise_level": ("level", np.asarray(_LEVELS), {"description": "share of noise in the variance"}),
            "noise_loss": ("level", np.asarray(losses)),
            "prediction_noised": (dims, np.stack(noised)),
            "prediction_clean": (dims, np.stack(clean)),
        }
    )

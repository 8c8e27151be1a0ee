"""Stage: the figures and curves of a run, and the pictures that its report shows."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from galdiff.atomic import resource_errors, write_json
from galdiff.diffusion import Objective
from galdiff.errors import StoreError
from galdiff.latents import CutoutStore
from galdiff.metrics import PROTOCOL, feature_space, judge, physical_morphology
from galdiff.metrics.features import PhysicalFeatures
from galdiff.model import DiffusionModel
from galdiff.pipeline.copies import copies, copies_in_features
from galdiff.pipeline.evaluation import Figure, evaluate
from galdiff.pipeline.judged import Judging, is_lenses
from galdiff.pipeline.lenses import asked_rings
from galdiff.pipeline.reconstruction import reconstruction_scores
from galdiff.pipeline.samples import held_out_rows, read_samples
from galdiff.pipeline.sets import Evaluation, Labeled, bootstrap
from galdiff.progress import stage_progress
from galdiff.randomness import Draws, choose
from galdiff.report.files import write_group
from galdiff.simulate.lensing import caustics_functions

__all__ = ["TRAINING_IMAGES", "digest", "write_evaluation", "write_scores"]

TRAINING_IMAGES = 5000
"""Images of the training split that an evaluation takes, at most."""
_ENCODED = 20_000
"""Training images that the encoder describes, at some ten milliseconds each, in the search for copies."""
_PICTURES = 8
_DRAWS = 100
_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def write_scores(
    folder: Path,
    model: DiffusionModel,
    cutouts: CutoutStore,
    *,
    seed: int,
    classifier: bool = True,
    draws: int = 20,
    features: Sequence[str] = (),
    votes: int = 16_000,
    scalars: int = 16_000,
    transfer: int = 8_000,
    ellipsoids: int = 0,
    encoder: int = 8_000,
    memorisation: bool = True,
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
    features : sequence of str
        Feature spaces for further distances (`galdiff.metrics.SPACES`).
    votes : int
        Images that a judge of votes sees in training, where the model has votes as conditions; 0 trains none.
    scalars : int
        The same of a judge of numbers, where it has any that are no angles.
    transfer : int
        Images that judges of classes see which are trained on samples, and on as many real images; 0 trains none.
    ellipsoids : int
        Lenses of each set that are fitted by an isothermal ellipsoid, where the images are of lenses.
    encoder : int
        Images that the morphology encoder sees in training, which is kept in ``encoder/``; 0 trains none.
    memorisation : bool
        Look for the nearest training image of every sample.
    """
    start = time.monotonic()
    if ellipsoids:
        caustics_functions()
    spaces = [feature_space(name, device=model.device) for name in features]
    with stage_progress("evaluation", total=6, unit="parts") as bar:
        learned, held, paired, drawn = _read_sets(folder, cutouts, seed)
        real, generated = held.images, drawn.images
        judging = Judging(model.format, model.schema, learned, held, drawn, seed=seed)
        few = judging.too_few_to_encode() if encoder else []
        encoded = bool(encoder) and not few
        if encoded:
            spaces.append(judging.encoder(encoder, folder / "encoder"))
        bar.update(1)
        known: dict[str, Any] = {"bands": model.format.bands, "unit": model.format.unit, "features": spaces}
        known |= {"schema": model.schema, "lenses": is_lenses(model.schema), "ellipsoids": ellipsoids}
        parts = [evaluate(learned, paired, drawn, **known, seed=seed, draws=draws)]
        bar.update(1)
        parts.append(Evaluation([*few, *_axis_ratios(folder)]))
        if classifier:
            parts.append(judging.classes(transfer=transfer))
        if votes:
            parts.append(judging.votes(votes, draws=draws))
        if scalars:
            parts.append(judging.scalars(scalars))
        parts.append(Evaluation(asked_rings(judging)))
        bar.update(1)
        if memorisation:
            space = spaces[-1] if encoded else PhysicalFeatures()
            space.fit(learned.images, model.format.unit, source="the training split")
            rows, limit = cutouts.rows("train"), _ENCODED if encoded else None
            parts.append(copies(generated, real, cutouts, stretch=model.format.stretch, seed=seed))
            parts.append(copies_in_features(generated, real, cutouts, space, rows=rows, limit=limit, seed=seed))
        bar.update(1)
        parts.append(Evaluation(*reconstruction_scores(model, real, seed=seed, draws=draws)))
        bar.update(1)
        curves = xr.merge(
            [*(part.curves for part in parts), _pictures(model, real), _noise_levels(model, cutouts, seed)]
        )
        figures = [figure for part in parts for figure in part.figures]
        notes = {"unit": model.format.unit, "real": digest(real), "features": [space.record() for space in spaces]}
        write_evaluation(folder, Evaluation(figures, curves), start=start, **notes)
        bar.update(1)


def _read_sets(folder: Path, cutouts: CutoutStore, seed: int) -> tuple[Labeled, Labeled, Labeled, Labeled]:
    """Read images of the training split, those held out, these in the order of the samples, and the samples.

    In that order objects whose conditions were asked for come first, each once: sets that are compared are as large as
    the smallest.
    """
    samples = read_samples(folder / "samples.zarr", "evaluation", "row")
    # Files may be in the order of their classes.
    order = np.random.default_rng(seed).permutation(cutouts.rows("train"))
    train_rows, held_out = np.sort(order[:TRAINING_IMAGES]), held_out_rows(cutouts)
    train, real = (cutouts.images(rows).astype(np.float32) for rows in (train_rows, held_out))
    generated, asked = samples["image"].to_numpy(), samples["row"].to_numpy()
    if not np.isin(asked, held_out).all():
        remedy = "Draw the samples again with --redo samples"
        raise StoreError("has samples of rows that are not held out", where=folder / "samples.zarr", remedy=remedy)
    conditions = cutouts.conditions()
    learned, held, drawn = (
        Labeled(images, conditions[torch.from_numpy(rows)])
        for images, rows in ((train, train_rows), (real, held_out), (generated, asked))
    )
    first = dict.fromkeys(np.searchsorted(held_out, asked).tolist())
    return learned, held, held[np.array([*first, *(row for row in range(len(held)) if row not in first)])], drawn


def write_evaluation(folder: Path, evaluation: Evaluation, *, start: float, **notes: Any) -> None:
    """Write ``evaluation.zarr`` and, last, ``evaluation.json``.

    Parameters
    ----------
    folder : Path
        Where; what is there is replaced.
    evaluation : Evaluation
        Figures and curves.
    start : float
        When the evaluation began, by the monotonic clock.
    **notes
        JSON that is written beside the figures.
    """
    unfinished, path = folder / "evaluation.unfinished", folder / "evaluation.zarr"
    for old in (unfinished, path):
        shutil.rmtree(old, ignore_errors=True)
    with resource_errors(path):
        write_group(evaluation.curves, unfinished)
        unfinished.rename(path)
    verdicts = judge(evaluation.figures)
    figures = [
        {**figure.to_dict(), "verdict": verdict} for figure, verdict in zip(evaluation.figures, verdicts, strict=True)
    ]
    record = {"protocol": PROTOCOL, "figures": figures, **notes, "versions": _versions()}
    write_json(folder / "evaluation.json", {**record, "seconds": round(time.monotonic() - start, 1)})


def digest(images: np.ndarray) -> str:
    """Return the SHA-256 of images, by which comparisons see that runs were judged by the same ones."""
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


def _versions() -> dict[str, str]:
    names = ("galdiff", "torch", "numpy", "zarr", "xarray")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _axis_ratios(folder: Path) -> list[Figure]:
    """Median axis ratio of every ask's grid, beside that of its real counterparts."""
    grid = read_samples(folder / "samples.zarr", "grid", "ask", "guidance")
    real = read_samples(folder / "samples.zarr", "real", "ask")
    figures = []
    weight = float(grid["guidance"].max())
    for ask in dict.fromkeys(grid["ask"].to_numpy().tolist()):
        drawn = grid["image"].to_numpy()[(grid["ask"].to_numpy() == ask) & (grid["guidance"].to_numpy() == weight)]
        like = real["image"].to_numpy()[real["ask"].to_numpy() == ask]
        name = f"axis_ratio[{ask}]"
        found, real_ones = _axis_ratios_of(drawn), _axis_ratios_of(like)
        value, error = _median(name, found)
        floor, floor_error = _median(name, real_ones) if len(real_ones) >= 5 else (None, None)
        note = f"guidance {weight:g}; the floor is the median of {len(like)} real counterparts"
        protocol = f"{PROTOCOL}, median axis ratio by moments"
        if value is None:
            figures.append(Figure.too_few(name, len(drawn), protocol, note))
        else:
            known: dict[str, Any] = {"note": note, "floor_error": floor_error, "ideal": None}
            # However many draws, a spread is known no better than by as many objects.
            known["freedom"] = min(_DRAWS, len(found), len(real_ones)) - 1
            figures.append(Figure(name, value, error, floor, len(drawn), protocol, **known))
    return figures


def _axis_ratios_of(images: np.ndarray) -> np.ndarray:
    """Axis ratios of the objects that are found; rings of lensed light have nothing at their centers."""
    if not len(images):
        return np.empty(0)
    ratios = physical_morphology(images)["axis_ratio"].to_numpy()
    return ratios[np.isfinite(ratios)]


def _median(name: str, values: np.ndarray) -> tuple[float | None, float | None]:
    """Median of values and its error."""
    if not len(values):
        return None, None
    return float(np.median(values)), bootstrap(name, lambda i: float(np.median(values[i])), len(values), draws=_DRAWS)


def _pictures(model: DiffusionModel, real: np.ndarray) -> xr.Dataset:
    """Held-out images and their reconstructions, without and with the sky noise."""
    inputs = torch.from_numpy(real[choose(len(real), _PICTURES)])
    images = {
        "reconstruction_input": inputs,
        "reconstruction_mean": model.reconstruct(inputs),
        "reconstruction_noisy": model.reconstruct(inputs, noise=True),
    }
    return xr.Dataset({name: (("example", "band", "y", "x"), x.numpy()) for name, x in images.items()})


@torch.no_grad()
def _noise_levels(model: DiffusionModel, cutouts: CutoutStore, seed: int) -> xr.Dataset:
    """Loss and example predictions of held-out images by noise level."""
    rows = choose(held_out_rows(cutouts), 256)
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

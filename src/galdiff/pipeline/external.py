"""Judging any two sets of images: other people's models, and real images against real ones."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from astropy.units import Unit

from galdiff.atomic import resource_errors
from galdiff.errors import DataError, ResourceError
from galdiff.metrics import FeatureSpace, feature_space
from galdiff.metrics.features import PhysicalFeatures
from galdiff.metrics.frechet import MINIMUM_PER_DIMENSION
from galdiff.model import resolve_device
from galdiff.pipeline.conditional import asked_figures, shared_schema, stretch_for
from galdiff.pipeline.copies import copies, copies_in_features
from galdiff.pipeline.evaluation import Evaluation
from galdiff.pipeline.evaluation import evaluate as compare
from galdiff.pipeline.judged import is_lenses
from galdiff.pipeline.scores import digest, write_evaluation
from galdiff.pipeline.sets import Labeled
from galdiff.pipeline.sources import ImageSource, open_images
from galdiff.progress import stage_progress
from galdiff.report import write_report
from galdiff.schema.conditions import Conditions

__all__ = ["evaluate"]

_EXAMPLES = 64
_LIMIT = 10_000
_SMALLEST = 4  # pixels of a side, which leave corners for the sky
_TAILS = (0.005, 0.995)
_RATIO = 10.0


def evaluate(
    real: Any,
    generated: Any,
    *,
    train: Any = None,
    features: Sequence[str | FeatureSpace] = (),
    out: str | Path | None = None,
    size: int | None = None,
    crop: float = 1.0,
    unit: str | None = None,
    limit: int | Literal["auto"] | None = "auto",
    any_range: bool = False,
    lenses: bool | None = None,
    judges: bool = True,
    memorisation: bool = True,
    seed: int = 0,
    draws: int = 20,
    device: str = "auto",
) -> Evaluation:
    """Judge generated images by real ones, wherever either are.

    Parameters
    ----------
    real, generated : path, URL, array_like, Tensor, DataArray or CutoutDataset
        As in `galdiff.pipeline.sources.open_images`: square images of one size, in one unit. Real images that a model
        saw cropped are those of its run's ``cutouts.zarr``.
    train : the same, optional
        Other real images, such as those that the model was trained on: they fix the feature spaces and are the floor,
        and copies of them are looked for. Without them, a half of the real images is the floor.
    features : sequence of str or FeatureSpace
        Feature spaces for further Fréchet distances, such as ``"inception-2015:tf"`` (`galdiff.metrics.SPACES`).
    out : path-like, optional
        A folder for ``evaluation.json``, ``evaluation.zarr`` and ``report.html``.
    size : int, optional
        Resize the central square of every image to so many pixels a side, where it is of another size: what differs by
        that is the resizing's as well as the model's.
    crop : float
        With a size: share of the shorter side of real images to keep, as in the training of the model that is judged.
    unit : str, optional
        Of the pixel values: "display" (8 bits as value / 255) or a FITS unit; by default what the files say.
    limit : int, "auto" or None
        Images of each at most, drawn at random; "auto" is 10,000, or what a Fréchet distance takes in the widest
        feature space, and of real images without others twice that; None takes all.
    any_range : bool
        Compare also where the ranges of the pixel values say that the units differ.
    lenses : bool, optional
        Whether the images are of strong lenses, less the light of the lens, whose rings are measured; by default where
        a class of theirs is one of substructure.
    judges : bool
        Train judges on real images and read them on generated ones, where all sources know the same conditions: runs,
        cutout stores, datasets and folders of DeepLense. It takes minutes.
    memorisation : bool
        Look for the nearest training image of 2,000 samples, where there are any. It takes minutes too.
    seed : int
        Of everything random.
    draws : int
        Bootstrap draws, two or more.
    device : str
        Where networks run: "auto", "cpu", "cuda", "cuda:1".

    Returns
    -------
    Evaluation
        Figures and curves.

    Raises
    ------
    DataError, StoreError
        For images that cannot be read or do not go together, and a limit, seed, unit or number of draws that is none;
        before anything is measured.
    CheckpointError, ResourceError
        Where the weights of a feature space cannot be had, or the folder cannot be written.
    GaldiffError
        Where there is no such device.

    Examples
    --------
    >>> galdiff.evaluate("survey/", "their_samples.npz").figures  # doctest: +SKIP
    """
    start = time.monotonic()
    _check_numbers(limit, seed, draws)
    processor = resolve_device(device)
    named: dict[str, Any] = {"real": real, "generated": generated} | ({} if train is None else {"train": train})
    sources = {
        role: open_images(where, generated=role == "generated", size=size, crop=1.0 if role == "generated" else crop)
        for role, where in named.items()
    }
    if unit is not None:
        _check_unit(unit, sources)
        sources = {role: replace(source, unit=unit) for role, source in sources.items()}
    sources = _agree(sources)
    spaces = [feature_space(f, device=processor) if isinstance(f, str) else f for f in features]
    limits = _limits(sources, spaces, limit)
    folder = None if out is None else _folder(Path(out))
    with stage_progress("reading", total=len(sources), unit="sets") as bar:
        parts = {}
        for role, source in sources.items():
            parts[role] = _read(source, limits[role], seed)
            bar.update(1)
    images = {role: part.images for role, part in parts.items()}
    unit = sources["real"].unit or ("display" if _is_display(images) else "")
    if not any_range:
        _check_ranges(images, sources, unit)
    bands = sources["real"].bands or tuple(str(k) for k in range(sources["real"].shape[0]))
    settings: dict[str, Any] = {"bands": bands, "unit": unit, "features": spaces, "seed": seed, "draws": draws}
    schema = shared_schema([source.schema for source in sources.values()])
    settings |= {"schema": schema, "lenses": is_lenses(schema) if lenses is None else lenses}
    with stage_progress("evaluation", total=3, unit="parts") as bar:
        results = [compare(parts.get("train"), parts["real"], parts["generated"], **settings)]
        bar.update(1)
        if train is not None and memorisation:
            stretch = stretch_for(images["train"], unit)
            results.append(copies(images["generated"], images["real"], images["train"], stretch=stretch, seed=seed))
            space = PhysicalFeatures()
            space.fit(images["train"], unit, source="the training images")
            results.append(copies_in_features(images["generated"], images["real"], images["train"], space, seed=seed))
        bar.update(1)
        if judges and schema.fields:
            results.append(asked_figures(parts, schema, bands=bands, unit=unit, seed=seed, draws=draws))
        bar.update(1)
    figures = [figure for part in results for figure in part.figures]
    result = Evaluation(figures, xr.merge([part.curves for part in results]))
    if folder is not None:
        examples = {
            f"example_{role}": ((f"{role}_example", "band", "y", "x"), images[role][:_EXAMPLES])
            for role in ("real", "generated")
        }
        known = {role: {"name": source.name, "images": len(images[role])} for role, source in sources.items()}
        notes: dict[str, Any] = {"unit": unit, "real": digest(images["real"]), "sources": known}
        notes["features"] = [space.record() for space in spaces]
        curves = result.curves.merge(xr.Dataset(examples))
        write_evaluation(folder, Evaluation(result.figures, curves), start=start, **notes)
        write_report(folder)
    return result


def _check_numbers(limit: int | str | None, seed: int, draws: int) -> None:
    if isinstance(limit, str) and limit != "auto":
        raise DataError(f"limit is '{limit}'", remedy="Give a number, 'auto', or None for all images")
    for name, value, least in (("limit", limit, 2), ("seed", seed, 0), ("draws", draws, 2)):
        if not isinstance(value, str | None) and value < least:
            raise DataError(f"{name} is {value}", remedy=f"Give {least} or more")


def _check_unit(unit: str, sources: Mapping[str, ImageSource]) -> None:
    """Refuse what is no unit: it would go into every label of the report."""
    if unit == "display" or unit in {source.unit for source in sources.values()}:
        return
    try:
        Unit(unit)
    except ValueError as error:
        remedy = "Use display, or a FITS unit such as nJy, nmgy or electron/s"
        raise DataError(f"there is no unit '{unit}'", remedy=remedy) from error


def _limits(
    roles: Iterable[str], spaces: Sequence[FeatureSpace], limit: int | Literal["auto"] | None
) -> dict[str, int | None]:
    """Return how many images to take of each; without training images a half of the real ones is in their place."""
    roles = tuple(roles)
    if limit != "auto":
        return dict.fromkeys(roles, limit)
    wide = MINIMUM_PER_DIMENSION * max((space.width for space in spaces), default=0)
    halved = () if "train" in roles else ("real",)
    return {role: max(_LIMIT, 2 * wide if role in halved else wide) for role in roles}


def _folder(out: Path) -> Path:
    """Make the folder now, so that it cannot fail after the work."""
    if (out / "stages").is_dir():
        raise ResourceError("is a run folder", where=out, remedy="Write the evaluation elsewhere with -o")
    with resource_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(out / "evaluation.unfinished", ignore_errors=True)
    return out


def _agree(sources: Mapping[str, ImageSource]) -> dict[str, ImageSource]:
    """Give bands and unit that one source does not know those of the others; refuse what differs."""
    for role, source in sources.items():
        if source.shape[-1] != source.shape[-2]:
            sides = f"{source.shape[-1]} x {source.shape[-2]}"
            raise DataError(f"the images are {sides} pixels, not square", where=source.name)
        if source.shape[-1] < _SMALLEST:
            raise DataError(f"images of {source.shape[-1]} pixels cannot be measured", where=source.name)
        if source.shape != sources["real"].shape:
            what = f"{role} images are (band, y, x) = {source.shape}, real ones {sources['real'].shape}"
            raise DataError(what, where=source.name, remedy="Give a size (--size), or select bands")
    known: dict[str, Any] = {}
    for key in ("bands", "unit"):
        said = {role: getattr(source, key) for role, source in sources.items() if getattr(source, key)}
        if len(set(said.values())) > 1:
            told = ", ".join(f"{role} {value}" for role, value in said.items())
            remedy = "Convert one of them; --unit says what all are in" if key == "unit" else "Order their bands alike"
            raise DataError(f"the sets differ in their {key}: {told}", where=sources["generated"].name, remedy=remedy)
        known[key] = next(iter(said.values()), None)
    return {role: replace(source, **known) for role, source in sources.items()}


def _read(source: ImageSource, limit: int | None, seed: int) -> Labeled:
    """Read images in random order: folders are sorted, by class or by date."""
    rows = np.random.default_rng(seed).permutation(source.n)[:limit]
    images = source.read(rows)
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        first = int(rows[~finite].min())
        bad = int((~finite).sum())
        raise DataError(f"{bad} images have NaN or infinite pixels, the first is row {first}", where=source.name)
    known = Conditions({}, {}) if source.conditions is None else source.conditions[torch.from_numpy(rows)]
    return Labeled(images, known)


def _is_display(images: Mapping[str, np.ndarray]) -> bool:
    return all(x.min() >= 0 and x.max() <= 1 for x in images.values())


def _check_ranges(images: Mapping[str, np.ndarray], sources: Mapping[str, ImageSource], unit: str) -> None:
    """Refuse pixel values that are not of the same unit: stretched, rescaled to [-1, 1], or bytes beside fractions."""
    remedy = "Undo the stretch or rescaling, or compare all the same with --any-range"
    tails = {role: np.quantile(x[:256], _TAILS) for role, x in images.items()}
    low, high = tails["real"]
    span = max(high - low, 1e-30)
    for role, (bottom, top) in tails.items():
        where, run = sources[role].name, f"{role} pixel values run from {bottom:.4g} to {top:.4g}"
        if unit == "display" and (bottom < -0.1 or top > 1.1):
            raise DataError(f"{run}, display units from 0 to 1", where=where, remedy=remedy)
        ratio = (top - bottom) / span
        if not 1 / _RATIO < ratio < _RATIO or bottom < low - span / 2:
            what = f"{run}, real ones from {low:.4g} to {high:.4g}: they are not in the same unit"
            raise DataError(what, where=where, remedy=remedy)

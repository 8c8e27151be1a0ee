"""Figures: every statistic of generated against held-out real images, beside that of two real sets of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics import FEATURES, FeatureSpace, Figure
from galdiff.metrics.features import PhysicalFeatures
from galdiff.pipeline.families import FAMILIES
from galdiff.pipeline.families_objects import MORPHOLOGY
from galdiff.pipeline.sets import SETS, Evaluation, Labeled, Sets
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["Evaluation", "Figure", "evaluate"]

_REFERENCE = 5000


def evaluate(
    train: np.ndarray | Labeled | None,
    held_out: np.ndarray | Labeled,
    generated: np.ndarray | Labeled,
    *,
    bands: tuple[str, ...],
    unit: str = "display",
    features: Sequence[FeatureSpace] = (),
    seed: int = 0,
    draws: int = 20,
    minimum: int = 50,
    lenses: bool = False,
    ellipsoids: int = 0,
    schema: ConditionSchema | None = None,
) -> Evaluation:
    """Compare generated with held-out real images.

    Parameters
    ----------
    train : numpy.ndarray, Labeled or None
        Real images that fix the feature spaces and are the floor; without them a half of the held-out ones, drawn at
        random, is put aside for that.
    held_out, generated : numpy.ndarray or Labeled
        Pixel values ``(n, band, y, x)``; with what is known of them, parts are compared too: classes, and windows over
        a number.
    bands : tuple of str
        Names of the bands.
    unit : str
        "display", or that of the pixel values.
    features : sequence of FeatureSpace
        Spaces in which to take distances besides the physical features; they are fitted here.
    seed : int
        Of the training subset for the floor and of the bootstrap.
    draws : int
        Bootstrap draws.
    minimum : int
        Images below which a mean curve is "too few".
    lenses : bool
        Whether the images are of strong lenses, less the light of the lens: rings are measured then.
    ellipsoids : int
        Lenses of each set that are fitted by an isothermal ellipsoid, about a second each.
    schema : ConditionSchema, optional
        Conditions that are known of all images.

    Returns
    -------
    Evaluation
        The figures and curves of all `FAMILIES`.

    Raises
    ------
    DataError
        For images of another shape, or fewer than two real ones without training images.
    """
    rng = np.random.default_rng(seed)
    source = "the training split"
    real, drawn = _labeled(held_out), _labeled(generated)
    if train is None:
        if len(real) < 2:
            raise DataError("one real image cannot be split into two halves", remedy="Give more real images")
        order, half = rng.permutation(len(real)), len(real) // 2
        sample, real = real[order[:half]], real[order[half:]]
        source = "a half of the real images"
    else:
        sample = _labeled(train)[rng.permutation(len(train))]
    shapes = {part.images.shape[1:] for part in (sample, real, drawn)}
    if len(shapes) > 1:
        raise DataError(f"the sets differ in the shape of their images: {sorted(shapes)}")
    n = min(len(real), len(drawn), len(sample))
    spaces = (PhysicalFeatures(), *(space for space in features if not isinstance(space, PhysicalFeatures)))
    for space in spaces:
        space.fit(sample.images[:_REFERENCE], unit, source=source)
    compared = {"real": real, "generated": drawn, "floor": sample}
    images = {name: part.images[:n] for name, part in compared.items()}
    usual: dict[str, Any] = {"unit": unit, "seed": seed, "draws": draws, "minimum": minimum}
    usual |= {"schema": schema or ConditionSchema(), "lenses": lenses, "ellipsoids": ellipsoids}
    usual["conditions"] = {name: part.conditions[:n] for name, part in compared.items()}
    sets = Sets(images, spaces, bands, **usual)
    parts = [family(sets) for family in FAMILIES]
    names = {"set": SETS, "band": bands, "feature": FEATURES, "statistic": MORPHOLOGY}
    # Variable-length text: the fixed-width kind has no Zarr v3 specification.
    coords = {axis: np.asarray(labels, dtype=object) for axis, labels in names.items()}
    curves = xr.merge([part.curves for part in parts]).assign_coords(coords)
    return Evaluation([figure for part in parts for figure in part.figures], curves)


def _labeled(images: np.ndarray | Labeled) -> Labeled:
    return images if isinstance(images, Labeled) else Labeled(images, Conditions({}, {}))

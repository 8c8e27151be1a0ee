"""Figures: every statistic of generated against held-out real images, beside that of two real sets of the same size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics import FEATURES, FeatureSpace, Figure
from galdiff.metrics.features import PhysicalFeatures
from galdiff.pipeline.families import FAMILIES
from galdiff.pipeline.families_objects import MORPHOLOGY
from galdiff.pipeline.sets import SETS, Evaluation, Sets

__all__ = ["Evaluation", "Figure", "evaluate"]

_REFERENCE = 5000


def evaluate(
    train: np.ndarray | None,
    held_out: np.ndarray,
    generated: np.ndarray,
    *,
    bands: tuple[str, ...],
    unit: str = "display",
    features: Sequence[FeatureSpace] = (),
    seed: int = 0,
    draws: int = 20,
    minimum: int = 50,
    lenses: bool = False,
    ellipsoids: int = 0,
) -> Evaluation:
    """Compare generated with held-out real images.

    Parameters
    ----------
    train : numpy.ndarray or None
        Real images that fix the feature spaces and are the floor; without them a half of the held-out ones, drawn at
        random, is put aside for that.
    held_out, generated : numpy.ndarray
        Pixel values ``(n, band, y, x)``.
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
    if train is None:
        if len(held_out) < 2:
            raise DataError("one real image cannot be split into two halves", remedy="Give more real images")
        order, half = rng.permutation(len(held_out)), len(held_out) // 2
        sample, held_out = held_out[order[:half]], held_out[order[half:]]
        source = "a half of the real images"
    else:
        sample = train[rng.permutation(len(train))]
    shapes = {images.shape[1:] for images in (sample, held_out, generated)}
    if len(shapes) > 1:
        raise DataError(f"the sets differ in the shape of their images: {sorted(shapes)}")
    n = min(len(held_out), len(generated), len(sample))
    spaces = (PhysicalFeatures(), *(space for space in features if not isinstance(space, PhysicalFeatures)))
    for space in spaces:
        space.fit(sample[:_REFERENCE], unit, source=source)
    images = {"real": held_out[:n], "generated": generated[:n], "floor": sample[:n]}
    usual = {"unit": unit, "seed": seed, "draws": draws, "minimum": minimum}
    sets = Sets(images, spaces, bands, **usual, lenses=lenses, ellipsoids=ellipsoids)  # type: ignore[arg-type]
    parts = [family(sets) for family in FAMILIES]
    names = {"set": SETS, "band": bands, "feature": FEATURES, "statistic": MORPHOLOGY}
    # Variable-length text: the fixed-width kind has no Zarr v3 specification.
    coords = {axis: np.asarray(labels, dtype=object) for axis, labels in names.items()}
    curves = xr.merge([part.curves for part in parts]).assign_coords(coords)
    return Evaluation([figure for part in parts for figure in part.figures], curves)

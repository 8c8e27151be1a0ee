"""Figures of what was asked for, of images from anywhere: judges are trained on real ones and read on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from galdiff.data.stretch import Linear, Stretch
from galdiff.data.stretches import Asinh
from galdiff.model import ImageFormat
from galdiff.pipeline.judged import Judging
from galdiff.pipeline.lenses import asked_rings
from galdiff.pipeline.sets import Evaluation, Labeled
from galdiff.schema.conditions import Class, ConditionSchema, Scalar, Votes
from galdiff.schema.fields import Field

__all__ = ["asked_figures", "shared_schema", "stretch_for"]

_SEEN = 16_000
_TRANSFER = 8_000


def shared_schema(schemas: Sequence[ConditionSchema | None]) -> ConditionSchema:
    """Return the conditions that all sources have alike, as the first describes them; none where one has none."""
    if not schemas or any(schema is None for schema in schemas):
        return ConditionSchema()
    first, *others = ({f.name: f for f in schema.fields} for schema in schemas if schema is not None)
    return ConditionSchema(
        f for name, f in first.items() if all(name in other and _alike(f, other[name]) for other in others)
    )


def asked_figures(
    parts: Mapping[str, Labeled],
    schema: ConditionSchema,
    *,
    bands: tuple[str, ...],
    unit: str,
    seed: int = 0,
    draws: int = 20,
) -> Evaluation:
    """Train judges of every condition on real images and read them on generated ones.

    Parameters
    ----------
    parts : mapping of str to Labeled
        ``real`` and ``generated``, in random order, and ``train``; without that, judges train on a half of the real
        images.
    schema : ConditionSchema
        What all of them know (`shared_schema`).
    bands : tuple of str
        Names of the bands.
    unit : str
        "display", or that of the pixel values.
    seed, draws : int
        Of the judges and of the bootstrap.

    Returns
    -------
    Evaluation
        As of a run: `Judging.classes` with train-on-generated accuracy, `Judging.votes`, `Judging.scalars` and
        `asked_rings`.
    """
    real, half = parts["real"], len(parts["real"]) // 2
    train = parts.get("train") or real[np.arange(half)]
    held_out = real if "train" in parts else real[np.arange(half, len(real))]
    stretch = stretch_for(train.images, unit)
    image_format = ImageFormat(bands, real.images.shape[-1], unit, stretch)
    judging = Judging(image_format, schema, train, held_out, parts["generated"], seed)
    results = [judging.classes(transfer=_TRANSFER), judging.votes(_SEEN, draws=draws), judging.scalars(_SEEN)]
    figures = [figure for result in results for figure in result.figures]
    return Evaluation(figures + asked_rings(judging), xr.merge([result.curves for result in results]))


def stretch_for(images: np.ndarray, unit: str) -> Stretch:
    """Return how networks, and the search for copies, see images that come without a stretch."""
    return Linear(0.0, 1.0) if unit == "display" else Asinh().fit(images)


def _alike(a: Field, b: Field) -> bool:
    """Whether values of one field mean the same in the other."""
    if isinstance(a, Class) and isinstance(b, Class):
        return a.classes == b.classes
    if isinstance(a, Votes) and isinstance(b, Votes):
        return a.tree.to_dict() == b.tree.to_dict()
    return isinstance(a, Scalar) and isinstance(b, Scalar) and (a.unit, a.angle) == (b.unit, b.angle)

"""Strong lenses of a run: whether the rings of samples are as large as the Einstein radii that were asked for."""

from __future__ import annotations

import numpy as np

from galdiff.judges import recovery_figures
from galdiff.metrics import Figure, einstein_radius
from galdiff.pipeline.judged import Judging
from galdiff.pipeline.sets import Labeled
from galdiff.schema.conditions import Scalar

__all__ = ["RADII", "asked_rings"]

RADII = ("theta_e", "einstein_radius")
"""Names of conditions that are Einstein radii."""


def asked_rings(judging: Judging) -> list[Figure]:
    """Compare the radii of rings with the Einstein radii that were asked for, and those of real lenses with theirs.

    Parameters
    ----------
    judging : Judging
        With a condition of one of the names in `RADII`; else there are no figures.

    Returns
    -------
    list of Figure
        ``recovered_<statistic>[<condition> by ring]``. Where the pixels' scale is not known, the ratio of radius and
        ring that is the median of the training split stands for it.
    """
    field = next((f for f in judging.schema.fields if isinstance(f, Scalar) and f.name in RADII), None)
    if field is None:
        return []
    scale, source = judging.image_format.pixel_scale, "pixel scale of the data"
    if scale is None or field.unit != "arcsec":
        ratio = judging.train.numbers(field.name) / _rings(judging.train, 1.0)
        known = ratio[np.isfinite(ratio)]
        scale, source = float(np.median(known)) if len(known) else 1.0, "scale of the median training lens"
    real, generated = judging.real, judging.generated
    return recovery_figures(
        _rings(generated, scale),
        generated.numbers(field.name),
        _rings(real, scale),
        real.numbers(field.name),
        f"{field.name} by ring",
        reader=f"maximum of the azimuthally averaged profile about the middle of the stamp, {source}",
        unit=field.unit,
        seed=judging.seed,
    )


def _rings(part: Labeled, scale: float) -> np.ndarray:
    return np.asarray(einstein_radius(part.images, pixel_scale=scale)["einstein_radius"])

"""Families of figures: each measures one thing of all sets.

A family is a function of `Sets` that returns an `Evaluation`; what is in `FAMILIES` is what an evaluation holds, in
the order in which the report shows it.
"""

from __future__ import annotations

from collections.abc import Callable

from galdiff.pipeline.families_curves import power, profile, residual_spectrum, spectrum, two_samples
from galdiff.pipeline.families_features import (
    distributions,
    energy,
    extrapolated,
    fidelity,
    frechet,
    kernel,
    kernel_subsets,
)
from galdiff.pipeline.families_objects import ellipsoids, rings, shapes
from galdiff.pipeline.families_parts import classes, sliding
from galdiff.pipeline.sets import Evaluation, Sets

__all__ = ["FAMILIES", "Family"]

Family = Callable[[Sets], Evaluation]
"""Measures one thing of all sets."""

FAMILIES: tuple[Family, ...] = (
    frechet,
    extrapolated,
    classes,
    sliding,
    power,
    profile,
    spectrum,
    distributions,
    kernel,
    kernel_subsets,
    energy,
    fidelity,
    residual_spectrum,
    shapes,
    rings,
    ellipsoids,
    two_samples,
)
"""What an evaluation measures."""

r"""A population of galaxies: what there is to draw, before any light is drawn.

A quarter are ellipticals (some of them cigars), a fifth are disks seen edge-on and the rest are disks seen from above,
of which 60 % have spiral arms and 40 % a bar. This is the balance of a training set, not of the sky.
A disk of inclination i and intrinsic flattening :math:`q_0` appears with the axis ratio (Hubble 1926, ApJ 64, 321)

.. math:: q^2 = \cos^2 i + q_0^2 \sin^2 i,

which is exact for the second moments of a transparent disk of any vertical profile.
Row i depends on the seed and its own index alone, so that a longer run begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from galdiff.randomness import uniform

__all__ = ["Galaxy", "Neighbor", "draw_neighbors", "draw_population"]

REFERENCE_SIZE = 64
"""Stamp size [pixel] in which the lengths below are drawn; other sizes see the same field on another pixel scale."""

N_DRAWS = 40  # uniform numbers a galaxy; some are spare
MAX_NEIGHBORS = 3
_LENGTHS = ["r_half", "x", "y", "bulge_radius", "arm_start", "bar_length", "psf_fwhm"]


@dataclass(frozen=True)
class Galaxy:
    """One row of the truth table.

    Lengths are in pixels of the stamp, angles in degrees, counter-clockwise as displayed (first row on top) from the
    x axis (position angle) or from the major axis in the disk plane (bar, arms). Surface brightness and flux are
    linear, in units in which the faint end of the picture is one display unit.
    """

    kind: str
    """``elliptical``, ``edge_on`` or ``disk``."""
    edge_on: bool
    has_spiral: bool
    has_bar: bool
    flux: float
    """Mean of the three bands' total light."""
    r_half: float
    """Half-light radius along the major axis, of the elliptical or of the disk."""
    axis_ratio: float
    """Apparent minor-to-major axis ratio, of the elliptical or of the disk."""
    inclination: float
    position_angle: float
    x: float
    """Offset of the center from the middle of the stamp, to the right."""
    y: float
    """Offset of the center from the middle of the stamp, upwards."""
    sersic_index: float
    """Of the elliptical; 1 for disks."""
    bulge_fraction: float
    bulge_radius: float
    bulge_axis_ratio: float
    n_arms: int
    pitch: float
    handedness: int
    """+1 where the arms turn counter-clockwise on the way out, -1 clockwise, 0 without arms."""
    arm_contrast: float
    """Share of the disk's light in the arms, outside the bar."""
    arm_phase: float
    arm_start: float
    """Radius where the arms begin."""
    knot_phase: float
    bar_fraction: float
    bar_length: float
    """Semi-major axis of the bar in the disk plane."""
    bar_axis_ratio: float
    bar_angle: float
    color: float
    """Logarithmic slope of the spectral energy over the bands of the old light; red is positive."""
    disk_color: float
    psf_fwhm: float
    noise: float
    """Standard deviation of the sky noise."""
    n_neighbors: int


@dataclass(frozen=True)
class Neighbor:
    """A star or a small galaxy in the background."""

    x: float
    y: float
    flux: float
    color: float
    width: float
    """Gaussian width before the PSF; that of a star is half a pixel of the reference stamp, which sampling needs."""


def draw_population(index: NDArray[np.int64], *, seed: int, size: int = REFERENCE_SIZE) -> pd.DataFrame:
    """Draw the galaxies of the given indices.

    Parameters
    ----------
    index : int64 array (n,)
        Global indices of the galaxies.
    seed : int
        Seed of the simulation.
    size : int
        Side of the stamp [pixel].

    Returns
    -------
    DataFrame (n rows)
        One column for every field of `Galaxy`; the index of the frame is ``index``.
    """
    draw = _Draws(seed, index)
    kinds = _draw_kinds(draw)
    shapes = _draw_shapes(draw, kinds)
    parts = _draw_parts(draw, kinds, shapes)
    flux = _draw_flux(draw, kinds, shapes, parts)
    disk, spiral = ~kinds.elliptical, kinds.has_spiral
    # What is drawn here is drawn in the order of the lines, which seeds rely on.
    truth = pd.DataFrame(
        {
            "kind": np.select([kinds.elliptical, kinds.edge_on], ["elliptical", "edge_on"], "disk"),
            "edge_on": kinds.edge_on,
            "has_spiral": spiral,
            "has_bar": kinds.has_bar,
            "flux": flux,
            "r_half": shapes.r_half,
            "axis_ratio": shapes.axis_ratio,
            "inclination": np.where(disk, np.degrees(np.arccos(shapes.cos_i)), 0.0),
            "position_angle": draw.flat(0, 180),
            "x": draw.flat(-0.8, 0.8),
            "y": draw.flat(-0.8, 0.8),
            "sersic_index": np.where(disk, 1.0, draw.flat(2, 5)),
            "pitch": spiral * draw.flat(12, 30),
            "handedness": np.where(spiral, np.where(draw.flat() < 0.5, 1, -1), 0),
            "arm_contrast": spiral * draw.flat(0.6, 0.95),
            "knot_phase": spiral * draw.flat(0, 360),
            "color": draw.normal(0.27, 0.05),
            "disk_color": np.where(disk, draw.normal(np.where(kinds.edge_on, 0.13, 0.05), 0.1), 0.0),
            "psf_fwhm": draw.flat(1.5, 2.5),
            "noise": draw.lognormal(0.016, 0.2),
            "n_neighbors": np.searchsorted([0.5, 0.78, 0.93], draw.flat()),
            **parts,
        },
        index=pd.Index(index, name="index"),
        columns=[field.name for field in fields(Galaxy)],
    )
    scale = size / REFERENCE_SIZE
    truth[_LENGTHS] *= scale
    truth["flux"] *= scale**2
    return truth


class _Draws:
    """Numbers of every galaxy from its own row of uniform ones, a column a call: the order of calls is what counts."""

    def __init__(self, seed: int, index: NDArray[np.int64]) -> None:
        u = uniform(seed, "galaxy", torch.from_numpy(index), (N_DRAWS,)).numpy().astype(np.float64)
        self._columns = iter(u.T)

    def flat(self, low: float = 0, high: float = 1) -> NDArray[np.float64]:
        return low + (high - low) * next(self._columns)

    def lognormal(self, median: ArrayLike, sigma: float) -> NDArray[np.float64]:
        return np.asarray(median) * np.exp(sigma * np.clip(ndtri(next(self._columns)), -2, 2))

    def normal(self, mean: ArrayLike, sigma: float) -> NDArray[np.float64]:
        return np.asarray(mean) + sigma * np.clip(ndtri(next(self._columns)), -2.5, 2.5)


class _Kinds(NamedTuple):
    elliptical: NDArray[np.bool_]
    edge_on: NDArray[np.bool_]
    has_spiral: NDArray[np.bool_]
    has_bar: NDArray[np.bool_]


def _draw_kinds(draw: _Draws) -> _Kinds:
    which = draw.flat()
    elliptical, edge_on = which < 0.25, (which >= 0.25) & (which < 0.45)
    face_on = ~elliptical & ~edge_on
    return _Kinds(elliptical, edge_on, face_on & (draw.flat() < 0.6), face_on & (draw.flat() < 0.4))


class _Shapes(NamedTuple):
    cos_i: NDArray[np.float64]
    axis_ratio: NDArray[np.float64]
    scale_length: NDArray[np.float64]
    r_half: NDArray[np.float64]


def _draw_shapes(draw: _Draws, kinds: _Kinds) -> _Shapes:
    """Draw what ellipses are seen; disks seen from above are not steep, where neither arms nor bars can be seen."""
    elliptical, structured = kinds.elliptical, kinds.has_spiral | kinds.has_bar
    tilt = draw.flat()
    cos_i = np.where(kinds.edge_on, 0.12 * tilt, 0.5 + 0.5 * tilt**0.45)
    flattening = draw.flat(0.11, 0.19)
    cigar = draw.flat() < 0.15
    of_elliptical = np.where(cigar, draw.flat(0.3, 0.5), draw.flat(0.6, 1.0))
    axis_ratio = np.where(elliptical, of_elliptical, np.sqrt(cos_i**2 + flattening**2 * (1 - cos_i**2)))
    scale_length = np.where(
        kinds.edge_on, draw.lognormal(4.7, 0.22), draw.lognormal(np.where(structured, 4.8, 4.1), 0.2)
    )
    r_half = np.where(
        elliptical, draw.lognormal(5.5, 0.28) / np.sqrt(np.maximum(axis_ratio, 0.1)), 1.6783 * scale_length
    )
    return _Shapes(cos_i, axis_ratio, scale_length, r_half)


def _draw_parts(draw: _Draws, kinds: _Kinds, shapes: _Shapes) -> dict[str, NDArray[Any]]:
    """Draw bulge, bar and arms; of a barred galaxy with two arms they begin at the ends of the bar."""
    disk, spiral, bar = ~kinds.elliptical, kinds.has_spiral, kinds.has_bar
    log_bulge = np.log(np.where(spiral | bar, 0.08, 0.16))
    bulge_fraction = np.where(disk, np.clip(np.exp(draw.normal(log_bulge, 0.8)), 0.01, 0.6), 1.0)
    bulge_radius = shapes.scale_length * draw.flat(0.25, 0.4) * (bulge_fraction / 0.15) ** 0.2
    bulge_axis_ratio = np.sqrt(shapes.cos_i**2 + draw.flat(0.55, 0.8) ** 2 * (1 - shapes.cos_i**2))
    bar_length = bar * shapes.scale_length * draw.flat(1.5, 2.1)
    bar_fraction = bar * (1 - bulge_fraction) * draw.flat(0.16, 0.28)
    bar_axis_ratio = bar * draw.flat(0.22, 0.32)
    bar_angle = bar * draw.flat(0, 180)
    n_arms = np.where(spiral, 2 + np.searchsorted([0.65, 0.85], draw.flat()), 0)
    arm_phase = np.where(bar & (n_arms == 2), bar_angle, draw.flat(0, 360)) * spiral
    arm_start = spiral * np.where(bar, 0.85 * bar_length, draw.flat(0.5, 0.8) * shapes.scale_length)
    return {
        "bulge_fraction": bulge_fraction,
        "bulge_radius": disk * bulge_radius,
        "bulge_axis_ratio": np.where(disk, bulge_axis_ratio, shapes.axis_ratio),
        "n_arms": n_arms,
        "arm_phase": arm_phase,
        "arm_start": arm_start,
        "bar_fraction": bar_fraction,
        "bar_length": bar_length,
        "bar_axis_ratio": bar_axis_ratio,
        "bar_angle": bar_angle,
    }


def _draw_flux(draw: _Draws, kinds: _Kinds, shapes: _Shapes, parts: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Draw total light; that of an inclined disk falls with its axis ratio, as dust has it."""
    of_elliptical = draw.lognormal(0.65, 0.35)
    of_disk = draw.lognormal(1.2, 0.3) * np.select([kinds.edge_on, kinds.has_bar], [1.4, 1.3], 1.0)
    brightness = np.where(kinds.elliptical, of_elliptical, of_disk)
    area = np.where(
        kinds.elliptical, shapes.r_half**2 * shapes.axis_ratio, shapes.scale_length**2 * shapes.axis_ratio**0.6
    )
    share = np.maximum(1 - parts["bulge_fraction"] - parts["bar_fraction"], 0.3)
    return 2 * np.pi * brightness * area / np.where(kinds.elliptical, 1.0, share)


def draw_neighbors(index: NDArray[np.int64], *, seed: int, size: int = REFERENCE_SIZE) -> list[list[Neighbor]]:
    """Draw faint background objects for every galaxy, outside its bright part; the first ``n_neighbors`` are used."""
    u = uniform(seed, "neighbor", torch.from_numpy(index), (MAX_NEIGHBORS, 6)).numpy().astype(np.float64)
    scale = size / REFERENCE_SIZE
    angle, radius = 2 * np.pi * u[..., 0], (14 + 18 * u[..., 1]) * scale
    columns = (
        radius * np.cos(angle),
        radius * np.sin(angle),
        1.2 * np.exp(1.8 * u[..., 2]) * scale**2,
        np.where(u[..., 3] < 0.75, 0.5, -0.3) * u[..., 3] + 0.1,
        np.where(u[..., 4] < 0.5, 0.5, 0.5 + u[..., 5]) * scale,
    )
    return [[Neighbor(*map(float, one)) for one in row] for row in np.stack(columns, -1)]

r"""A population of galaxies: what there is to draw, before any light is drawn.

A quarter are ellipticals (some of them cigars), a fifth are disks seen edge-on and the rest are disks seen from above,
of which 60 % have spiral arms and 40 % a bar. This is the balance of a training set, not of the sky.
A disk of inclination i and intrinsic flattening :math:`q_0` appears with the axis ratio (Hubble 1926, ApJ 64, 321)

.. math:: q^2 = \cos^2 i + q_0^2 \sin^2 i,

which is exact for the second moments of a transparent disk of any vertical profile.
Row i depends on the seed and its own index alone, so that a longer run begins with the shorter one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from galdiff.randomness import uniform

__all__ = ["Galaxy", "Neighbor", "draw_neighbors", "draw_population"]

REFERENCE_SIZE = 64
"""Stamp size [pixel] in which the lengths below are drawn; other sizes see the same field on another pixel scale."""

N_DRAWS = 40  # uniform numbers a galaxy; some are spare
MAX_NEIGHBORS = 3


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
    u = iter(uniform(seed, "galaxy", torch.from_numpy(index), (N_DRAWS,)).numpy().astype(np.float64).T)
    scale = size / REFERENCE_SIZE

    def flat(low: Any, high: Any) -> NDArray[Any]:
        return low + (high - low) * next(u)

    def lognormal(median: Any, sigma: float) -> NDArray[Any]:
        return median * np.exp(sigma * np.clip(ndtri(next(u)), -2, 2))

    def normal(mean: Any, sigma: float) -> NDArray[Any]:
        return mean + sigma * np.clip(ndtri(next(u)), -2.5, 2.5)

    which = next(u)
    elliptical, edge_on = which < 0.25, (which >= 0.25) & (which < 0.45)
    face_on = ~elliptical & ~edge_on
    disk = ~elliptical
    has_spiral, has_bar = face_on & (next(u) < 0.6), face_on & (next(u) < 0.4)

    # Shape. Disks seen from above are kept from steep inclinations, where neither arms nor bars can be seen.
    tilt = next(u)
    cos_i = np.where(edge_on, 0.12 * tilt, 0.5 + 0.5 * tilt**0.45)
    flattening = flat(0.11, 0.19)
    cigar = next(u) < 0.15
    axis_ratio = np.where(elliptical, np.where(cigar, flat(0.3, 0.5), flat(0.6, 1.0)), 0.0)
    axis_ratio = np.where(disk, np.sqrt(cos_i**2 + flattening**2 * (1 - cos_i**2)), axis_ratio)
    scale_length = np.where(edge_on, lognormal(4.7, 0.22), lognormal(np.where(has_spiral | has_bar, 4.8, 4.1), 0.2))
    r_half = np.where(elliptical, lognormal(5.5, 0.28) / np.sqrt(np.maximum(axis_ratio, 0.1)), 1.6783 * scale_length)

    # Parts of the disk. Arms of a barred galaxy with two arms begin at the ends of the bar.
    log_bulge = np.log(np.where(has_spiral | has_bar, 0.08, 0.16))
    bulge_fraction = np.where(disk, np.clip(np.exp(normal(log_bulge, 0.8)), 0.01, 0.6), 1.0)
    bulge_radius = scale_length * flat(0.25, 0.4) * (bulge_fraction / 0.15) ** 0.2
    bulge_axis_ratio = np.sqrt(cos_i**2 + flat(0.55, 0.8) ** 2 * (1 - cos_i**2))
    bar_length = has_bar * scale_length * flat(1.5, 2.1)
    bar_fraction = has_bar * (1 - bulge_fraction) * flat(0.16, 0.28)
    bar_axis_ratio = has_bar * flat(0.22, 0.32)
    bar_angle = has_bar * flat(0, 180)
    n_arms = np.where(has_spiral, 2 + np.searchsorted([0.65, 0.85], next(u)), 0)
    arm_phase = np.where(has_bar & (n_arms == 2), bar_angle, flat(0, 360)) * has_spiral
    arm_start = has_spiral * np.where(has_bar, 0.85 * bar_length, flat(0.5, 0.8) * scale_length)

    # Light. The observed flux of an inclined disk falls with its axis ratio, as dust has it.
    brightness = np.where(
        elliptical, lognormal(0.65, 0.35), lognormal(1.2, 0.3) * np.select([edge_on, has_bar], [1.4, 1.3], 1.0)
    )
    light = 2 * np.pi * brightness * np.where(elliptical, r_half**2 * axis_ratio, scale_length**2 * axis_ratio**0.6)
    flux = light / np.where(disk, np.maximum(1 - bulge_fraction - bar_fraction, 0.3), 1.0)

    truth = pd.DataFrame(
        {
            "kind": np.select([elliptical, edge_on], ["elliptical", "edge_on"], "disk"),
            "edge_on": edge_on,
            "has_spiral": has_spiral,
            "has_bar": has_bar,
            "flux": flux * scale**2,
            "r_half": r_half * scale,
            "axis_ratio": axis_ratio,
            "inclination": np.where(disk, np.degrees(np.arccos(cos_i)), 0.0),
            "position_angle": flat(0, 180),
            "x": flat(-0.8, 0.8) * scale,
            "y": flat(-0.8, 0.8) * scale,
            "sersic_index": np.where(elliptical, flat(2, 5), 1.0),
            "bulge_fraction": bulge_fraction,
            "bulge_radius": disk * bulge_radius * scale,
            "bulge_axis_ratio": np.where(disk, bulge_axis_ratio, axis_ratio),
            "n_arms": n_arms,
            "pitch": has_spiral * flat(12, 30),
            "handedness": np.where(has_spiral, np.where(next(u) < 0.5, 1, -1), 0),
            "arm_contrast": has_spiral * flat(0.6, 0.95),
            "arm_phase": arm_phase,
            "arm_start": arm_start * scale,
            "knot_phase": has_spiral * flat(0, 360),
            "bar_fraction": bar_fraction,
            "bar_length": bar_length * scale,
            "bar_axis_ratio": bar_axis_ratio,
            "bar_angle": bar_angle,
            "color": normal(0.27, 0.05),
            "disk_color": np.where(disk, normal(np.where(edge_on, 0.13, 0.05), 0.1), 0.0),
            "psf_fwhm": flat(1.5, 2.5) * scale,
            "noise": lognormal(0.016, 0.2),
            "n_neighbors": np.searchsorted([0.5, 0.78, 0.93], next(u)),
        },
        index=pd.Index(index, name="index"),
    )
    assert list(truth) == [f.name for f in fields(Galaxy)]
    return truth


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

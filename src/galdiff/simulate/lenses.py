"""Simulated strong lenses with and without dark substructure, after DeepLenseSim (Alexander et al. 2020, ApJ 893, 15).

A galaxy of 1e12 solar masses at z = 0.5 lenses a small disk at z = 1. Lens i of a seed has class i modulo 3: nothing
more, cold dark matter subhalos, or a vortex of axions. Models differ in the telescope:

======  ============================  =========  ==================================================
model   telescope                     pixels     values
======  ============================  =========  ==================================================
I       generic, 0.05"/pixel          150 x 150  counts of lens and sky, int64, Poisson-distributed
II      Euclid VIS, 0.101"/pixel      64 x 64    electrons/s less the sky, shot and read noise
III     HST WFC3 F160W, 0.08"/pixel   64 x 64    electrons/s less the sky, shot and read noise
======  ============================  =========  ==================================================

With ``compat`` the lenses are what DeepLenseSim's code makes, which differs from what its paper says: luminosity
distances, subhalo masses with slope -0.9, a vortex of 100 points, one sample a pixel; Model I draws Poisson counts
twice, over a sky of mean zero cut off below; Model II is free of noise and doubled, with every deflection weakened to
0.634; Model III cannot be made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from galdiff.errors import DataError
from galdiff.randomness import uniform
from galdiff.simulate.lens_light import Galaxy, Source, blur_and_bin, pixel_grid, trace
from galdiff.simulate.lensing import caustics_functions, distances, restated
from galdiff.simulate.substructure import (
    VORTEX_MASS,
    PointMasses,
    Substructure,
    TruncatedHalos,
    VortexLine,
    draw_subhalos,
    draw_vortex,
)
from galdiff.simulate.telescopes import TELESCOPES, Telescope

__all__ = ["CLASSES", "draw_lenses", "simulate_lenses"]

CLASSES = ("no_sub", "cdm", "axion")
"""Substructure of the lenses, in the order of their indices."""
LENS_MASS = 1e12  # [solar mass]
SOURCE_OFFSET = 0.35  # [arcsec]
SOURCE_MAGNITUDE = 20.0
SOURCE_AMPLITUDE = 20.0  # of Model I at the half-light radius [flux/arcsec^2]
LOG_EXPOSURE = (3.0, 3.5)  # of Model I


def draw_lenses(
    n: int, *, seed: int, model: str = "I", compat: bool = False, subhalo: str = "point", start: int = 0
) -> pd.DataFrame:
    """Draw what lenses are, without their images.

    Parameters
    ----------
    n, seed, model, compat, subhalo, start
        As in `simulate_lenses`.

    Returns
    -------
    DataFrame (n rows)
        ``index``, ``class``, ``theta_e`` [arcsec], ``source_x``, ``source_y`` [arcsec], ``exposure`` [s], ``sky`` (mean
        counts a pixel), ``subhalos`` (how many), ``subhalo_mass`` (their sum) [solar mass], ``axion_mass`` [eV],
        ``vortex_half_length`` [arcsec] and ``vortex_angle`` [radian], NaN where there is none.

    Raises
    ------
    DataError
        For a model or an option that there is not.
    """
    _refuse(n, start, model, compat, subhalo)
    telescope, index = TELESCOPES[model], torch.arange(start, start + n)
    label = index % len(CLASSES)
    low, high = LOG_EXPOSURE
    time = 10 ** (low + (high - low) * uniform(seed, "exposure", index).double())
    if telescope.zero_point is not None:
        time = torch.full_like(time, telescope.exposure * telescope.exposures)
    center = SOURCE_OFFSET * (2 * uniform(seed, "source", index, (2,)).double() - 1)
    _, _, mass = draw_subhalos(index, seed=seed, compat=compat)
    mass = mass * (label == CLASSES.index("cdm"))[:, None]
    axion = label == CLASSES.index("axion")
    vortex = [torch.where(axion, t, torch.nan) for t in draw_vortex(index, seed=seed)]
    columns: dict[str, Any] = {
        "index": index,
        "class": np.asarray(CLASSES)[label],
        "theta_e": torch.full_like(time, _strength(telescope, compat) * _galaxy(compat).einstein_radius),
        "source_x": center[:, 0],
        "source_y": center[:, 1],
        "exposure": time,
        "sky": telescope.sky_counts(time) * (not compat),
        "subhalos": (mass > 0).sum(1),
        "subhalo_mass": mass.sum(1),
        "axion_mass": vortex[0],
        "vortex_half_length": vortex[1],
        "vortex_angle": vortex[2],
    }
    return pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})


def simulate_lenses(
    n: int,
    *,
    seed: int,
    model: str = "I",
    compat: bool = False,
    subhalo: str = "point",
    start: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[Any], pd.DataFrame]:
    """Simulate lenses.

    Lens i of a seed is the same whatever ``n`` and ``start`` are.

    Parameters
    ----------
    n : int
        Number of lenses.
    seed : int
        Seed of the simulation.
    model : {"I", "II", "III"}
        The telescope.
    compat : bool
        What DeepLenseSim's code makes, its mistakes included.
    subhalo : {"point", "nfw"}
        Cold subhalos as point masses, or as truncated NFW halos.
    start : int
        Index of the first lens.
    device : torch.device or str
        Where.

    Returns
    -------
    images : array (n, size, size)
        int64 counts of Model I, float64 electrons/s of the others; rows along y, columns along x.
    truth : DataFrame (n rows)
        As `draw_lenses` gives it.

    Raises
    ------
    DataError
        For a model or an option that there is not.
    ResourceError
        Where caustics is not installed.
    """
    truth = draw_lenses(n, seed=seed, model=model, compat=compat, subhalo=subhalo, start=start)
    caustics_functions()
    telescope, drawn = TELESCOPES[model], truth[["source_x", "source_y", "exposure"]].to_numpy(np.float64)
    images = np.empty((n, telescope.size, telescope.size), dtype=np.int64 if model == "I" else np.float64)
    # Small blocks stay in a processor's cache; a GPU wants large ones.
    for rows in _blocks(n, start, 64 if torch.device(device).type == "cuda" else 2):
        index = torch.from_numpy(rows + start).to(device)
        center, time = torch.from_numpy(drawn[rows]).to(device).split([2, 1], dim=1)
        substructure = _substructure(CLASSES[(rows[0] + start) % len(CLASSES)], index, seed, compat, subhalo)
        light = _light(telescope, center, substructure, compat)
        observe = telescope.observe_compat if compat else telescope.observe
        images[rows] = observe(light, time[:, 0], seed=seed, index=index).cpu().numpy()
    return images, truth


def _refuse(n: int, start: int, model: str, compat: bool, subhalo: str) -> None:
    if n < 0 or start < 0:
        raise DataError(f"{n} lenses from {start} on cannot be simulated", remedy="Use numbers of 0 or more")
    if model not in TELESCOPES:
        raise DataError(f"there is no model {model}", remedy=f"Use {', '.join(TELESCOPES)}")
    if subhalo not in ("point", "nfw"):
        raise DataError(f"there are no subhalos '{subhalo}'", remedy="Use point or nfw")
    if compat and model == "III":
        raise DataError("the authors' code cannot make Model III", remedy="Leave compat out")
    if compat and subhalo != "point":
        raise DataError("the authors' subhalos are point masses", remedy="Leave compat out, or use point")


def _blocks(n: int, start: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Rows of one class at a time, which share the kind of their substructure."""
    for label in range(len(CLASSES)):
        rows = np.arange((label - start) % len(CLASSES), n, len(CLASSES))
        yield from (rows[first : first + size] for first in range(0, len(rows), size))


def _galaxy(compat: bool) -> Galaxy:
    return Galaxy(distances(compat=compat).einstein_radius(LENS_MASS))


def _strength(telescope: Telescope, compat: bool) -> float:
    return restated() if compat and telescope.zero_point is not None else 1.0


def _substructure(label: str, index: Tensor, seed: int, compat: bool, subhalo: str) -> Substructure | None:
    geometry, device = distances(compat=compat), index.device
    if label == "cdm":
        x, y, mass = draw_subhalos(index, seed=seed, compat=compat, device=device)
        if subhalo == "nfw":
            return TruncatedHalos(x, y, mass, geometry)
        return PointMasses(x, y, geometry.radius_unit * mass.sqrt())
    if label == "axion":
        _, half_length, angle = draw_vortex(index, seed=seed, device=device)
        radius = torch.full_like(angle, geometry.einstein_radius(VORTEX_MASS))
        line = VortexLine(radius, half_length, angle)
        return line.points() if compat else line
    return None


def _light(telescope: Telescope, center: Tensor, substructure: Substructure | None, compat: bool) -> Tensor:
    """Light of lenses after the PSF ``(n, size, size)`` [flux/pixel]."""
    source = Source(SOURCE_AMPLITUDE, compat=compat)
    if telescope.zero_point is not None:
        source = source.with_flux(telescope.rate(SOURCE_MAGNITUDE))
    oversampling = 1 if compat else telescope.oversampling
    x, y = pixel_grid(telescope.size, telescope.scale, oversampling, center.device)
    light = trace(
        x, y, _galaxy(compat), source, center, substructure=substructure, strength=_strength(telescope, compat)
    )
    light = blur_and_bin(light, telescope.fwhm / telescope.scale * oversampling, oversampling)
    # The transforms leave rounding errors of either sign where there is no light.
    return light.clamp(min=0) * telescope.scale**2

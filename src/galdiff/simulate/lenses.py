"""Simulated strong lenses with and without dark substructure, after DeepLenseSim (Alexander et al. 2020, ApJ 893, 15).

A galaxy of 1e12 solar masses at z = 0.5 lenses a small disk at z = 1. Lens i of a seed has class i modulo 3: none, cold
dark matter subhalos, or a vortex of axions. Models differ in the telescope:

======  ==========================  ========  ======================================================
model   telescope                   pixels    values
======  ==========================  ========  ======================================================
I       generic, 0.05"/pixel        150 x 150  counts of sky and lens, int64, Poisson-distributed
II      Euclid VIS, 0.101"/pixel    64 x 64   electrons/s less the sky, with shot and read noise
III     HST WFC3 F160W, 0.08"/pixel  64 x 64   electrons/s less the sky, with shot and read noise
======  ==========================  ========  ======================================================

With ``compat`` the lenses are what DeepLenseSim's code makes, which differs from what its paper says: luminosity
distances, subhalo masses with slope -0.9, a vortex of 100 points, one sample a pixel; Model I draws Poisson counts
twice and has a sky without a mean, Model II is free of noise, doubled and has every deflection weakened to 0.634,
and Model III cannot be made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from galdiff.errors import DataError
from galdiff.randomness import normal, uniform
from galdiff.simulate.counts import poisson
from galdiff.simulate.lens_light import Galaxy, Source, blur_and_bin, pixel_grid, trace
from galdiff.simulate.lensing import distances, restated
from galdiff.simulate.substructure import (
    VORTEX_MASS,
    PointMasses,
    Substructure,
    TruncatedHalos,
    VortexLine,
    draw_subhalos,
    draw_vortex,
)

__all__ = ["CLASSES", "TELESCOPES", "Telescope", "simulate_lenses"]

CLASSES = ("no_sub", "cdm", "axion")
"""Substructure of the lenses, in the order of their indices."""
LENS_MASS = 1e12  # [solar mass]
SOURCE_OFFSET = 0.35  # [arcsec]
SOURCE_MAGNITUDE = 20.0


@dataclass(frozen=True)
class Telescope:
    """What a model is seen with.

    Attributes
    ----------
    size : int
        Side of the stamps [pixel].
    scale : float
        Pixel scale [arcsec/pixel].
    fwhm : float
        Full width at half maximum of the Gaussian PSF [arcsec].
    oversampling : int
        Samples a pixel, an axis.
    zero_point : float, optional
        AB magnitude of one electron a second; None for the generic telescope.
    sky : float
        Brightness of the sky [mag/arcsec^2].
    read_noise : float
        Of an exposure [electron].
    exposure : float
        Time of an exposure [s].
    exposures : int
        How many are added.
    """

    size: int
    scale: float
    fwhm: float
    oversampling: int
    zero_point: float | None = None
    sky: float = 0.0
    read_noise: float = 0.0
    exposure: float = 0.0
    exposures: int = 0

    def rate(self, magnitude: float) -> float:
        """Electrons a second from a magnitude."""
        assert self.zero_point is not None  # the generic telescope has no magnitudes
        return float(10 ** (-0.4 * (magnitude - self.zero_point)))


TELESCOPES = {
    "I": Telescope(150, 0.05, 0.087, 3),
    # Euclid Collaboration: Mellier et al. 2025 (A&A 697, A1) and Cropper et al. 2025 (A&A 697, A2).
    "II": Telescope(64, 0.101, 0.16, 4, 25.72, 22.3, 4.2, 566.0, 4),
    # WFC3 Instrument Handbook; drizzled pixels, one visit of two orbits.
    "III": Telescope(64, 0.08, 0.15, 3, 25.96, 22.3, 4.0, 5400.0, 1),
}
"""What every model is seen with."""

_AMPLITUDE = 20.0  # of Model I at the half-light radius [flux/arcsec^2]
_BACKGROUND = 0.01  # of Model I: noise of the sky [flux/pixel]
_LOG_EXPOSURE = (3.0, 3.5)  # of Model I


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
        ``index``, ``class``, ``theta_e`` [arcsec], ``source_x``, ``source_y`` [arcsec], ``exposure``, ``sky`` (mean counts
        a pixel), ``subhalos`` (how many), ``subhalo_mass`` (their sum) [solar mass], ``axion_mass`` [eV],
        ``vortex_half_length`` [arcsec] and ``vortex_angle`` [radian], NaN where there is none.

    Raises
    ------
    DataError
        For a model or an option that there is not.
    ResourceError
        Where caustics is not installed.
    """
    _refuse(n, start, model, compat, subhalo)
    telescope = TELESCOPES[model]
    images = np.empty((n, telescope.size, telescope.size), dtype=np.int64 if model == "I" else np.float64)
    truths = []
    for rows in _blocks(n, start, 64 if torch.device(device).type == "cuda" else 8):
        index = torch.from_numpy(rows + start)
        light, truth = _light(index, seed, telescope, compat, subhalo, device)
        images[rows] = _observe(light, index, seed, telescope, truth, compat).cpu().numpy()
        truths.append(truth)
    if not truths:
        return images, pd.DataFrame()
    return images, pd.concat(truths).sort_values("index", ignore_index=True)


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
        rows = np.arange(n)[(np.arange(n) + start) % len(CLASSES) == label]
        yield from (rows[first : first + size] for first in range(0, len(rows), size))


def _light(
    index: Tensor, seed: int, telescope: Telescope, compat: bool, subhalo: str, device: torch.device | str
) -> tuple[Tensor, pd.DataFrame]:
    """Light of lenses of one class after the PSF ``(n, size, size)`` [flux/pixel], and what was drawn."""
    geometry, label = distances(compat=compat), CLASSES[int(index[0]) % len(CLASSES)]
    galaxy = Galaxy(geometry.einstein_radius(LENS_MASS))
    source = Source(_AMPLITUDE, compat=compat)
    if telescope.zero_point is not None:
        source = source.with_flux(telescope.rate(SOURCE_MAGNITUDE))
    strength = restated() if compat and telescope.zero_point is not None else 1.0
    center = (2 * uniform(seed, "source", index, (2,), device).double() - 1) * SOURCE_OFFSET
    low, high = _LOG_EXPOSURE
    exposure = 10 ** (low + (high - low) * uniform(seed, "exposure", index).double().numpy())
    if telescope.zero_point is not None:
        exposure = np.full(len(index), telescope.exposure * telescope.exposures)
    columns: dict[str, Any] = {
        "index": index.numpy(),
        "class": label,
        "theta_e": strength * galaxy.einstein_radius,
        "source_x": center[:, 0].cpu().numpy(),
        "source_y": center[:, 1].cpu().numpy(),
        "exposure": exposure,
        "sky": 0.0 if compat else _sky(telescope, exposure),
        "subhalos": 0,
        "subhalo_mass": 0.0,
        "axion_mass": np.nan,
        "vortex_half_length": np.nan,
        "vortex_angle": np.nan,
    }
    substructure: Substructure | None = None
    if label == "cdm":
        x, y, mass = draw_subhalos(index, seed=seed, compat=compat, device=device)
        columns |= {"subhalos": (mass > 0).sum(1).cpu().numpy(), "subhalo_mass": mass.sum(1).cpu().numpy()}
        points = PointMasses(x, y, geometry.radius_unit * mass.sqrt())
        substructure = TruncatedHalos(x, y, mass, geometry) if subhalo == "nfw" else points
    elif label == "axion":
        drawn = draw_vortex(index, seed=seed, device=device)
        names = ("axion_mass", "vortex_half_length", "vortex_angle")
        columns |= {name: t.cpu().numpy() for name, t in zip(names, drawn, strict=True)}
        line = VortexLine(torch.full_like(drawn[1], geometry.einstein_radius(VORTEX_MASS)), *drawn[1:])
        substructure = line.points() if compat else line
    oversampling = 1 if compat else telescope.oversampling
    grid = pixel_grid(telescope.size, telescope.scale, oversampling, device)
    light = trace(*grid, galaxy, source, center, substructure=substructure, strength=strength)
    light = blur_and_bin(light, telescope.fwhm / telescope.scale * oversampling, oversampling)
    return light.clamp(min=0) * telescope.scale**2, pd.DataFrame(columns)


def _sky(telescope: Telescope, exposure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean counts of the sky in a pixel; those of Model I have the noise that the model states."""
    if telescope.zero_point is None:
        return (_BACKGROUND * exposure) ** 2
    return telescope.rate(telescope.sky) * telescope.scale**2 * exposure


def _observe(
    light: Tensor, index: Tensor, seed: int, telescope: Telescope, truth: pd.DataFrame, compat: bool
) -> Tensor:
    """Take the pictures."""
    time, sky = (torch.from_numpy(truth[c].to_numpy(copy=True)).to(light)[:, None, None] for c in ("exposure", "sky"))
    if telescope.zero_point is not None and compat:
        return 2 * light
    counts = poisson(light * time + sky, seed=seed, stream="photons", index=index)
    if telescope.zero_point is None and not compat:
        return counts
    noise = normal(seed, "noise", index, light.shape[1:], light.device).double()
    if compat:
        again = (counts + _BACKGROUND * time * noise).clamp(min=0)
        return poisson(again, seed=seed, stream="photons/again", index=index)
    return (counts - sky + telescope.read_noise * telescope.exposures**0.5 * noise) / time

"""Simulated survey cutouts of galaxies, with the truth they were drawn from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from galdiff.errors import DataError
from galdiff.randomness import normal
from galdiff.simulate.camera import SKY_LEVEL, blur, lupton, sky_noise
from galdiff.simulate.light import surface_brightness
from galdiff.simulate.population import REFERENCE_SIZE, Galaxy, draw_neighbors, draw_population

__all__ = ["BANDS", "simulate_galaxies"]

BANDS = ("red", "green", "blue")
"""Names of the simulated bands."""
NOISE_SMOOTHING = 0.7  # [pixel] of a stamp of the reference size
BLOCK = 64


def simulate_galaxies(
    n: int, *, seed: int, size: int = REFERENCE_SIZE, start: int = 0, workers: int = 2
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Simulate color cutouts of ellipticals, edge-on disks, spirals and barred galaxies.

    Galaxy i of a seed is the same whatever ``n``, ``start`` and ``workers`` are.

    Parameters
    ----------
    n : int
        Number of galaxies.
    seed : int
        Seed of the simulation.
    size : int
        Side of the cutouts [pixel], even; the field of view stays the same.
    start : int
        Index of the first galaxy.
    workers : int
        Threads.

    Returns
    -------
    images : float32 array (n, 3, size, size)
        Red, green, blue in display units [0, 1], before rounding to 8 bits.
    truth : DataFrame (n rows)
        What was drawn: the fields of `galdiff.simulate.population.Galaxy`, indexed by galaxy.

    Raises
    ------
    DataError
        For a size that is odd or below 16, or a number below 0.
    """
    if size < 16 or size % 2:
        raise DataError(f"a cutout of {size} pixels cannot be simulated", remedy="Use an even size of 16 or more")
    if n < 0 or start < 0:
        raise DataError(f"{n} galaxies from {start} on cannot be simulated", remedy="Use numbers of 0 or more")
    index = np.arange(start, start + n)
    truth = draw_population(index, seed=seed, size=size)
    galaxies = [Galaxy(**row) for row in truth.to_dict("records")]
    images = np.empty((n, len(BANDS), size, size), dtype=np.float32)

    def draw(first: int) -> None:
        rows = slice(first, min(first + BLOCK, n))
        neighbors = draw_neighbors(index[rows], seed=seed, size=size)
        white = normal(seed, "sky", torch.from_numpy(index[rows]), (1 + len(BANDS), size, size)).numpy()
        for i, galaxy in enumerate(galaxies[rows]):
            scene = surface_brightness(galaxy, size, neighbors[i][: galaxy.n_neighbors])
            noise = sky_noise(white[i], NOISE_SMOOTHING * size / REFERENCE_SIZE)
            light = blur(scene, galaxy.psf_fwhm) + np.float32(galaxy.noise) * noise + SKY_LEVEL[:, None, None]
            images[first + i] = lupton(light)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        list(pool.map(draw, range(0, n, BLOCK)))
    return images, truth

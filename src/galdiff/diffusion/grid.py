"""Grids of times for samplers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from galdiff.diffusion.schedule import Schedule
from galdiff.errors import GaldiffError

__all__ = ["GRIDS", "time_grid"]

GRIDS = ("uniform", "karras", "logsnr")
"""Grids by the name that a catalog file uses."""
_CLEAN = 1e-4  # last level before zero where the schedule itself reaches zero


def time_grid(schedule: Schedule, steps: int, grid: str = "uniform", *, shift: float = 1.0, rho: float = 7.0) -> Tensor:
    """Return ``steps + 1`` descending times from 1, float64; the last is 0.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    steps : int
        Number of steps.
    grid : {"uniform", "karras", "logsnr"}
        Uniform in t, which is the "trailing" spacing of a schedule of many steps (Lin et al. 2023, Table 2); uniform in
        sigma^(1/rho) as in Karras et al. 2022, Equation 5, but for ends a ten-thousandth of the times inside of 0 and
        1, where some schedules have no finite ratio (EDM's levels move by a thousandth); uniform in log-SNR.
    shift : float
        For "uniform" alone, t -> shift t / (1 + (shift - 1) t): more steps at high noise above 1 (Esser et al. 2024).
    rho : float
        For "karras" alone: 1 is uniform in the ratio of noise to signal, larger ones have more steps at low noise.

    Raises
    ------
    GaldiffError
        For an unknown grid, no step, or a shift or rho that is not positive or of another grid.
    """
    if steps < 1:
        raise GaldiffError(f"{steps} steps are not enough", remedy="Ask for one or more")
    if grid not in GRIDS:
        raise GaldiffError(f"unknown grid '{grid}'", remedy=f"Known: {', '.join(GRIDS)}")
    if not 0 < shift < math.inf or (shift != 1 and grid != "uniform"):
        raise GaldiffError(f"a shift of {shift:g} is none of the grid '{grid}'", remedy="Shift the grid uniform")
    if not 0 < rho < math.inf or (rho != 7 and grid != "karras"):
        raise GaldiffError(f"a rho of {rho:g} is none of the grid '{grid}'", remedy="It bends the grid karras")
    if grid == "uniform":
        u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return shift * u / (1 + (shift - 1) * u)
    ends = torch.tensor([1 - _CLEAN, _CLEAN], dtype=torch.float64)
    high, low = schedule.log_snr(ends).neg().div(2).exp()  # ratio of noise to signal
    inner = torch.linspace(1, 0, steps, dtype=torch.float64)
    if grid == "karras":
        ratio = (low ** (1 / rho) + inner * (high ** (1 / rho) - low ** (1 / rho))) ** rho
    else:
        ratio = torch.exp(low.log() + inner * (high.log() - low.log()))
    t = schedule.time(-2 * ratio.log())
    t[0] = 1.0
    return torch.cat([t, t.new_zeros(1)])

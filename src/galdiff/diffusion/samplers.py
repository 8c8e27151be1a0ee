"""Samplers by name."""

from __future__ import annotations

from typing import Any

from galdiff.diffusion.ode import DPMSolverPP2M, Euler, Heun, UniPC
from galdiff.diffusion.sampler import Sampler
from galdiff.diffusion.sde import DDIM, DDPM, SDEDPMSolverPP2M
from galdiff.errors import GaldiffError

__all__ = ["SAMPLERS", "build_sampler"]

SAMPLERS: dict[str, type[Sampler]] = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "dpmpp_2m": DPMSolverPP2M,
    "euler": Euler,
    "heun": Heun,
    "sde_dpmpp_2m": SDEDPMSolverPP2M,
    "unipc": UniPC,
}
"""Samplers by the name that a catalog file uses."""


def build_sampler(
    name: str, denoiser: Any, *, steps: int | None = None, grid: str | None = None, **options: Any
) -> Sampler:
    """Build a sampler by name.

    Parameters
    ----------
    name : str
        A key of `SAMPLERS`.
    denoiser : Denoiser
        What is sampled.
    steps : int, optional
        Number of steps; by default as many as the sampler wants.
    grid : str, optional
        See `time_grid`; by default Karras et al.'s where the noise grows without bound, else uniform in time.
    **options
        Of the sampler, ``eta`` and ``noise_scale``, and of the grid, ``shift`` and ``rho``.

    Raises
    ------
    GaldiffError
        For an unknown name, or an option that the sampler does not have.
    """
    if name not in SAMPLERS:
        raise GaldiffError(f"unknown sampler '{name}'", remedy=f"Known: {', '.join(SAMPLERS)}")
    stray = [option for option in options if option not in ("shift", "rho", *SAMPLERS[name].OPTIONS)]
    if stray:
        takers = [other for other, sampler in SAMPLERS.items() if stray[0] in sampler.OPTIONS]
        remedy = f"These have: {', '.join(takers)}" if takers else None
        raise GaldiffError(f"sampler '{name}' has no option '{stray[0]}'", remedy=remedy)
    chosen = grid or ("karras" if denoiser.schedule.family == "exploding" else "uniform")
    return SAMPLERS[name](denoiser, steps=steps, grid=chosen, **options)

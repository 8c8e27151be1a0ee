"""The diffusion core: schedule, denoiser, objective, sampler, guidance."""

from galdiff.diffusion.denoiser import Denoiser
from galdiff.diffusion.guidance import ClassifierFree
from galdiff.diffusion.objective import Loss, Objective
from galdiff.diffusion.sampler import DPMSolverPP2M, Euler, Heun, Sampler, build_sampler, time_grid
from galdiff.diffusion.schedule import EDM, RectifiedFlow, Schedule

__all__ = [
    "EDM",
    "ClassifierFree",
    "DPMSolverPP2M",
    "Denoiser",
    "Euler",
    "Heun",
    "Loss",
    "Objective",
    "RectifiedFlow",
    "Sampler",
    "Schedule",
    "build_sampler",
    "time_grid",
]

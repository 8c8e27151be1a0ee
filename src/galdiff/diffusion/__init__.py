"""The diffusion core: schedule, prediction, denoiser, objective, sampler, guidance."""

from galdiff.diffusion.denoiser import Denoiser
from galdiff.diffusion.grid import time_grid
from galdiff.diffusion.guidance import Autoguidance, ClassifierFree, FieldGuidance, Floor, Guidance
from galdiff.diffusion.objective import Loss, Objective
from galdiff.diffusion.ode import DPMSolverPP2M, Euler, Heun, UniPC
from galdiff.diffusion.sampler import Sampler
from galdiff.diffusion.samplers import build_sampler
from galdiff.diffusion.schedule import EDM, Cosine, Linear, RectifiedFlow, Schedule, Shifted, Sigmoid
from galdiff.diffusion.sde import DDIM, DDPM, SDEDPMSolverPP2M

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "Autoguidance",
    "ClassifierFree",
    "Cosine",
    "DPMSolverPP2M",
    "Denoiser",
    "Euler",
    "FieldGuidance",
    "Floor",
    "Guidance",
    "Heun",
    "Linear",
    "Loss",
    "Objective",
    "RectifiedFlow",
    "SDEDPMSolverPP2M",
    "Sampler",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "UniPC",
    "build_sampler",
    "time_grid",
]

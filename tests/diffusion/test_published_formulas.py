"""Weights, preconditioning and guidance against the formulas as their papers print them."""

import math

import pytest
import torch
from analytic import Sloped, name_of
from test_guidance import Shift
from test_objective import pairs
from torch import nn

from galdiff.diffusion import (
    EDM,
    ClassifierFree,
    Cosine,
    Denoiser,
    Linear,
    Objective,
    RectifiedFlow,
    Schedule,
    Sigmoid,
    build_sampler,
)
from galdiff.errors import GaldiffError
from galdiff.randomness import Draws, normal

T = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.97], dtype=torch.float64)


class Nothing(nn.Module):
    """A network that gives zero, and remembers what it saw."""

    def forward(self, x, noise_level, condition=None):
        self.seen, self.level = x, noise_level
        return torch.zeros_like(x)


def weights(schedule, prediction, weighting, std=1.0):
    """The factor that the objective puts on the squared error of the network's output."""
    x, draws = torch.randn(5, 3, dtype=torch.float64), Draws(0, range(5))
    denoiser = Denoiser(Nothing(), schedule, prediction=prediction, data_std=std)
    weighted, plain = (
        Objective(weighting=kind, gamma=3.0)(denoiser, x, draws, t=T).per_sample.double()
        for kind in (weighting, "uniform")
    )
    return weighted / plain


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [(Linear(), "eps"), *((schedule, p) for schedule in (Cosine(), Linear(), Sigmoid()) for p in ("x0", "v"))],
    ids=lambda value: value if isinstance(value, str) else name_of(value),
)
def test_min_snr_is_that_of_hang(schedule, prediction):
    """Hang et al. 2023, Section 3.4: the weights of the three predictions of a variance-preserving schedule."""
    snr = (schedule.alpha(T) / schedule.sigma(T)) ** 2
    printed = snr.clamp(max=3.0) / {"x0": torch.ones(5).double(), "eps": snr, "v": snr + 1}[prediction]
    torch.testing.assert_close(weights(schedule, prediction, "min_snr"), printed, rtol=1e-5, atol=0)


def test_edm_is_table_1_of_karras():
    """Karras et al. 2022: skip, output and input scales, noise level and weights with data of deviation 0.5."""
    network, s = Nothing(), 0.5
    denoiser = Denoiser(network, EDM(), prediction="edm", data_std=s)
    sigma = EDM().sigma(T)
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, T), (s**2 / (sigma**2 + s**2))[:, None] * x)
    torch.testing.assert_close(network.seen, x / (sigma**2 + s**2).sqrt()[:, None])
    torch.testing.assert_close(network.level, sigma.log() / 4)
    network.forward = lambda x, level, condition=None: torch.ones_like(x)
    output = sigma * s / (sigma**2 + s**2).sqrt()
    torch.testing.assert_close(denoiser(torch.zeros_like(x), T), output[:, None].expand_as(x))
    printed = (sigma**2 + s**2) / (sigma * s) ** 2  # of the denoiser's error; of the network's it is one
    torch.testing.assert_close(weights(EDM(), "x0", "edm", s), printed, rtol=1e-5, atol=0)
    torch.testing.assert_close(weights(EDM(), "edm", "edm", s), torch.ones(5).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(weights(EDM(), "eps", "edm", s), printed * sigma**2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shift", [1.0, 0.3, 4.0])
def test_zero_terminal_snr_is_zero(shift):
    """Lin et al. 2023: no signal at the end, to the last bit; the noise predicts nothing there, the velocity does."""
    schedule = Schedule.from_dict({"kind": "linear", "zero_terminal": True, "shift": shift})
    for kind in (torch.float32, torch.float64):
        assert schedule.alpha(torch.ones((), dtype=kind)) < 1e-15
        assert schedule.sigma(torch.ones((), dtype=kind)) == 1
    with pytest.raises(GaldiffError, match="no signal is left"):
        Denoiser(Sloped(), schedule, prediction="eps")
    drawn = build_sampler("ddim", Denoiser(Sloped(), schedule, prediction="v"), steps=5)(torch.randn(4, 3))
    assert drawn.isfinite().all()


@pytest.mark.parametrize("tau", [0.3, 0.7, 1.0, 1.1, 2.5])
@pytest.mark.parametrize(("start", "end"), [(-3, 3), (0, 3), (-3, 0.1), (-2.7, 1.9), (-6, 0.7)])
def test_a_sigmoid_ends_empty_whatever_part_it_is_of(start, end, tau):
    """Rounding leaves 1e-8 of the amplitude of some: the noise would be divided by it."""
    with pytest.raises(GaldiffError, match="no signal is left"):
        Denoiser(Sloped(), Sigmoid(start=start, end=end, tau=tau), prediction="eps")


@pairs
def test_guidance_is_that_of_ho_and_of_lin_whatever_is_predicted(prediction, schedule):
    """Of the posterior mean; Lin et al. 2023, Equations 15 and 16."""
    denoiser = Denoiser(Sloped(), schedule, prediction=prediction)
    x, t = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    asked = Shift(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    positive, negative = denoiser(x, t, asked), denoiser(x, t, asked.null())
    for weight, phi in [(1, 0.0), (0, 0.0), (1, 0.7), (0, 0.7), (2.5, 0.0), (7.5, 0.7), (0.4, 1.0)]:
        guided = negative + weight * (positive - negative)
        rescaled = guided * positive.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
        expected = phi * rescaled + (1 - phi) * guided
        found = ClassifierFree(denoiser, weight, rescale=phi)(x, t, asked)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [64**2, 128**2, 300**2])
def test_a_resolution_shift_is_equation_23_of_esser(n):
    """The time t_m at which m pixels are as uncertain as n are at t_n."""
    m = 256**2
    t_n = torch.linspace(0, 1, 11, dtype=torch.float64)
    root = math.sqrt(m / n)
    t_m = root * t_n / (1 + (root - 1) * t_n)
    shifted = Schedule.from_dict({"kind": "rectified_flow", "shift": root})
    torch.testing.assert_close(shifted.sigma(t_n), t_m)
    torch.testing.assert_close(shifted.alpha(t_n), 1 - t_m)
    # As uncertain: the mean of the pixels of a constant image has a relative error sigma / (alpha sqrt(pixels)).
    inner = slice(1, -1)
    uncertain = [s.sigma(t_n) / s.alpha(t_n) / math.sqrt(k) for s, k in ((shifted, m), (RectifiedFlow(), n))]
    torch.testing.assert_close(uncertain[0][inner], uncertain[1][inner])


@pytest.mark.parametrize("scale", [1.0, 0.95, 0.0])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=name_of)
def test_every_step_of_ddpm_is_that_of_ho(schedule, scale):
    """Ho et al. 2020, Equations 6 and 7, with c times the noise: the survival of the signal's power is theirs of t."""
    denoiser = Denoiser(Sloped(), schedule, prediction="v")
    sampler = build_sampler("ddpm", denoiser, steps=8, noise_scale=scale)
    seeds, steps = torch.tensor([3, 17, 5]), []
    start = torch.randn(3, 4, dtype=torch.float64)
    sampler(start, seeds=seeds, callback=lambda i, x: steps.append(x))
    x = start * schedule.sigma(sampler.times[0])
    for i, found in enumerate(steps[:-1]):
        t, s = sampler.times[i], sampler.times[i + 1]
        here, there = schedule.alpha(t) ** 2, schedule.alpha(s) ** 2
        alpha = here / there
        data = denoiser(x, t)
        mean = there.sqrt() * (1 - alpha) / (1 - here) * data + alpha.sqrt() * (1 - there) / (1 - here) * x
        std = ((1 - there) / (1 - here) * (1 - alpha)).sqrt()
        x = mean + scale * std * normal(0, f"step {i}", seeds, (4,)).double()
        torch.testing.assert_close(found, x)
        x = found
    torch.testing.assert_close(steps[-1], denoiser(x, sampler.times[-2]))

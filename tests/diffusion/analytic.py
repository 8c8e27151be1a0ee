"""Denoisers whose every property is known, and schedules to test them on."""

import torch
from torch import Tensor, nn

from galdiff.diffusion import EDM, Cosine, Linear, RectifiedFlow, Schedule, Shifted, Sigmoid

SCHEDULES = [
    RectifiedFlow(),
    EDM(),
    Cosine(),
    Sigmoid(),
    Linear(),
    Linear(zero_terminal=True),
    Shifted(RectifiedFlow(), 3.0),
    Shifted(Cosine(), 0.5),
]


def name_of(schedule):
    return "-".join(map(str, schedule.to_dict().values()))


class Gaussian(nn.Module):
    """Exact denoiser of N(mean, diag(variance))."""

    def __init__(self, schedule: Schedule, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.schedule, self.mean, self.variance = schedule, mean, variance

    def forward(self, x_t: Tensor, t: Tensor, condition: object = None) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def exact(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Solve the probability-flow ODE: the standardised variable is constant along it."""
        a, b = (self.schedule.alpha(u) for u in (t, s))
        std = [
            (f(u) ** 2 * self.variance + self.schedule.sigma(u) ** 2).sqrt()
            for f, u in ((self.schedule.alpha, t), (self.schedule.alpha, s))
        ]
        return b * self.mean + std[1] / std[0] * (x_t - a * self.mean)


class Mixture(nn.Module):
    """Exact denoiser of two narrow normals at -1 and 1 with weights 0.3 and 0.7."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, condition: object = None) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        variance = alpha**2 * 0.01 + sigma**2
        centers = torch.tensor([-1.0, 1.0], dtype=x_t.dtype)
        logits = -((x_t[..., None] - alpha * centers) ** 2) / (2 * variance) + torch.tensor([0.3, 0.7]).log()
        each = centers + alpha * 0.01 / variance * (x_t[..., None] - alpha * centers)
        return (logits.softmax(-1) * each).sum(-1)


class Sloped(nn.Module):
    """A backbone whose output depends on everything it is given."""

    def forward(self, x, noise_level, condition=None):
        shift = 0.0 if condition is None else condition.value.view(-1, *[1] * (x.ndim - 1))
        return 0.3 * x + noise_level.view(-1, *[1] * (x.ndim - 1)) + shift

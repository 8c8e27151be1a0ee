"""The diffusion core against analytic denoisers and against diffusers."""

import math

import diffusers
import pytest
import torch
from torch import Tensor, nn

from galdiff.diffusion import (
    EDM,
    ClassifierFree,
    Denoiser,
    DPMSolverPP2M,
    Euler,
    Heun,
    Objective,
    RectifiedFlow,
    Schedule,
    build_sampler,
    time_grid,
)
from galdiff.errors import GaldiffError
from galdiff.randomness import Draws, normal

SCHEDULES = [RectifiedFlow(), EDM()]
SAMPLERS = [Euler, Heun, DPMSolverPP2M]


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


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
class TestSchedules:
    def test_time_inverts_log_snr(self, schedule):
        t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
        torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t)

    def test_log_snr_falls(self, schedule):
        assert (schedule.log_snr(torch.linspace(0.001, 0.999, 100)).diff() < 0).all()

    def test_description_round_trip(self, schedule):
        again = Schedule.from_dict(schedule.to_dict())
        assert again.to_dict() == schedule.to_dict()

    @pytest.mark.parametrize("grid", ["uniform", "karras", "logsnr"])
    def test_grids_descend_from_one_to_zero(self, schedule, grid):
        t = time_grid(schedule, 10, grid)
        assert t[0] == 1
        assert t[-1] == 0
        assert (t.diff() < 0).all()
        assert len(t) == 11


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
class TestSamplers:
    def test_moments_of_a_gaussian(self, schedule, sampler):
        mean, variance = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.25, 4.0]).double()
        noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        drawn = build_sampler(_name(sampler), Gaussian(schedule, mean, variance), steps=128)(noise)
        torch.testing.assert_close(drawn.mean(0), mean, atol=0.05, rtol=0)
        torch.testing.assert_close(drawn.var(0), variance, rtol=0.06, atol=0)
        assert torch.corrcoef(drawn.T)[0, 1].abs() < 0.03

    def test_weights_of_a_mixture(self, schedule, sampler):
        noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        drawn = build_sampler(_name(sampler), Mixture(schedule), steps=64)(noise)
        assert (drawn > 0).double().mean().item() == pytest.approx(0.7, abs=0.02)
        assert (drawn.abs() - 1).std().item() == pytest.approx(0.1, rel=0.1)

    def test_order_of_convergence(self, schedule, sampler):
        """Between finite noise levels, on grids uniform in log-SNR, against the exact solution."""
        denoiser = Gaussian(schedule, torch.tensor(0.5).double(), torch.tensor(0.3).double())
        ends = schedule.time(torch.tensor([-3.0, 3.0], dtype=torch.float64))
        x = torch.linspace(-2, 2, 9, dtype=torch.float64)
        errors = []
        for steps in (32, 64, 128):
            times = schedule.time(torch.linspace(-3, 3, steps + 1, dtype=torch.float64))
            run = sampler(denoiser, times=times)
            start = x / run.sigma[0]
            exact = denoiser.exact(x, ends[0], ends[1])
            errors.append((run(start) - exact).abs().max().item())
        order = math.log2(errors[1] / errors[2])
        assert order == pytest.approx(1 if sampler is Euler else 2, abs=0.25)
        assert errors[2] < errors[1] < errors[0]

    def test_a_sample_does_not_depend_on_its_batch(self, schedule, sampler):
        denoiser = Mixture(schedule)
        noise = normal(0, "sample", torch.arange(5), (4,))
        run = build_sampler(_name(sampler), denoiser, steps=6)
        torch.testing.assert_close(run(noise)[3:4], run(noise[3:4]))

    def test_counts_its_evaluations(self, schedule, sampler):
        calls = []

        class Counting(Mixture):
            def forward(self, x_t, t, condition=None):
                calls.append(1)
                return super().forward(x_t, t)

        run = build_sampler(_name(sampler), Counting(schedule), steps=7)
        run(torch.randn(2))
        assert len(calls) == run.nfe


def _name(sampler):
    return {Euler: "euler", Heun: "heun", DPMSolverPP2M: "dpmpp_2m"}[sampler]


class Linear(nn.Module):
    """A backbone whose output depends on everything it is given."""

    def forward(self, x, noise_level, condition=None):
        shift = 0.0 if condition is None else condition.value.view(-1, *[1] * (x.ndim - 1))
        return 0.3 * x + noise_level.view(-1, *[1] * (x.ndim - 1)) + shift


class Shift:
    """The least that guidance needs of a condition."""

    def __init__(self, value):
        self.value = value

    def null(self):
        return Shift(torch.zeros_like(self.value))

    def cat(self, other):
        return Shift(torch.cat([self.value, other.value]))


class TestDenoiser:
    @pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
    def test_a_perfect_edm_prediction_gives_the_data_back(self, schedule):
        class Oracle(nn.Module):
            def forward(self, x, noise_level, condition=None):
                return self.answer

        oracle = Oracle()
        denoiser = Denoiser(oracle, schedule, prediction="edm", data_std=0.5)
        x, e = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
        t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.99], dtype=torch.float64)
        oracle.answer = denoiser.target(x, e, t)
        torch.testing.assert_close(denoiser(schedule.noise(x, e, t), t), x)

    def test_a_perfect_flow_prediction_gives_the_data_back(self):
        x, e, t = torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.rand(4).double()

        class Oracle(nn.Module):
            def forward(self, _x, noise_level, condition=None):
                return e - x

        schedule = RectifiedFlow()
        torch.testing.assert_close(Denoiser(Oracle(), schedule)(schedule.noise(x, e, t), t), x)

    @pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
    @pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
    def test_edm_inputs_and_targets_have_unit_variance(self, schedule, t):
        seen = []

        class Spy(nn.Module):
            def forward(self, x, noise_level, condition=None):
                seen.append(x)
                return x

        torch.manual_seed(0)
        x, e = 0.5 * torch.randn(100_000), torch.randn(100_000)
        denoiser = Denoiser(Spy(), schedule, prediction="edm", data_std=0.5)
        times = torch.full_like(x, t)
        denoiser(schedule.noise(x, e, times), times)
        assert seen[0].std().item() == pytest.approx(1.0, rel=0.02)
        assert denoiser.target(x, e, times).std().item() == pytest.approx(1.0, rel=0.02)

    @pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
    def test_finite_at_both_ends(self, schedule):
        for prediction in ("flow", "edm"):
            if prediction == "flow" and isinstance(schedule, EDM):
                continue
            denoiser = Denoiser(Linear(), schedule, prediction=prediction)
            for t in (0.0, 1.0):
                assert torch.isfinite(denoiser(torch.randn(2, 3), torch.tensor(t))).all()

    def test_combinations_without_sense_are_refused(self):
        with pytest.raises(GaldiffError, match="straight lines"):
            Denoiser(Linear(), EDM(), prediction="flow")
        with pytest.raises(GaldiffError, match="unknown prediction"):
            Denoiser(Linear(), EDM(), prediction="noise")


class TestGuidance:
    def setup_method(self):
        self.denoiser = Denoiser(Linear(), RectifiedFlow())
        self.x, self.t = torch.randn(3, 2, 4, 4), torch.tensor(0.6)
        self.condition = Shift(torch.tensor([1.0, 2.0, 3.0]))

    def test_weight_one_is_conditional_and_zero_unconditional(self):
        conditional = self.denoiser(self.x, self.t, self.condition)
        null = self.denoiser(self.x, self.t, self.condition.null())
        assert torch.equal(ClassifierFree(self.denoiser, 1)(self.x, self.t, self.condition), conditional)
        assert torch.equal(ClassifierFree(self.denoiser, 0)(self.x, self.t, self.condition), null)

    def test_extrapolates_on_all_channels(self):
        conditional = self.denoiser(self.x, self.t, self.condition)
        null = self.denoiser(self.x, self.t, self.condition.null())
        guided = ClassifierFree(self.denoiser, 2.5)(self.x, self.t, self.condition)
        torch.testing.assert_close(guided, null + 2.5 * (conditional - null))

    def test_interval(self):
        guided = ClassifierFree(self.denoiser, 3, interval=(0.2, 0.5))
        assert torch.equal(guided(self.x, self.t, self.condition), self.denoiser(self.x, self.t, self.condition))

    def test_needs_a_condition(self):
        with pytest.raises(GaldiffError, match="condition"):
            ClassifierFree(self.denoiser, 2)(self.x, self.t)


class TestObjective:
    def test_flow_loss_is_its_definition(self):
        denoiser = Denoiser(Linear(), RectifiedFlow())
        x = torch.randn(5, 2, 3, 3)
        loss = Objective()(denoiser, x, Draws(3, range(7, 12)))
        e, t = normal(3, "noise", torch.arange(7, 12), (2, 3, 3)), loss.t.view(-1, 1, 1, 1)
        x_t = (1 - t) * x + t * e
        velocity = (x_t - denoiser(x_t, loss.t)) / t
        torch.testing.assert_close(loss.per_sample, (velocity - (e - x)).square().mean((1, 2, 3)), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
    def test_edm_loss_is_the_weighted_error_of_the_posterior_mean(self, schedule):
        denoiser = Denoiser(Linear(), schedule, prediction="edm")
        x = torch.randn(5, 8)
        t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
        loss = Objective(time="log_normal", location=-0.4)(denoiser, x, Draws(0, range(5)), t=t)
        e = normal(0, "noise", torch.arange(5), (8,))
        rho = (schedule.sigma(t) / schedule.alpha(t))[:, None]
        error = (denoiser(schedule.noise(x, e, t), t) - x).square()
        expected = ((rho**2 + 1) / rho**2 * error).mean(1)
        torch.testing.assert_close(loss.per_sample, expected, rtol=1e-3, atol=1e-4)

    def test_random_numbers_belong_to_positions(self):
        denoiser = Denoiser(Linear(), RectifiedFlow())
        x = torch.randn(6, 4)
        whole = Objective()(denoiser, x, Draws(0, range(6)))
        part = Objective()(denoiser, x[2:4], Draws(0, range(2, 4)))
        torch.testing.assert_close(part.per_sample, whole.per_sample[2:4])

    def test_densities(self):
        denoiser, draws = Denoiser(Linear(), RectifiedFlow()), Draws(0, range(20_000))
        logit = torch.logit(Objective(location=0.5, scale=0.8).times(denoiser, draws))
        assert logit.mean().item() == pytest.approx(0.5, abs=0.03)
        assert logit.std().item() == pytest.approx(0.8, abs=0.03)
        edm = Denoiser(Linear(), EDM(), prediction="edm")
        t = Objective(time="log_normal", location=-1.2, scale=1.0).times(edm, draws)
        assert edm.schedule.sigma(t).log().mean().item() == pytest.approx(-1.2, abs=0.04)
        with pytest.raises(GaldiffError, match="density"):
            Objective(time="normal")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
class TestAgainstDiffusers:
    """Trajectories with an analytic denoiser equal those of diffusers' schedulers."""

    def test_euler_of_rectified_flow(self):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
        grid = torch.linspace(1, 0.1, 10, dtype=torch.float64)
        scheduler.set_timesteps(sigmas=grid.tolist())
        denoiser = Mixture(RectifiedFlow())
        noise = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = noise.clone()
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1].double(), strict=True):
            velocity = (x - denoiser(x, sigma)) / sigma
            x = scheduler.step(velocity, t, x.float(), return_dict=False)[0].double()
        ours = Euler(denoiser, times=torch.cat([grid, torch.zeros(1).double()]))(noise)
        torch.testing.assert_close(ours, x, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(("name", "cls"), [("HeunDiscreteScheduler", Heun), ("EulerDiscreteScheduler", Euler)])
    def test_sigma_samplers(self, name, cls):
        scheduler = getattr(diffusers, name)(prediction_type="sample", use_karras_sigmas=True)
        scheduler.set_timesteps(12)
        sigmas = torch.unique_consecutive(scheduler.sigmas.double())
        schedule = EDM()
        denoiser = Mixture(schedule)
        noise = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = sigmas[0] * noise
        for i, t in enumerate(scheduler.timesteps):
            # Heun's list holds every inner level twice: predictor and corrector.
            level = scheduler.sigmas[i].double()
            output = denoiser(x, schedule.time(-2 * level.log()))
            x = scheduler.step(output, t, x, return_dict=False)[0]
        times = torch.cat([schedule.time(-2 * sigmas[:-1].log()), torch.zeros(1).double()])
        ours = cls(denoiser, times=times)
        ours.sigma[-1] = 0.0
        torch.testing.assert_close(ours(noise), x.double(), atol=2e-5, rtol=0)

"""Samplers with analytic denoisers, and step by step against diffusers and azula."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from analytic import SCHEDULES, Gaussian, Mixture, name_of

from galdiff.diffusion import (
    DDIM,
    DDPM,
    EDM,
    DPMSolverPP2M,
    Euler,
    Heun,
    RectifiedFlow,
    Schedule,
    SDEDPMSolverPP2M,
    UniPC,
    build_sampler,
)
from galdiff.diffusion.samplers import SAMPLERS
from galdiff.errors import GaldiffError
from galdiff.randomness import normal


def exactly(name, denoiser):
    """A sampler with so many steps that what is left is the noise of the sample."""
    return build_sampler(name, denoiser, steps=500 if name in ("ddim", "ddpm", "euler") else 64, grid="logsnr")


ORDERS = {"euler": 1, "ddim": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
class TestSamplers:
    def test_moments_of_a_gaussian(self, schedule, sampler):
        mean, variance = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.25, 4.0]).double()
        noise = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        noise = (noise - noise.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(noise.T.cov())).T  # exact moments
        drawn = exactly(sampler, Gaussian(schedule, mean, variance))(noise)
        torch.testing.assert_close(drawn.mean(0), mean, atol=0.1, rtol=0)
        torch.testing.assert_close(drawn.var(0), variance, rtol=0.08, atol=0)
        assert torch.corrcoef(drawn.T)[0, 1].abs() < 0.05

    def test_weights_of_a_mixture(self, schedule, sampler):
        noise = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        drawn = exactly(sampler, Mixture(schedule))(noise)
        assert (drawn > 0).double().mean().item() == pytest.approx(0.7, abs=0.02)
        assert (drawn.abs() - 1).std().item() == pytest.approx(0.1, rel=0.1)

    def test_a_sample_depends_on_its_seed_and_not_on_its_batch(self, schedule, sampler):
        seeds = torch.tensor([5, 9, 1, 7, 2])
        noise = normal(0, "sample", seeds, (4,))
        run = build_sampler(sampler, Mixture(schedule), steps=6)
        whole = run(noise, seeds=seeds)
        torch.testing.assert_close(whole[3:4], run(noise[3:4], seeds=seeds[3:4]))
        same = torch.allclose(whole[3:4], run(noise[3:4], seeds=seeds[:1]))
        assert same == (sampler not in ("ddpm", "sde_dpmpp_2m"))

    def test_counts_its_evaluations(self, schedule, sampler):
        calls = []

        class Counting(Mixture):
            def forward(self, x_t, t, condition=None):
                calls.append(1)
                return super().forward(x_t, t)

        run = build_sampler(sampler, Counting(schedule), steps=7)
        run(torch.randn(2))
        assert len(calls) == run.nfe


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
def test_order_of_convergence(schedule, name):
    """Between finite noise levels, on grids uniform in log-SNR, against the exact solution."""
    denoiser = Gaussian(schedule, torch.tensor(0.5).double(), torch.tensor(0.3).double())
    ends = schedule.time(torch.tensor([-3.0, 3.0], dtype=torch.float64))
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    errors = []
    for steps in (32, 64, 128):
        times = schedule.time(torch.linspace(-3, 3, steps + 1, dtype=torch.float64))
        run = SAMPLERS[name](denoiser, times=times)
        start = x / run.sigma[0]
        exact = denoiser.exact(x, ends[0], ends[1])
        errors.append((run(start) - exact).abs().max().item())
    order = math.log2(errors[1] / errors[2])
    assert order == pytest.approx(ORDERS[name], abs=0.25)
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_floor_of_noise_is_left(name):
    """With D(x_t) = v x_t / (v + s^2) an exact step from the floor s leaves a variance of v^2 / (v + s^2)."""
    denoiser = Gaussian(EDM(sigma_min=0.05), torch.zeros(1).double(), torch.full((1,), 1e-4).double())
    noise = torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = build_sampler(name, denoiser, steps=64, grid="karras")(noise)
    assert drawn.std() < 0.01


@pytest.mark.parametrize("name", SAMPLERS)
def test_without_steps_a_sampler_takes_those_of_its_kind(name):
    """As many that the moments of a mixture come out, which twelve steps of the ancestral sampler do not give."""
    run = build_sampler(name, Mixture(RectifiedFlow()))
    assert run.steps == SAMPLERS[name].STEPS
    drawn = run(normal(0, "sample", torch.arange(4000), (), device="cpu").double())
    assert drawn.std().item() == pytest.approx(math.sqrt(0.84 + 0.01), rel=0.03)
    assert (drawn.abs() - 1).std().item() == pytest.approx(0.1, rel=0.35)


class TestAddedNoise:
    def test_eta_zero_is_euler(self):
        denoiser, noise = Mixture(RectifiedFlow()), torch.randn(50, dtype=torch.float64)
        torch.testing.assert_close(DDIM(denoiser, steps=9, eta=0.0)(noise), Euler(denoiser, steps=9)(noise))

    def test_less_noise_makes_less_spread(self):
        denoiser = Gaussian(EDM(), torch.zeros(1).double(), torch.ones(1).double())
        noise = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        full, less = (DDPM(denoiser, steps=1000, grid="karras", noise_scale=c)(noise).std().item() for c in (1, 0.95))
        assert full == pytest.approx(1.0, abs=0.04)
        assert less < 0.98 * full

    def test_what_makes_no_sense_is_refused(self):
        with pytest.raises(GaldiffError, match="eta"):
            DDIM(Mixture(EDM()), eta=1.5)
        with pytest.raises(GaldiffError, match="says nothing where eta is 0"):
            DDIM(Mixture(EDM()), noise_scale=0.9)
        with pytest.raises(GaldiffError, match="unknown sampler"):
            build_sampler("plms", Mixture(EDM()), steps=5)


class Table(Schedule):
    """The discrete schedule of a scheduler of diffusers: time (k + 1) / N is its step k."""

    family = "variance_preserving"

    def __init__(self, scheduler):
        self.survival = torch.cat([torch.ones(1).double(), scheduler.alphas_cumprod.double()])

    def alpha(self, t):
        return self.survival[(t * (len(self.survival) - 1)).round().long()].sqrt()

    def sigma(self, t):
        return (1 - self.alpha(t) ** 2).sqrt()

    def time(self, log_snr):
        raise NotImplementedError

    def to_dict(self):
        return {"kind": "table"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
class TestAgainstDiffusers:
    """Trajectories with an analytic denoiser equal those of diffusers' schedulers."""

    @pytest.fixture
    def diffusers(self):
        return pytest.importorskip("diffusers", reason="an extra")

    def test_euler_of_rectified_flow(self, diffusers):
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
    def test_sigma_samplers(self, diffusers, name, cls):
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

    def compare(self, scheduler, sampler, denoise, *, steps, noisy):
        """Step both, with the same fresh noise; returns the largest difference after any step."""
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        scheduler.set_timesteps(steps)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 4, 8, generator=generator, dtype=torch.float64) * sampler.sigma[0]
        y, memory, worst = x.clone(), None, 0.0
        for i, t in enumerate(scheduler.timesteps):
            z = torch.randn(2, 4, 8, generator=generator, dtype=torch.float64)
            more = noisy(z) if noisy else {}
            y = scheduler.step(denoise(y, i), t, y, return_dict=False, **more)[0]
            x, memory = sampler.step(x, i, denoise, lambda _, z=z: z, memory)
            worst = max(worst, (x - y).abs().max().item())
        return worst

    @pytest.mark.parametrize("steps", [8, 20])
    @pytest.mark.parametrize(
        ("scheduler", "more", "cls", "options", "noisy"),
        [
            ("DDIMScheduler", {"clip_sample": False}, DDIM, {"eta": 0.0}, None),
            ("DDIMScheduler", {"clip_sample": False}, DDIM, {"eta": 0.6}, lambda z: {"eta": 0.6, "variance_noise": z}),
            ("DDIMScheduler", {"clip_sample": False}, DDPM, {}, lambda z: {"eta": 1.0, "variance_noise": z}),
            ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}, DPMSolverPP2M, {}, None),
            (
                "DPMSolverMultistepScheduler",
                {"final_sigmas_type": "zero", "algorithm_type": "sde-dpmsolver++"},
                SDEDPMSolverPP2M,
                {},
                lambda z: {"variance_noise": z},
            ),
            ("UniPCMultistepScheduler", {"final_sigmas_type": "zero"}, UniPC, {}, None),
        ],
        ids=["ddim", "ddim-eta", "ddpm", "dpmpp", "sde-dpmpp", "unipc"],
    )
    def test_variance_preserving_samplers(self, diffusers, scheduler, more, cls, options, noisy, steps):
        theirs = getattr(diffusers, scheduler)(
            1000, beta_schedule="linear", prediction_type="sample", timestep_spacing="trailing", **more
        )
        theirs.set_timesteps(steps)
        times = torch.cat([(theirs.timesteps.double() + 1) / 1000, torch.zeros(1).double()])
        denoiser = Mixture(Table(theirs))
        ours = cls(denoiser, times=times, **options)
        worst = self.compare(theirs, ours, lambda x, i: denoiser(x, times[i]), steps=steps, noisy=noisy)
        assert worst < 1e-5

    def test_ancestral_sampling_is_the_scheduler_of_that_name(self, diffusers):
        theirs = diffusers.DDPMScheduler(1000, prediction_type="sample", timestep_spacing="trailing", clip_sample=False)
        theirs.set_timesteps(50)
        times = torch.cat([(theirs.timesteps.double() + 1) / 1000, torch.zeros(1).double()])
        denoiser = Mixture(Table(theirs))
        ours = DDPM(denoiser, times=times)
        x = torch.linspace(-2, 2, 64, dtype=torch.float64).view(2, 4, 8)
        for i, t in enumerate(theirs.timesteps):
            y = theirs.step(denoiser(x, times[i]), t, x, generator=torch.Generator().manual_seed(i)).prev_sample
            z = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            x, _ = ours.step(x, i, lambda x, i: denoiser(x, times[i]), lambda _, z=z: z, None)
            torch.testing.assert_close(x, y, rtol=0, atol=1e-5)


class TestAzula:
    """Trajectories with an analytic denoiser equal azula's, whose samplers take any schedule, in float64."""

    TIMES = torch.linspace(0.97, 0.03, 13, dtype=torch.float64)

    def theirs(self, schedule, name, **options):
        azula = pytest.importorskip("azula", reason="tox installs it without torchvision, which it asks for")

        class Mean(azula.denoise.Denoiser):
            def __init__(self):
                super().__init__()
                self.exact = Mixture(schedule)
                self.schedule = lambda t: (schedule.alpha(t), schedule.sigma(t))

            def forward(self, x_t, t):
                return SimpleNamespace(mean=self.exact(x_t, t))

        grid = {"start": self.TIMES[0].item(), "stop": self.TIMES[-1].item(), "steps": len(self.TIMES) - 1}
        return getattr(azula.sample, name)(Mean(), **grid, **options, silent=True, dtype=torch.float64)

    def noise(self):
        return torch.linspace(-2, 2, 64, dtype=torch.float64).view(2, 4, 8)

    # Its Heun averages along sigma / alpha, which is Karras et al.'s for EDM alone.
    @pytest.mark.parametrize(
        ("schedule", "name", "ours"),
        [
            *(
                (schedule, *sampler)
                for schedule in SCHEDULES
                for sampler in (("EulerSampler", Euler), ("DDIMSampler", DDIM))
            ),
            (EDM(), "HeunSampler", Heun),
        ],
        ids=lambda value: name_of(value) if isinstance(value, Schedule) else None,
    )
    def test_of_the_flow(self, schedule, name, ours):
        sampler = ours(Mixture(schedule), times=self.TIMES)
        x = self.noise()
        found, expected = sampler(x), self.theirs(schedule, name)(sampler.sigma[0] * x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
    @pytest.mark.parametrize(
        ("name", "ours", "options"), [("DDPMSampler", DDPM, {}), ("DDIMSampler", DDIM, {"eta": 1.0})]
    )
    def test_with_noise(self, schedule, name, ours, options):
        sampler, theirs = ours(Mixture(schedule), times=self.TIMES, **options), self.theirs(schedule, name, **options)
        x = y = sampler.sigma[0] * self.noise()
        for i, (t, s) in enumerate(pairwise(self.TIMES)):
            torch.manual_seed(i)
            z = torch.randn_like(x)
            torch.manual_seed(i)
            y = theirs.step(y, t, s)
            x, _ = sampler.step(x, i, lambda x, i: sampler.denoiser(x, self.TIMES[i]), lambda _, z=z: z, None)
            torch.testing.assert_close(x, y, rtol=0, atol=1e-9)

"""Laws of schedules and grids, and published special cases."""

import math

import pytest
import torch
from analytic import SCHEDULES, name_of

from galdiff.diffusion import EDM, Cosine, Linear, RectifiedFlow, Schedule, Shifted, Sigmoid, time_grid
from galdiff.errors import GaldiffError


@pytest.mark.parametrize("schedule", [*SCHEDULES, Shifted(Linear(beta_min=0.0), 2.0)], ids=name_of)
class TestSchedules:
    def test_time_inverts_log_snr(self, schedule):
        t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
        torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t)

    def test_log_snr_falls(self, schedule):
        assert (schedule.log_snr(torch.linspace(0.001, 0.999, 100)).diff() < 0).all()

    def test_single_precision_is_good_to_its_last_digits(self, schedule):
        t = torch.linspace(0.001, 0.999, 100)
        for f in (schedule.alpha, schedule.sigma):
            torch.testing.assert_close(f(t).double(), f(t.double()), rtol=1e-4, atol=1e-7)

    def test_belongs_to_its_family(self, schedule):
        t = torch.linspace(0, 1, 50, dtype=torch.float64)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        one = {"straight": alpha + sigma, "variance_preserving": alpha**2 + sigma**2, "exploding": alpha}
        torch.testing.assert_close(one[schedule.family], torch.ones_like(t))

    def test_starts_clean_and_ends_as_it_says(self, schedule):
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
        assert alpha[0] == pytest.approx(1)
        assert sigma[0] < 0.01
        assert schedule.ends_empty == (alpha[1].item() < 1e-9)
        assert (alpha[1] / sigma[1]).item() < 0.02

    def test_description_round_trip(self, schedule):
        again = Schedule.from_dict(schedule.to_dict())
        assert again.to_dict() == schedule.to_dict()
        assert type(again) is type(schedule)

    @pytest.mark.parametrize("grid", ["uniform", "karras", "logsnr"])
    def test_grids_descend_from_one_to_zero(self, schedule, grid):
        t = time_grid(schedule, 10, grid)
        assert t[0] == 1
        assert t[-1] == 0
        assert (t.diff() < 0).all()
        assert len(t) == 11


def test_the_karras_grid_of_edm_is_equation_5_but_for_its_ends():
    low, high, n = 0.002 ** (1 / 7), 80 ** (1 / 7), 18
    expected = torch.tensor([(high + i / (n - 1) * (low - high)) ** 7 for i in range(n)], dtype=torch.float64)
    found = EDM().sigma(time_grid(EDM(), n, "karras")[:-1])
    torch.testing.assert_close(found, expected, rtol=1.1e-3, atol=0)


@pytest.mark.parametrize("rho", [1.0, 3.0])
def test_rho_is_that_of_equation_5(rho):
    low, high = 0.002 ** (1 / rho), 80 ** (1 / rho)
    expected = torch.tensor([(high + i / 17 * (low - high)) ** rho for i in range(18)], dtype=torch.float64)
    found = EDM().sigma(time_grid(EDM(), 18, "karras", rho=rho)[:-1])
    torch.testing.assert_close(found, expected, rtol=1.1e-3, atol=0)


def test_ends_are_what_samplers_take_for_none():
    assert EDM(sigma_min=0.01, sigma_max=20.0).ends() == pytest.approx((0.01, 1 / 20))
    assert Shifted(EDM(), 2.0).ends() == pytest.approx((0.004, 1 / 160))
    left = math.exp(-(4.0 - 0.1) / 4 - 0.1 / 2)
    assert Linear(beta_max=4.0).ends() == pytest.approx((0.0, left / math.sqrt(1 - left**2)))
    assert Linear(beta_max=4.0, zero_terminal=True).ends() == pytest.approx((0.0, 0.0), abs=1e-15)


@pytest.mark.parametrize("base", [RectifiedFlow(), Cosine(), Sigmoid(), Linear(), EDM()], ids=name_of)
@pytest.mark.parametrize("shift", [0.3, 4.0])
def test_a_shift_multiplies_the_ratio_of_noise_to_signal(base, shift):
    t = torch.linspace(0.05, 0.95, 30, dtype=torch.float64)
    ratios = [s.sigma(t) / s.alpha(t) for s in (Shifted(base, shift), base)]
    torch.testing.assert_close(ratios[0], shift * ratios[1])


def test_the_shift_of_rectified_flow_is_that_of_esser():
    t = torch.linspace(0.05, 0.95, 30, dtype=torch.float64)
    torch.testing.assert_close(Shifted(RectifiedFlow(), 3.0).sigma(t), 3 * t / (1 + 2 * t))
    grid = time_grid(RectifiedFlow(), 8, shift=3.0)
    torch.testing.assert_close(grid, Shifted(RectifiedFlow(), 3.0).sigma(time_grid(RectifiedFlow(), 8)))


def test_linear_is_the_limit_of_a_thousand_steps():
    """Ho et al. 2020: rates from 1e-4 to 0.02."""
    survival = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(2 * Linear().alpha(t).log(), survival.log(), rtol=0.02, atol=2e-3)


def test_cosine_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="an extra")
    scheduler = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    t = torch.arange(1, 900, dtype=torch.float64) / 1000
    torch.testing.assert_close(Cosine().alpha(t) ** 2, scheduler.alphas_cumprod[:899].double(), rtol=2e-4, atol=1e-6)


def test_zero_terminal_snr_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="an extra")
    plain = Linear().alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000) ** 2
    betas = 1 - plain / torch.cat([plain.new_ones(1), plain[:-1]])
    scheduler = diffusers.DDIMScheduler(1000, trained_betas=betas.tolist(), rescale_betas_zero_snr=True)
    # Theirs keeps the first of the thousand steps as it was, ours clean data.
    ours = Linear(zero_terminal=True).alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(ours, scheduler.alphas_cumprod.double().sqrt(), rtol=1e-3, atol=1e-4)


def test_what_makes_no_sense_is_refused():
    for wrong in (
        lambda: EDM(sigma_min=1.0, sigma_max=0.5),
        lambda: Linear(beta_min=2.0, beta_max=1.0),
        lambda: Sigmoid(start=1.0, end=0.0),
        lambda: Shifted(Cosine(), 0.0),
        lambda: Cosine(offset=-0.5),
        lambda: Schedule.from_dict({"kind": "quadratic"}),
        lambda: time_grid(Cosine(), 0),
        lambda: time_grid(Cosine(), 5, "leading"),
        lambda: time_grid(Cosine(), 5, "karras", shift=3.0),
        lambda: time_grid(Cosine(), 5, shift=-1.0),
        lambda: time_grid(Cosine(), 5, "logsnr", rho=3.0),
        lambda: time_grid(Cosine(), 5, "karras", rho=0.0),
    ):
        with pytest.raises(GaldiffError):
            wrong()

"""Predictions and objectives: what the network learns, whatever it predicts."""

import pytest
import torch
from analytic import SCHEDULES, Sloped, name_of
from torch import nn

from galdiff.diffusion import EDM, Cosine, Denoiser, Linear, Objective, RectifiedFlow
from galdiff.diffusion.prediction import PREDICTIONS
from galdiff.errors import GaldiffError
from galdiff.randomness import Draws, normal

REFUSED = {("flow", "exploding"), ("flow", "variance_preserving"), ("v", "exploding")}


def fits(prediction, schedule):
    return (prediction, schedule.family) not in REFUSED and not (prediction == "eps" and schedule.ends_empty)


PAIRS = [pytest.param(p, s, id=f"{p}-{name_of(s)}") for s in SCHEDULES for p in PREDICTIONS if fits(p, s)]
pairs = pytest.mark.parametrize(("prediction", "schedule"), PAIRS)


class Oracle(nn.Module):
    """A backbone that gives a set answer."""

    def forward(self, x, noise_level, condition=None):
        self.seen = x
        return self.answer


@pairs
class TestPredictions:
    def test_the_target_gives_the_data_back(self, prediction, schedule):
        oracle = Oracle()
        denoiser = Denoiser(oracle, schedule, prediction=prediction, data_std=0.5)
        x, e = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
        t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.99], dtype=torch.float64)
        oracle.answer = denoiser.target(x, e, t)
        torch.testing.assert_close(denoiser(schedule.noise(x, e, t), t), x)

    def test_the_gain_is_the_error_of_the_output_over_that_of_the_data(self, prediction, schedule):
        oracle = Oracle()
        denoiser = Denoiser(oracle, schedule, prediction=prediction, data_std=0.5)
        x, e, off = torch.randn(3, 5, 4, dtype=torch.float64)
        t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
        oracle.answer = denoiser.target(x, e, t) + off
        error = (denoiser(schedule.noise(x, e, t), t) - x).abs()
        gain = denoiser.meaning.gain(schedule.alpha(t), schedule.sigma(t))
        torch.testing.assert_close(off.abs(), gain[:, None] * error)

    @pytest.mark.parametrize("weighting", ["min_snr", "edm"])
    def test_weightings_are_of_the_data_whatever_is_predicted(self, prediction, schedule, weighting):
        oracle = Oracle()
        denoiser = Denoiser(oracle, schedule, prediction=prediction, data_std=0.5)
        t, draws = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64), Draws(0, range(5))
        x = torch.randn(5, 4, dtype=torch.float64)
        oracle.answer = denoiser.target(x, draws.normal("noise", (4,)).double(), t) + 0.1
        loss = Objective(weighting=weighting)(denoiser, x, draws, t=t).per_sample
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        error = (0.1 / denoiser.meaning.gain(alpha, sigma)) ** 2
        snr = (alpha / sigma) ** 2
        weight = snr.clamp(max=5.0) if weighting == "min_snr" else ((sigma / alpha) ** 2 + 0.25) * snr / 0.25
        expected = error * weight
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-9)

    def test_finite_at_both_ends(self, prediction, schedule):
        denoiser = Denoiser(Sloped(), schedule, prediction=prediction)
        for t in (0.0, 1.0):
            assert torch.isfinite(denoiser(torch.randn(2, 3), torch.tensor(t))).all()

    def test_inputs_have_unit_variance(self, prediction, schedule):
        torch.manual_seed(0)
        x, e = 0.5 * torch.randn(100_000), torch.randn(100_000)
        oracle = Oracle()
        oracle.answer = x
        denoiser = Denoiser(oracle, schedule, prediction=prediction, data_std=0.5)
        for t in (0.05, 0.5, 0.95):
            times = torch.full_like(x, t)
            denoiser(schedule.noise(x, e, times), times)
            assert oracle.seen.std().item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
def test_edm_targets_have_unit_variance(schedule):
    torch.manual_seed(0)
    x, e = 0.5 * torch.randn(100_000), torch.randn(100_000)
    denoiser = Denoiser(Sloped(), schedule, prediction="edm", data_std=0.5)
    for t in (0.05, 0.5, 0.95):
        assert denoiser.target(x, e, torch.full_like(x, t)).std().item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
def test_combinations_without_sense_are_refused_with_the_reason(prediction, schedule):
    if fits(prediction, schedule):
        Denoiser(Sloped(), schedule, prediction=prediction)
    else:
        with pytest.raises(GaldiffError, match=f"'{prediction}'.*do not fit: .* Use '"):
            Denoiser(Sloped(), schedule, prediction=prediction)


def test_unknown_names_are_refused():
    for wrong in (
        lambda: Denoiser(Sloped(), EDM(), prediction="noise"),
        lambda: Objective(time="normal"),
        lambda: Objective(weighting="p2"),
    ):
        with pytest.raises(GaldiffError, match="Known:"):
            wrong()


class TestObjective:
    def test_flow_loss_is_its_definition(self):
        denoiser = Denoiser(Sloped(), RectifiedFlow())
        x = torch.randn(5, 2, 3, 3)
        loss = Objective()(denoiser, x, Draws(3, range(7, 12)))
        e, t = normal(3, "noise", torch.arange(7, 12), (2, 3, 3)), loss.t.view(-1, 1, 1, 1)
        x_t = (1 - t) * x + t * e
        velocity = (x_t - denoiser(x_t, loss.t)) / t
        torch.testing.assert_close(loss.per_sample, (velocity - (e - x)).square().mean((1, 2, 3)), rtol=1e-3, atol=1e-4)

    def test_random_numbers_belong_to_positions(self):
        denoiser = Denoiser(Sloped(), RectifiedFlow())
        x = torch.randn(6, 4)
        for objective in (Objective(), Objective(stratified=True)):
            whole = objective(denoiser, x, Draws(0, range(6)))
            part = objective(denoiser, x[2:4], Draws(0, range(2, 4)))
            torch.testing.assert_close(part.per_sample, whole.per_sample[2:4])

    @pytest.mark.parametrize("stratified", [False, True])
    def test_densities(self, stratified):
        denoiser, draws = Denoiser(Sloped(), RectifiedFlow()), Draws(0, range(20_000))
        logit = torch.logit(Objective(location=0.5, scale=0.8, stratified=stratified).times(denoiser, draws))
        assert logit.mean().item() == pytest.approx(0.5, abs=0.03)
        assert logit.std().item() == pytest.approx(0.8, abs=0.03)
        edm = Denoiser(Sloped(), EDM(), prediction="edm")
        t = Objective(time="log_normal", location=-1.2, scale=1.0, stratified=stratified).times(edm, draws)
        assert edm.schedule.sigma(t).log().mean().item() == pytest.approx(-1.2, abs=0.04)
        u = Objective(time="uniform", stratified=stratified).times(edm, draws)
        assert torch.histc(u, 10, 0, 1).div(2000).sub(1).abs().max() < 0.12

    @pytest.mark.parametrize("seed", range(5))
    def test_stratified_times_fill_every_batch_evenly(self, seed):
        denoiser = Denoiser(Sloped(), RectifiedFlow())
        for start in (0, 1000, 10**7):
            u = Objective(time="uniform", stratified=True).times(denoiser, Draws(seed, range(start, start + 32)))
            gap = (u.sort().values - (torch.arange(32) + 0.5) / 32).abs().max()
            assert gap < 0.08  # of 32 independent draws it is 0.15 in the mean
        first = [Objective(time="uniform", stratified=True).times(denoiser, Draws(s, range(1))) for s in (0, 1)]
        assert first[0] != first[1]

    def test_learned_weights_settle_at_the_loss_of_their_noise_level(self):
        class Off(nn.Module):
            """An error of known size at every noise level."""

            def forward(self, x, noise_level, condition=None):
                return self.target + (1 + noise_level).exp()[:, None]

        torch.manual_seed(0)
        denoiser = Denoiser(Off(), Cosine(), prediction="v", uncertainty=True)
        optimizer = torch.optim.Adam(denoiser.parameters(), 0.02)
        objective, x = Objective(time="uniform", weighting="learned"), torch.randn(256, 2)
        for step in range(300):
            draws = Draws(0, range(256 * step, 256 * step + 256))
            t = objective.times(denoiser, draws)
            denoiser.backbone.target = denoiser.target(x, draws.normal("noise", (2,)), t)
            loss = objective(denoiser, x, draws, t=t).per_sample.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        level = denoiser.noise_level(torch.linspace(0.1, 0.9, 9))
        torch.testing.assert_close(denoiser.uncertainty(level), 2 * (1 + level), atol=0.15, rtol=0)

    def test_learned_weights_need_what_learns_them(self):
        denoiser = Denoiser(Sloped(), Linear(), prediction="eps")
        with pytest.raises(GaldiffError, match="uncertainty"):
            Objective(weighting="learned")(denoiser, torch.randn(2, 3), Draws(0, range(2)))

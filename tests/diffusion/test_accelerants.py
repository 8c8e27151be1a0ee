"""Switches of training: off is off to the last bit, on is what its paper says."""

import pytest
import torch
from analytic import Sloped
from stirring import stirred
from torch import nn

from galdiff.diffusion import (
    Autoguidance,
    ClassifierFree,
    Denoiser,
    Euler,
    Floor,
    Heun,
    Linear,
    Objective,
    RectifiedFlow,
)
from galdiff.errors import GaldiffError
from galdiff.nn import DiT
from galdiff.randomness import Draws
from galdiff.schema.conditions import Class, ConditionSchema

SCHEMA = ConditionSchema([Class("morphology", ("a", "b"))])


class TestContrastive:
    def test_it_takes_away_the_distance_to_the_next_sample(self):
        denoiser, x, draws = Denoiser(Sloped(), RectifiedFlow()), torch.randn(5, 3), Draws(0, range(5))
        plain, contrastive = Objective()(denoiser, x, draws), Objective(contrastive=0.3)(denoiser, x, draws)
        epsilon = draws.normal("noise", (3,))
        velocity = epsilon - x
        raw = denoiser.parts(denoiser.schedule.noise(x, epsilon, plain.t), plain.t)[1]
        for i in range(5):
            pushed = plain.per_sample[i] - 0.3 * (raw[i] - velocity[i - 1]).square().mean()
            torch.testing.assert_close(contrastive.per_sample[i], pushed)

    def test_its_minimum_is_where_it_should_be(self):
        """One number that predicts all: the mean of the targets stays, whatever the weight."""

        class Constant(nn.Module):
            def __init__(self):
                super().__init__()
                self.value = nn.Parameter(torch.zeros(2, dtype=torch.float64))

            def forward(self, x, noise_level, condition=None):
                return self.value.expand_as(x)

        x, draws = torch.randn(64, 2, dtype=torch.float64) + 3, Draws(0, range(64))
        epsilon = draws.normal("noise", (2,)).double()
        for weight in (0.0, 0.3):
            denoiser = Denoiser(Constant(), RectifiedFlow())
            optimizer = torch.optim.LBFGS(denoiser.parameters(), max_iter=50)

            def loss(denoiser=denoiser, optimizer=optimizer, weight=weight):
                optimizer.zero_grad()
                value = Objective(contrastive=weight)(denoiser, x, draws).per_sample.mean()
                value.backward()
                return value

            optimizer.step(loss)
            expected = (epsilon - x).mean(0)
            torch.testing.assert_close(denoiser.backbone.value.detach(), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("options", [{"contrastive": 1.0}, {"contrastive": 0.1, "weighting": "learned"}])
    def test_what_makes_no_sense_is_refused(self, options):
        with pytest.raises(GaldiffError, match="contrastive"):
            Objective(**options)


class Sees(nn.Module):
    """A backbone that remembers what it was shown, and gives a part of the estimate back."""

    def __init__(self):
        super().__init__()
        self.inputs, self.weight = [], nn.Parameter(torch.ones(()))

    def forward(self, x, noise_level, condition=None):
        self.inputs.append(x.detach())
        noised, estimate = x.chunk(2, dim=1)
        return self.weight * (noised + 0.5 * estimate)


def self_conditioned():
    return Denoiser(Sees(), RectifiedFlow(), self_conditioning=True)


class TestSelfConditioning:
    @pytest.mark.parametrize("start", [0, 3])
    def test_every_other_sample_is_trained_with_its_own_estimate(self, start):
        denoiser, x = self_conditioned(), torch.randn(5, 2, 3, 3)
        draws = Draws(0, range(start, start + 5))
        loss = Objective()(denoiser, x, draws)
        first, second = denoiser.backbone.inputs
        even = (torch.arange(5) + start) % 2 == 0
        assert torch.equal(first, torch.cat([second[even, :2], torch.zeros_like(first[:, 2:])], dim=1))
        x_t = denoiser.schedule.noise(x, draws.normal("noise", (2, 3, 3)), loss.t)
        torch.testing.assert_close(second[even, 2:], denoiser(x_t, loss.t)[even].detach())
        assert not second[~even, 2:].any()

    def test_no_gradient_is_taken_of_the_estimate(self):
        denoiser, x = self_conditioned(), torch.randn(4, 2, 3, 3)
        loss = Objective()(denoiser, x, Draws(0, range(4)))
        loss.per_sample.sum().backward()
        seen, target = (
            denoiser.backbone.inputs[1],
            denoiser.target(x, Draws(0, range(4)).normal("noise", (2, 3, 3)), loss.t),
        )
        slope = seen[:, :2] + 0.5 * seen[:, 2:]  # of the output in the weight, the estimate being a constant
        expected = (2 * slope * (slope - target)).flatten(1).mean(1).sum()
        torch.testing.assert_close(denoiser.backbone.weight.grad, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("sampler", [Euler, Heun])
    def test_a_sampler_hands_every_estimate_on(self, sampler):
        denoiser = self_conditioned()
        estimates = []
        forward = denoiser.forward
        denoiser.forward = lambda *a, **k: estimates.append(forward(*a, **k)) or estimates[-1]
        drawn = sampler(denoiser, steps=4)
        with torch.no_grad():
            drawn(torch.randn(3, 2, 4, 4))
        shown = [x[:, 2:] for x in denoiser.backbone.inputs]
        assert len(shown) == drawn.nfe
        assert not shown[0].any()
        for seen, before in zip(shown[1:], estimates[:-1], strict=True):
            assert torch.equal(seen, before)

    def test_the_estimate_of_one_run_is_not_seen_by_the_next(self):
        denoiser, noise = self_conditioned(), torch.randn(2, 2, 4, 4)
        sampler = Euler(denoiser, steps=3)
        assert torch.equal(sampler(noise), sampler(noise))

    def test_guidance_shows_the_guided_estimate_to_all(self):
        schema_rows = SCHEMA.ask(2, morphology="a")
        denoiser = self_conditioned()
        wrapped = Floor(ClassifierFree(denoiser, 2.0), -1.0)
        assert wrapped.self_conditioning
        Euler(wrapped, steps=2)(torch.randn(2, 2, 4, 4), schema_rows)
        first, second = denoiser.backbone.inputs
        assert len(first) == len(second) == 4
        assert torch.equal(second[:2, 2:], second[2:, 2:])
        assert second[:2, 2:].min() >= -1.0

    def test_a_weaker_model_may_do_without(self):
        plain = Denoiser(Sloped(), RectifiedFlow())
        guided = Autoguidance(self_conditioned(), plain, 1.5)
        assert Euler(guided, steps=3)(torch.randn(2, 2, 4, 4)).isfinite().all()

    def test_other_denoisers_are_what_they_were(self):
        denoiser = Denoiser(Sloped(), Linear(), prediction="eps")
        assert not denoiser.self_conditioning
        assert torch.equal(denoiser(x := torch.randn(2, 3), t := torch.tensor(0.5)), denoiser.parts(x, t)[0])


class TestRouting:
    def test_the_choice_belongs_to_the_position(self):
        torch.manual_seed(0)
        network = stirred(DiT(4, SCHEMA, width=32, depth=4, heads=2, routing=0.5))
        denoiser, x = Denoiser(network, RectifiedFlow()), torch.randn(6, 4, 8, 8)
        whole = Objective()(denoiser, x, Draws(3, range(6))).per_sample
        part = Objective()(denoiser, x[2:4], Draws(3, range(2, 4))).per_sample
        torch.testing.assert_close(part, whole[2:4])

    def test_it_is_for_training_alone(self):
        torch.manual_seed(0)
        routed = stirred(DiT(4, SCHEMA, width=32, depth=4, heads=2, routing=0.5))
        plain = DiT(4, SCHEMA, width=32, depth=4, heads=2)
        plain.load_state_dict(routed.state_dict())
        noise = torch.randn(2, 4, 8, 8)
        drawn = [Euler(Denoiser(n, RectifiedFlow()), steps=2)(noise) for n in (routed, plain)]
        assert torch.equal(*drawn)
        x, draws = torch.randn(4, 4, 8, 8), Draws(0, range(4))
        losses = [Objective()(Denoiser(n, RectifiedFlow()), x, draws).per_sample for n in (routed, plain)]
        assert not torch.allclose(*losses)

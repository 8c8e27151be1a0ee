"""Guidance: what its weights mean."""

import pytest
import torch
from analytic import Sloped

from galdiff.diffusion import EDM, Autoguidance, ClassifierFree, Denoiser, Euler, FieldGuidance, Floor, RectifiedFlow
from galdiff.errors import GaldiffError
from galdiff.schema.conditions import Class, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import GZ2_TREE


class Shift:
    """The least that guidance needs of a condition."""

    def __init__(self, value):
        self.value = value

    def null(self):
        return Shift(torch.zeros_like(self.value))

    def cat(self, other):
        return Shift(torch.cat([self.value, other.value]))


class TestGuidance:
    def setup_method(self):
        self.denoiser = Denoiser(Sloped(), RectifiedFlow())
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
        plain = self.denoiser(self.x, self.t, self.condition)
        for weight in (3, 0):
            guided = ClassifierFree(self.denoiser, weight, interval=(0.2, 0.5))
            assert torch.equal(guided(self.x, self.t, self.condition), plain)

    @pytest.mark.parametrize(
        ("kind", "given"),
        [
            (ClassifierFree, {"weight": 2, "interval": (0.9, 0.2)}),
            (ClassifierFree, {"weight": 2, "interval": (0.5, 5.0)}),
            (ClassifierFree, {"weight": float("nan")}),
            (FieldGuidance, {"weights": {("kind", None): float("inf")}}),
            (Floor, {"low": float("nan")}),
        ],
    )
    def test_what_means_nothing_is_refused(self, kind, given):
        with pytest.raises(GaldiffError, match=r"guidance within|no weight"):
            kind(self.denoiser, **given)

    def test_outside_the_interval_the_network_is_asked_once(self):
        """Kynkäänniemi et al. 2024: guidance in an interval is quicker, and changes nothing outside of it."""
        rows = []
        self.denoiser.backbone.register_forward_hook(lambda m, inputs, y: rows.append(len(inputs[0])))
        sampler = Euler(ClassifierFree(self.denoiser, 3, interval=(0.3, 0.6)), steps=10)
        sampler(self.x, self.condition)
        inside = [0.3 <= t <= 0.6 for t in sampler.times[:-1].float().tolist()]
        assert rows == [6 if i else 3 for i in inside]
        assert 0 < sum(inside) < len(inside)

    def test_rescaling_a_constant_estimate_gives_no_nan(self):
        flat = Denoiser(Sloped(), RectifiedFlow())
        flat.forward = lambda x, t, condition=None: torch.ones_like(x)
        guided = ClassifierFree(flat, 2.0, rescale=0.5)(self.x, self.t, self.condition)
        assert torch.equal(guided, torch.ones_like(guided))

    def test_needs_a_condition(self):
        with pytest.raises(GaldiffError, match="condition"):
            ClassifierFree(self.denoiser, 2)(self.x, self.t)

    @pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
    def test_rescaling_gives_a_share_of_the_spread_back(self, share):
        plain = self.denoiser(self.x, self.t, self.condition)
        full = ClassifierFree(self.denoiser, 6)(self.x, self.t, self.condition)
        rescaled = ClassifierFree(self.denoiser, 6, rescale=share)(self.x, self.t, self.condition)
        spread = [y.std((1, 2, 3)) for y in (plain, full, rescaled)]
        torch.testing.assert_close(spread[2], share * spread[0] + (1 - share) * spread[1])

    def test_a_rescaling_beyond_one_is_refused(self):
        with pytest.raises(GaldiffError, match="rescaling"):
            ClassifierFree(self.denoiser, 2, rescale=1.5)


SCHEMA = ConditionSchema([Class("kind", ("a", "b")), Scalar("redshift"), Votes("votes", GZ2_TREE)])


class Additive(torch.nn.Module):
    """A backbone that adds something of its own for each part of the condition."""

    def forward(self, x, noise_level, condition=None):
        votes = condition.masks["votes"].float() @ torch.linspace(1, 2, condition.masks["votes"].shape[1])
        parts = condition.masks["kind"] * 3.0 + condition.masks["redshift"] * 5.0 + votes
        return 0.1 * x + parts.view(-1, 1, 1, 1)


class TestFieldGuidance:
    def setup_method(self):
        self.denoiser = Denoiser(Additive(), EDM(), prediction="x0")
        self.x, self.t = torch.randn(2, 1, 4, 4), torch.tensor(0.6)
        self.condition = SCHEMA.ask(2, kind="a", redshift=0.2, votes={"spiral": 0.8, "bar": 0.5})
        self.spiral = ("votes", GZ2_TREE.find("spiral")[0])

    def guided(self, weights):
        return FieldGuidance(self.denoiser, weights)(self.x, self.t, self.condition)

    def test_weights_of_one_are_no_guidance(self):
        plain = self.denoiser(self.x, self.t, self.condition)
        assert torch.equal(self.guided({("kind", None): 1.0, self.spiral: 1.0}), plain)

    def test_each_part_is_weighed_by_its_own(self):
        """The parts of this denoiser add up, so that guidance multiplies each by its weight."""
        plain = self.denoiser(self.x, self.t, self.condition)
        of_spiral = torch.linspace(1, 2, len(GZ2_TREE.questions))[self.spiral[1]]
        guided = self.guided({("kind", None): 2.0, ("redshift", None): 0.5, self.spiral: 3.0})
        torch.testing.assert_close(guided - plain, torch.full_like(plain, 3.0 - 2.5 + 2 * of_spiral.item()))

    def test_a_single_part_is_classifier_free_guidance(self):
        condition = SCHEMA.ask(2, redshift=0.2)
        field = FieldGuidance(self.denoiser, {("redshift", None): 2.5})(self.x, self.t, condition)
        torch.testing.assert_close(field, ClassifierFree(self.denoiser, 2.5)(self.x, self.t, condition))


class TestAutoguidance:
    def setup_method(self):
        self.strong = Denoiser(Sloped(), RectifiedFlow())
        self.weak = Denoiser(torch.nn.Identity(), RectifiedFlow())
        self.weak.backbone.forward = lambda x, level, condition=None: 0.5 * x
        self.x, self.t = torch.randn(3, 2, 4, 4), torch.tensor(0.6)

    def test_weights(self):
        strong, weak = (d(self.x, self.t) for d in (self.strong, self.weak))
        for w in (1.0, 2.0):
            guided = Autoguidance(self.strong, self.weak, w)(self.x, self.t)
            torch.testing.assert_close(guided, weak + w * (strong - weak))

    def test_other_schedules_are_refused(self):
        with pytest.raises(GaldiffError, match="schedule"):
            Autoguidance(self.strong, Denoiser(Sloped(), EDM(), prediction="edm"), 2.0)


def test_a_floor_cuts_nothing_bright():
    denoiser = Denoiser(Sloped(), RectifiedFlow())
    x, t = 5 * torch.randn(2, 1, 8, 8), torch.tensor(0.3)
    plain, floored = denoiser(x, t), Floor(denoiser, -0.5)(x, t)
    assert floored.min() == -0.5
    assert torch.equal(floored[plain > -0.5], plain[plain > -0.5])


def test_a_floor_of_each_band():
    denoiser = Denoiser(Sloped(), RectifiedFlow())
    low = torch.tensor([-0.5, 0.25]).view(1, 2, 1, 1)
    floored = Floor(denoiser, low)(5 * torch.randn(2, 2, 8, 8), torch.tensor(0.3))
    assert floored.amin((0, 2, 3)).tolist() == [-0.5, 0.25]


def test_a_floor_under_guidance_costs_nothing_outside_of_its_interval():
    denoiser, rows = Denoiser(Sloped(), RectifiedFlow()), []
    denoiser.backbone.register_forward_hook(lambda m, inputs, y: rows.append(len(inputs[0])))
    guided = ClassifierFree(denoiser, 3, interval=(0.3, 0.6))
    x, condition = torch.randn(3, 2, 4, 4), Shift(torch.tensor([1.0, 2.0, 3.0]))
    floored = Euler(Floor(guided, 0.4), steps=10)(x, condition)
    assert sorted(set(rows)) == [3, 6]
    assert floored.min() >= 0.4 - 1e-6

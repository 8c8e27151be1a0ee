"""Laws of the networks: magnitudes, symmetries, shapes, masks."""

import math

import pytest
import torch
from stirring import stirred

from galdiff.errors import CheckpointError
from galdiff.nn import (
    ConditionEmbedding,
    ConditionFeatures,
    Decoder,
    DiT,
    EDM2UNet,
    Encoder,
    UNet,
    build_backbone,
    dihedral,
    is_reflection,
)
from galdiff.nn.magnitude import MPConv, MPFourier, mp_cat, mp_silu, mp_sum, normalize
from galdiff.schema.conditions import Class, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import GZ2_TREE

SCHEMA = ConditionSchema(
    [Class("morphology", ("a", "b", "c")), Scalar("redshift", mean=0.1, std=0.05), Votes("votes", GZ2_TREE)]
)
BACKBONES = [
    {"kind": "unet", "channels": 4, "widths": [16, 32], "blocks": 1, "head_width": 16},
    {"kind": "unet", "channels": 4, "patch": 2, "widths": [16, 24, 32], "blocks": 2, "attention": [False, True, True]},
    {"kind": "edm2", "channels": 4, "widths": [16, 32], "blocks": 1, "head_width": 16},
    {"kind": "edm2", "channels": 4, "patch": 2, "widths": [16, 32, 32], "blocks": 1, "head_width": 16},
    {"kind": "dit", "channels": 4, "patch": 2, "width": 32, "depth": 2, "heads": 2},
]


def rms(x):
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("function", [mp_silu, lambda x: mp_sum(x, torch.randn_like(x), 0.3), lambda x: mp_cat(x, x)])
def test_magnitude_is_kept(function):
    torch.manual_seed(0)
    assert rms(function(torch.randn(200_000, 4))) == pytest.approx(1.0, rel=0.01)


def test_mp_cat_weighs_its_inputs():
    a, b = torch.ones(1, 4, 1, 1), torch.ones(1, 12, 1, 1)
    out = mp_cat(a, b, t=0.25)
    energy_a, energy_b = out[:, :4].square().sum(), out[:, 4:].square().sum()
    assert (energy_b / energy_a).item() == pytest.approx((0.25 / 0.75) ** 2, rel=1e-5)
    assert rms(out) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_convolution_keeps_magnitude_and_ignores_the_scale_of_its_weights(kernel):
    torch.manual_seed(0)
    layer = MPConv(64, 32, kernel).eval()
    x = torch.randn(64, 64) if kernel == 0 else torch.randn(8, 64, 16, 16)
    y = layer(x)
    inner = y if kernel == 0 else y[..., 2:-2, 2:-2]
    assert rms(inner) == pytest.approx(1.0, rel=0.05)
    with torch.no_grad():
        layer.weight.mul_(7.0)
    torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-4)


def test_training_step_returns_weights_to_the_sphere():
    layer = MPConv(8, 4, 3)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    layer.train()(torch.randn(1, 8, 4, 4))
    torch.testing.assert_close(normalize(layer.weight, [1, 2, 3]), layer.weight.detach(), rtol=1e-3, atol=1e-3)
    assert rms(layer.weight) == pytest.approx(1.0, rel=1e-3)


def test_fourier_features_have_unit_magnitude():
    torch.manual_seed(0)
    assert rms(MPFourier(512)(torch.linspace(-2, 2, 400))) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("spec", BACKBONES, ids=lambda s: f"{s['kind']}{s.get('patch', 1)}")
class TestBackbones:
    def test_any_latent_size(self, spec):
        torch.manual_seed(0)
        backbone = build_backbone(spec, SCHEMA).eval()
        for h, w in [(8, 8), (7, 9), (16, 4), (3, 3)]:
            assert backbone(torch.randn(2, 4, h, w), torch.zeros(2)).shape == (2, 4, h, w)

    def test_every_parameter_learns_after_the_zero_layers_opened(self, spec):
        torch.manual_seed(0)
        backbone = stirred(build_backbone(spec, SCHEMA))
        conditions = SCHEMA.ask(4, morphology="b", redshift=0.2, votes={"spiral": 0.9, "bar": 0.3})
        backbone(torch.randn(4, 4, 8, 8), torch.randn(4), conditions).square().sum().backward()
        dead = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert dead == []

    def test_samples_do_not_see_one_another(self, spec):
        torch.manual_seed(0)
        backbone = stirred(build_backbone(spec, SCHEMA)).eval()
        x, level = torch.randn(3, 4, 8, 8), torch.randn(3)
        conditions = SCHEMA.ask(3, morphology=["a", "b", "c"])
        together = backbone(x, level, conditions)
        for i in range(3):
            alone = backbone(x[i : i + 1], level[i : i + 1], conditions[i : i + 1])
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)

    def test_no_condition_is_the_null_condition(self, spec):
        torch.manual_seed(0)
        backbone = stirred(build_backbone(spec, SCHEMA)).eval()
        x, level = torch.randn(2, 4, 8, 8), torch.zeros(2)
        asked = SCHEMA.ask(2, morphology="a", votes={"bar": 1.0})
        nothing = backbone(x, level, None)
        torch.testing.assert_close(backbone(x, level, asked.null()), nothing)
        assert (backbone(x, level, asked) - nothing).abs().max() > 1e-3

    def test_spec_rebuilds_it(self, spec):
        torch.manual_seed(0)
        backbone = stirred(build_backbone(spec, SCHEMA)).eval()
        again = build_backbone(backbone.spec, SCHEMA).eval()
        again.load_state_dict(backbone.state_dict())
        x = torch.randn(2, 4, 8, 8)
        expected = backbone(x, torch.zeros(2))
        assert expected.abs().max() > 1e-3
        assert torch.equal(again(x, torch.zeros(2)), expected)


def test_unknown_backbone():
    with pytest.raises(CheckpointError, match="'gan'"):
        build_backbone({"kind": "gan", "channels": 4}, SCHEMA)


def test_dit_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="multiple"):
        DiT(4, SCHEMA, width=30, heads=4)


def test_untrained_backbones_predict_zero():
    x = torch.randn(2, 4, 8, 8)
    for backbone in (
        UNet(4, SCHEMA, widths=(16,)),
        EDM2UNet(4, SCHEMA, widths=(16,), head_width=16),
        DiT(4, SCHEMA, width=32, depth=1, heads=2),
    ):
        assert torch.equal(backbone(x, torch.zeros(2)), torch.zeros_like(x))


def test_a_small_unet_has_the_attention_its_description_says():
    unet = UNet(4, ConditionSchema(), widths=(16,), head_width=32)
    assert unet.spec["attention"] == [True]
    blocks = [unet.middle, unet.encoder[0][0], unet.decoder[0][0]]
    assert [block.heads for block in blocks] == [1, 1, 1]


def test_edm2_keeps_its_magnitude_with_conditions():
    """Every activation begins with a root mean square of about one; a condition moves the embedding as noise does."""
    torch.manual_seed(0)
    net = EDM2UNet(4, SCHEMA, widths=(64, 128), blocks=1).eval()
    seen = {"embedding": [], "condition": [], "block": []}

    def record(block, inputs, output):
        seen["block"].append(rms(output))
        seen["embedding"].append(rms(inputs[1]))

    net.embed_condition.register_forward_hook(lambda m, i, y: seen["condition"].append(rms(y)))
    for block in (*net.encoder, *net.decoder):
        block.register_forward_hook(record)
    asked = SCHEMA.ask(64, morphology="b", redshift=0.12, votes={"spiral": 0.9, "bar": 0.3})
    net(torch.randn(64, 4, 8, 8), torch.randn(64), asked)
    assert [value for value in seen["condition"] + seen["embedding"] if not 0.9 < value < 1.1] == []
    # Less at the edges, which are padded by zeros.
    assert [value for value in seen["block"] if not 0.7 < value < 1.1] == []


class TestConditionEmbedding:
    def features(self, conditions):
        return ConditionFeatures(SCHEMA)(conditions, len(conditions), torch.device("cpu"))

    def test_masked_values_do_not_matter(self):
        a = SCHEMA.ask(1, votes={"spiral": 0.9})
        b = SCHEMA.ask(1, votes={"spiral": 0.9})
        b.values["morphology"][:] = 2
        b.values["votes"][:, 0] = 17.0
        b.values["redshift"][:] = 5.0
        assert torch.equal(self.features(a), self.features(b))

    def test_few_votes_and_many_votes_differ(self):
        few, many = SCHEMA.ask(1, votes={"spiral": 0.9}), SCHEMA.ask(1, votes={"spiral": 0.9})
        few.values["votes"] /= 10
        assert not torch.allclose(self.features(few), self.features(many))

    def test_no_fields(self):
        embedding = ConditionEmbedding(ConditionSchema(), 8)
        assert torch.equal(embedding(None, 3, torch.device("cpu")), torch.zeros(3, 8))


class TestDihedral:
    def test_is_a_flip_then_quarter_turns(self):
        x = torch.arange(25.0).view(1, 1, 5, 5)
        for g in range(8):
            expected = torch.rot90(x.flip(3) if g >= 4 else x, g % 4, (2, 3))
            assert torch.equal(dihedral(x, torch.tensor([g])), expected)

    def test_reflections_are_those_that_reverse_orientation(self):
        # The sense of rotation of a vector field around the center changes sign under reflections only.
        grid = torch.linspace(-1, 1, 8)
        y, x = torch.meshgrid(grid, grid, indexing="ij")
        arm = torch.cos(2 * torch.atan2(y, x) - 4 * torch.hypot(x, y))[None, None]

        def winding(image):
            best = [
                (image * torch.cos(2 * torch.atan2(y, x) - s * 4 * torch.hypot(x, y) + p)).sum().item()
                for s in (1, -1)
                for p in torch.arange(0, 2 * math.pi, 0.1).tolist()
            ]
            return max(best[: len(best) // 2]) > max(best[len(best) // 2 :])

        for g in range(8):
            element = torch.tensor([g])
            assert winding(dihedral(arm, element)) == (not is_reflection(element).item())


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
def test_coder_shapes(factor):
    encoder, decoder = Encoder(2, 6, factor=factor, width=8, blocks=1), Decoder(3, 2, extra=5, factor=factor, width=8)
    h = encoder(torch.randn(2, 2, 32, 48))
    assert h.shape == (2, 6, 32 // factor, 48 // factor)
    image, extra = decoder(h[:, :3])
    assert image.shape == (2, 2, 32, 48)
    assert extra.shape == (2, 5, 32 // min(4, factor), 48 // min(4, factor))

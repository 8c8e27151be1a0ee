"""Sizes of networks: published operation counts, and the switches of the transformer."""

import pytest
import torch
from stirring import stirred
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from galdiff.config.networks import SIZES
from galdiff.nn import DiT, build_backbone
from galdiff.nn.size import network_size
from galdiff.schema.conditions import Class, ConditionSchema

SCHEMA = ConditionSchema([Class("morphology", ("a", "b", "c"))])


def dit(size, patch=2, **more):
    width, depth, heads = SIZES[size]
    return {"kind": "dit", "channels": 4, "patch": patch, "width": width, "depth": depth, "heads": heads, **more}


# Peebles & Xie 2023, Table 4, on latents of 4 x 32 x 32: "Gflops", which are multiply-adds, and parameters.
PUBLISHED = {
    ("S", 2): (6.06, 33),
    ("S", 4): (1.41, 33),
    ("B", 2): (23.01, 130),
    ("B", 4): (5.56, 130),
    ("L", 2): (80.71, 458),
    ("XL", 2): (118.64, 675),
    ("XL", 4): (29.05, 675),
}


@pytest.mark.parametrize(("size", "patch"), PUBLISHED)
def test_transformers_are_as_large_as_published(size, patch):
    found = network_size(dit(size, patch), SCHEMA, 32)
    multiply_adds, parameters = PUBLISHED[size, patch]
    assert found.flops == pytest.approx(2e9 * multiply_adds, rel=0.03)
    assert found.parameters == pytest.approx(1e6 * parameters, rel=0.03)
    assert (found.depth, found.width) == (SIZES[size][1], SIZES[size][0])


@pytest.mark.parametrize(
    "spec", [dit("tiny"), {"kind": "unet", "channels": 4}, {"kind": "edm2", "channels": 4, "widths": [32, 64]}]
)
def test_operations_are_those_of_a_real_pass(spec):
    network, x = build_backbone(spec, SCHEMA), torch.randn(2, 4, 9, 8)
    # Fused attention on a CPU is not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, torch.zeros(2), SCHEMA.empty(2))
    found = network_size(spec, SCHEMA, (9, 8))
    assert 2 * found.flops == counter.get_total_flops()
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert f"{found.parameters / 1e6:.2f} M" in str(found)


class TestSkips:
    def test_they_begin_as_none(self):
        torch.manual_seed(0)
        with_skips = DiT(4, SCHEMA, width=32, depth=5, heads=2, skips=True)
        torch.manual_seed(0)
        without = DiT(4, SCHEMA, width=32, depth=5, heads=2)
        x, level = torch.randn(2, 4, 8, 8), torch.zeros(2)
        with torch.no_grad():
            for network in (with_skips, without):
                network.out.weight.fill_(0.1)
        torch.testing.assert_close(with_skips(x, level), without(x, level))
        assert len(with_skips.merges) == 2

    def test_each_joins_a_block_with_its_mirror_image(self):
        network = stirred(DiT(4, SCHEMA, width=32, depth=5, heads=2, skips=True))
        spec = build_backbone(network.spec, SCHEMA).spec
        assert spec == network.spec
        network(torch.randn(2, 4, 6, 6), torch.zeros(2)).square().sum().backward()
        for merge in network.merges:
            own, skip = merge.weight.grad.chunk(2, dim=1)
            assert own.abs().sum() > 0
            assert skip.abs().sum() > 0


def test_rotary_positions_count_from_anywhere(monkeypatch):
    """Only differences of positions enter: centering the coordinates, for one, changes nothing."""
    from galdiff.nn import dit as module

    network = stirred(DiT(4, SCHEMA, width=64, depth=3, heads=2))
    x, level = torch.randn(2, 4, 12, 10), torch.zeros(2)
    plain, rotary = network(x, level), module._rotary

    def centered(h, w, head_width, device):
        cos, sin = rotary(2 * h, 2 * w, head_width, device)
        middle = lambda a: a.view(2 * h, 2 * w, -1)[h // 2 : h // 2 + h, w // 2 : w // 2 + w].flatten(0, 1)  # noqa: E731
        return middle(cos), middle(sin)

    monkeypatch.setattr(module, "_rotary", centered)
    torch.testing.assert_close(network(x, level), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "dit", "width": 32, "depth": 4, "heads": 2, "patch": 4},
        {"kind": "dit", "width": 32, "depth": 4, "heads": 2, "patch": 1},
        {"kind": "dit", "width": 32, "depth": 4, "heads": 2, "patch": 2, "skips": True},
        {"kind": "unet", "widths": [16, 16, 16], "head_width": 16},
        {"kind": "edm2", "widths": [16, 16], "blocks": 1, "head_width": 16},
    ],
    ids=lambda s: f"{s['kind']}{s.get('patch', '')}",
)
def test_any_size_and_any_number_of_channels(spec, channels):
    network = stirred(build_backbone({**spec, "channels": channels}, SCHEMA))
    for h, w in [(1, 1), (5, 7), (13, 4), (17, 17)]:
        out = network(torch.randn(2, channels, h, w), torch.zeros(2))
        assert out.shape == (2, channels, h, w)
        assert out.isfinite().all()

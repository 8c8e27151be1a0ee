"""Training under bfloat16 autocast stays finite and learns: on a CPU for some hundred steps, on a GPU for 10,000."""

import pytest
import torch

from galdiff.diffusion import Denoiser, Objective, RectifiedFlow
from galdiff.nn import build_backbone
from galdiff.randomness import Draws
from galdiff.schema.conditions import Class, ConditionSchema

SCHEMA = ConditionSchema([Class("morphology", ("a", "b"))])
BACKBONES = [
    {"kind": "unet", "channels": 4, "widths": [16, 16], "head_width": 16},
    {"kind": "edm2", "channels": 4, "widths": [16], "blocks": 1, "head_width": 16},
    {"kind": "dit", "channels": 4, "patch": 2, "width": 32, "depth": 4, "heads": 2},
]
SESSIONS = [
    pytest.param("cpu", 300, id="cpu", marks=pytest.mark.slow),
    pytest.param("cuda", 10_000, id="cuda", marks=[pytest.mark.gpu, pytest.mark.slow]),
]
BATCH = 4


@pytest.mark.parametrize(("device", "steps"), SESSIONS)
@pytest.mark.parametrize("spec", BACKBONES, ids=lambda s: s["kind"])
def test_it_stays_finite_and_learns(spec, device, steps):
    torch.manual_seed(0)
    denoiser = Denoiser(build_backbone(spec, SCHEMA), RectifiedFlow()).to(device).train()
    optimizer = torch.optim.AdamW(denoiser.parameters(), 2e-3, betas=(0.9, 0.95), fused=True)
    # Latents that are two patterns, one of each class, with some noise: half of the loss can be learned away.
    patterns = 2 * torch.randn(2, 4, 4, 4, device=device)
    kind = torch.arange(BATCH, device=device) % 2
    conditions = SCHEMA.ask(BATCH, {"morphology": ["a", "b"] * (BATCH // 2)}).to(device)
    losses, finite = [], torch.ones((), dtype=torch.bool, device=device)
    for step in range(steps):
        draws = Draws(0, range(BATCH * step, BATCH * step + BATCH), device)
        x = patterns[kind] + 0.1 * draws.normal("x", (4, 4, 4))
        with torch.autocast(device, torch.bfloat16):
            loss = Objective()(denoiser, x, draws, condition=conditions).per_sample.mean()
        optimizer.zero_grad()
        loss.backward()
        gradient = torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        finite &= torch.isfinite(loss.detach()) & torch.isfinite(gradient)
        losses.append(loss.detach())
    assert finite
    assert all(p.isfinite().all() for p in denoiser.parameters())
    losses = torch.stack(losses).cpu()
    assert losses[-20:].mean() < 0.5 * losses[:20].mean()

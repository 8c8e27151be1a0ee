"""The same on CUDA as on the CPU; float32 products are exact here, as they are on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import galdiff
from galdiff import LatentDiffusion
from galdiff.autoencoder import AutoencoderLoss, KLAutoencoder, build_autoencoder
from galdiff.data.stretch import Sqrt
from galdiff.diffusion import Denoiser, Objective, RectifiedFlow
from galdiff.imageformat import ImageFormat
from galdiff.metrics import morphology
from galdiff.model import DiffusionModel
from galdiff.nn import PatchDiscriminator, build_backbone
from galdiff.pipeline.autoencoder import AutoencoderTask
from galdiff.randomness import Draws, integers, normal, philox, uniform
from galdiff.schema.conditions import Class, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import GZ2_TREE
from galdiff.simulate import simulate_galaxies
from galdiff.training import train

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ConditionSchema(
    [Class("morphology", ("a", "b"), mirror=(("a", "b"),)), Scalar("redshift"), Votes("votes", GZ2_TREE)]
)
BACKBONES = [
    {"kind": "unet", "channels": 4, "widths": [32, 64], "blocks": 1},
    {"kind": "edm2", "channels": 4, "widths": [32, 64], "blocks": 1, "head_width": 32},
    {"kind": "dit", "channels": 4, "patch": 2, "width": 64, "depth": 2, "heads": 2},
]


@pytest.fixture(autouse=True)
def exact_products():
    if not torch.cuda.is_available():
        yield
        return
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [s.fp32_precision for s in settings]
    for s in settings:
        s.fp32_precision = "ieee"
    yield
    for s, precision in zip(settings, before, strict=True):
        s.fp32_precision = precision


def stirred(module, scale=0.1):
    """Give zero-initialized layers something to do."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


def tiny_model(device, backbone=BACKBONES[0]):
    torch.manual_seed(0)
    autoencoder = stirred(KLAutoencoder(3, width=16, blocks=1), 0.02).eval()
    denoiser = stirred(Denoiser(build_backbone(backbone, SCHEMA), RectifiedFlow())).eval()
    image_format = ImageFormat(("r", "g", "b"), 32, "display", Sqrt(1.0))
    sampling = {"sampler": "heun", "steps": 4, "guidance": 1.5}
    mean, std = torch.zeros(4), torch.ones(4)
    return DiffusionModel(autoencoder, denoiser, SCHEMA, image_format, mean, std, sampling).to(device)


@pytest.mark.gpu
class TestNumbers:
    INDEX = torch.tensor([0, 1, 17, 2**31, 2**40 + 3])

    def test_integers_are_the_same_bits(self):
        words = [philox((self.INDEX.to(d), 1, 2, 3), (4, 5)) for d in ("cpu", "cuda")]
        for here, there in zip(*words, strict=True):
            assert torch.equal(here, there.cpu())
        for draw in (lambda i: integers(3, "a", i, 8, (5,)), lambda i: uniform(3, "b", i, (7,))):
            assert torch.equal(draw(self.INDEX), draw(self.INDEX.cuda()).cpu())

    def test_normal_numbers_are_close(self):
        here, there = (normal(0, "noise", self.INDEX.to(d), (4, 32, 32)) for d in ("cpu", "cuda"))
        torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_morphology_is_the_same():
    images = torch.from_numpy(simulate_galaxies(40, seed=0, size=64)[0])
    here, there = (morphology(images.to(d)) for d in ("cpu", "cuda"))
    assert (here["flag"] == there["flag"]).mean() > 0.9
    for name in ("gini", "m20", "concentration", "asymmetry", "r50", "sersic_index"):
        assert float(abs(here[name] - there[name]).median()) < 1e-4, name


@pytest.mark.parametrize("spec", BACKBONES, ids=lambda s: s["kind"])
class TestBackbones:
    @pytest.mark.gpu
    def test_forward_is_the_same(self, spec):
        backbone = stirred(build_backbone(spec, SCHEMA)).eval()
        x, level = normal(0, "x", torch.arange(3), (4, 16, 16)), torch.tensor([-1.0, 0.0, 1.0])
        conditions = SCHEMA.ask(3, morphology=["a", "b", "a"], redshift=0.1, votes={"spiral": 0.9})
        with torch.no_grad():
            here = backbone(x, level, conditions)
            there = backbone.cuda()(x.cuda(), level.cuda(), conditions.to("cuda")).cpu()
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)

    # Autocast on a CPU follows the same rules of types.
    @pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
    def test_a_bfloat16_step_is_finite_and_learns(self, spec, device):
        torch.manual_seed(0)
        denoiser = Denoiser(build_backbone(spec, SCHEMA), RectifiedFlow()).to(device).train()
        optimizer = torch.optim.AdamW(denoiser.parameters(), 1e-3, fused=True)
        draws = Draws(0, range(8), device)
        x = draws.normal("x", (4, 16, 16))
        conditions, losses = SCHEMA.ask(8, morphology="b", votes={"bar": 0.5}).to(device), []
        for _ in range(12):
            with torch.autocast(device, torch.bfloat16):
                loss = Objective()(denoiser, x, draws, condition=conditions).per_sample.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert all(p.grad is None or p.grad.isfinite().all() for p in denoiser.parameters())
        assert losses[-1] < losses[0]


@pytest.mark.gpu
def test_an_adversary_is_shown_grain_under_bfloat16():
    torch.manual_seed(0)
    autoencoder = KLAutoencoder(3, width=16, blocks=1).cuda().train()
    task = AutoencoderTask(
        autoencoder,
        torch.rand(64, 3, 32, 32, device="cuda"),
        ImageFormat(("r", "g", "b"), 32, "display", Sqrt(1.0)),
        AutoencoderLoss(adversarial=0.5),
        seed=0,
        discriminator=PatchDiscriminator(3, width=16).cuda(),
    )
    with torch.autocast("cuda", torch.bfloat16):
        loss, figures = task.loss(torch.arange(16), range(16))
    loss.backward()
    assert torch.isfinite(loss)
    assert "d_real" in figures


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("spec", BACKBONES, ids=lambda s: s["kind"])
def test_a_compiled_step_never_compiles_again(spec):
    import torch._dynamo

    torch._dynamo.reset()
    torch.manual_seed(0)
    denoiser = Denoiser(build_backbone(spec, SCHEMA), RectifiedFlow()).cuda().train()
    denoiser.backbone.compile(dynamic=False)
    optimizer = torch.optim.AdamW(denoiser.parameters(), 1e-3, fused=True)
    conditions, losses = SCHEMA.ask(8, morphology="b", votes={"bar": 0.5}).to("cuda"), []
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(20):
            draws = Draws(0, range(8 * step, 8 * step + 8), "cuda")
            with torch.autocast("cuda", torch.bfloat16):
                loss = Objective()(denoiser, draws.normal("x", (4, 16, 16)), draws, condition=conditions)
            optimizer.zero_grad()
            loss.per_sample.mean().backward()
            optimizer.step()
            losses.append(float(loss.per_sample.detach().mean()))
    assert np.isfinite(losses).all()


@pytest.mark.gpu
def test_sampling_in_bfloat16_is_near():
    model, seeds = tiny_model("cuda"), torch.arange(4)
    conditions = SCHEMA.ask(4, votes={"spiral": 0.8})
    exact, rough = (
        torch.cat(list(model.generate(model.sampler(), seeds, conditions, noise=False, precision=p)))
        for p in ("float32", "bfloat16")
    )
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler"])
def test_sampling_is_the_same(sampler):
    seeds, drawn = torch.tensor([3, 4, 11]), []
    for device in ("cpu", "cuda"):
        model = tiny_model(device)
        conditions = SCHEMA.ask(3, votes={"spiral": 0.8})
        drawn.append(torch.cat(list(model.generate(model.sampler(sampler=sampler), seeds, conditions, batch=2))))
    assert drawn[0].std() > 0
    torch.testing.assert_close(drawn[1], drawn[0], rtol=0, atol=1e-4)


CODERS = [
    {"kind": "kl"},
    {"kind": "vq", "codes": 64, "stem": "haar", "attention": True, "norm": "rms"},
    {"kind": "fsq", "levels": [8, 5]},
]


def autoencoder_task(device, spec=CODERS[0]):
    torch.manual_seed(0)
    autoencoder = build_autoencoder({"bands": 3, "width": 16, "blocks": 1, **spec}).to(device)
    pixels = torch.rand(96, 3, 32, 32, generator=torch.Generator().manual_seed(1)).half()
    image_format = ImageFormat(("r", "g", "b"), 32, "display", Sqrt(1.0))
    return AutoencoderTask(autoencoder, pixels, image_format, AutoencoderLoss(), seed=0)


ARGUMENTS = {"images": 480, "batch": 16, "seed": 0, "learning_rate": 1e-3, "device": "cuda", "save_every": 160}


@pytest.mark.gpu
class TestTraining:
    @pytest.mark.parametrize("spec", CODERS, ids=lambda spec: spec["kind"])
    def test_trains_and_goes_on(self, tmp_path, spec):
        task = autoencoder_task("cuda", spec)
        loss = task.loss

        def interrupted(rows, positions):
            if int(positions[0]) >= 240:
                raise KeyboardInterrupt
            return loss(rows, positions)

        task.loss = interrupted
        with pytest.raises(KeyboardInterrupt):
            train(task, tmp_path, **ARGUMENTS)
        metrics = tmp_path / "metrics.jsonl"
        result = train(autoencoder_task("cuda", spec), tmp_path, metrics=metrics, **ARGUMENTS)
        assert (result.images, result.skipped_steps) == (480, 0)
        line = json.loads(metrics.read_text().splitlines()[-1])
        assert np.isfinite(line["loss"])
        assert line["loss"] < 1.0

    def test_bad_numbers_are_skipped_on_the_device(self, tmp_path):
        task = autoencoder_task("cuda")
        loss = task.loss

        def poisoned(rows, positions):
            value, figures = loss(rows, positions)
            return value * torch.where((positions == 160).any(), torch.nan, 1.0), figures

        task.loss = poisoned
        result = train(task, tmp_path, **ARGUMENTS)
        assert result.skipped_steps == 1
        assert all(v.isfinite().all() for v in result.ema_state.values())

    @pytest.mark.parametrize("spec", CODERS, ids=lambda spec: spec["kind"])
    def test_no_step_waits_for_the_device(self, tmp_path, spec):
        task = autoencoder_task("cuda", spec)
        task.cutouts = task.cutouts.to(torch.device("cuda"))
        loss, steps = task.loss, 0

        def watched(rows, positions):
            # From the second step to the last but one: the first fills caches, the last writes.
            nonlocal steps
            steps += 1
            torch.cuda.set_sync_debug_mode("error" if 2 <= steps < 9 else "default")
            return loss(rows, positions)

        task.loss = watched
        try:
            train(task, tmp_path, log_every=1e9, **{**ARGUMENTS, "images": 160, "save_every": 10_000})
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert steps == 10


@pytest.mark.gpu
@pytest.mark.slow
def test_the_whole_flow_runs(tmp_path):
    small = {
        "data.simulate.n": 160,
        "data.simulate.size": 32,
        "data.size": 32,
        "autoencoder": {"images": 320, "width": 16, "blocks": 1, "warmup_images": 64, "plot_every": 320},
        "denoiser": {"images": 320, "backbone": "dit", "warmup_images": 64, "plot_every": 320},
        "sampling": {"n": 16, "steps": 2, "asks": {"any": {}}},
    }
    run = galdiff.train("quickstart", out=tmp_path, device="cuda", quiet=True, **small)
    assert (run / "report.html").is_file()
    here, there = (LatentDiffusion.load(run, device=d).sample(2, noise=False) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(there.values, here.values, atol=1e-3)


@pytest.mark.slow
def test_the_benchmark_runs_small_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--smoke", "--parts", "speed", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["matmul"]["tflops"] > 0
    cases = {name: case for name, case in result.items() if name.startswith("speed/")}
    assert len(cases) == 6
    for name, case in cases.items():
        assert "error" not in case, (name, case)
        assert case["recompiled_steps"] == 0
        assert case["training_flops_per_image"] > 0
        assert case["sampling_images_per_second"] > 0

"""The whole flow with every kind of autoencoder; a codebook's training is the same bits after a kill."""

import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch

import galdiff
from galdiff import LatentDiffusion
from galdiff.autoencoder import AutoencoderLoss, build_autoencoder, load_autoencoder
from galdiff.data.stretch import Stretch
from galdiff.errors import CatalogFileError, GaldiffError, StaleRunError
from galdiff.imageformat import ImageFormat
from galdiff.latents import CutoutStore, LatentStore
from galdiff.pipeline.autoencoder import AutoencoderTask
from galdiff.progress import quiet
from galdiff.stages import STAGES
from galdiff.training import load_latest, read_metrics, train

TRAINED = "images: 96, batch: 16, width: 8, warmup_images: 16, plot_every: 96"
CATALOG = """\
name: {name}
data: {{kind: gz2, root: ../data, size: 24}}
autoencoder: {autoencoder}
denoiser: {{images: 96, batch: 16, backbone: {{kind: unet, widths: [8]}}, warmup_images: 16, plot_every: 96}}
sampling: {{n: 8, steps: 2, sampler: euler, guidance: 1, asks: {{any: {{}}}}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with simulated galaxies and a pretrained autoencoder."""
    from galdiff.simulate import write_gz2

    folder = tmp_path_factory.mktemp("kinds")
    write_gz2(folder / "data", n=48, seed=0, size=24)
    return folder


def pretrained(folder, bands=3):
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.AutoencoderKL(
        in_channels=bands,
        out_channels=bands,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[4, 4],
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=2,
        scaling_factor=0.5,
    )
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["identity", "vq", "fsq", "diffusers"])
def test_from_images_to_the_report(place, kind):
    sections = {
        "identity": "identity",
        "vq": f"{{kind: vq, factor: 8, channels: 2, codes: 16, {TRAINED}}}",
        "fsq": f"{{kind: fsq, factor: 4, levels: [5, 4], {TRAINED}}}",
        "diffusers": "{kind: diffusers, folder: ../pretrained}",
    }
    if kind == "diffusers":
        pretrained(place / "pretrained")
    (place / "catalogs").mkdir(exist_ok=True)
    path = place / "catalogs" / f"{kind}.yaml"
    path.write_text(CATALOG.format(name=kind, autoencoder=sections[kind]))
    run = galdiff.train(path, out=place / "runs", quiet=True, device="cpu")
    assert all((run / "stages" / f"{stage}.json").is_file() for stage in STAGES)
    assert (run / "report.html").is_file()
    if kind == "diffusers":
        shutil.rmtree(place / "pretrained")  # the run has its own copy
    model = LatentDiffusion.load(run, device="cpu")
    assert model.model.autoencoder.spec["kind"] == kind
    two, one = model.sample(2, seed=5), model.sample(1, seed=6)
    np.testing.assert_allclose(one.values[0], two.values[1], atol=1e-4)
    cutouts, latents = CutoutStore.open(run / "cutouts.zarr"), LatentStore.open(run / "latents.zarr")
    images = cutouts.images(np.arange(4))
    side = 24 // model.model.autoencoder.factor
    assert latents.array("mean").shape[1:] == (model.model.autoencoder.latent_channels, side, side)
    lines = read_metrics(run / "metrics.jsonl", "autoencoder")
    if kind == "identity":
        np.testing.assert_allclose(model.reconstruct(images), images, atol=1e-6)
        np.testing.assert_array_equal(model.sample(1, seed=6, noise=False), one)
        stretched = model.model.format.stretch(torch.from_numpy(images).float())
        np.testing.assert_allclose(latents.read("mean", np.arange(4)), stretched, atol=5e-4)
    else:
        assert np.abs(model.sample(1, seed=6, noise=False) - one).max() > 0
    if kind in ("vq", "fsq"):
        assert any({"perplexity", "codes_used"} <= line.keys() for line in lines)
        assert "kl" not in lines[-1]
        posterior = latents.read("log_var", np.arange(4))
        assert np.exp(0.5 * posterior.astype(np.float32)).max() == 0
    else:
        assert lines == []


class TestFit:
    def sections(self, **autoencoder):
        small = {"images": 32, "batch": 16, "backbone": {"kind": "unet", "widths": [8]}, "warmup_images": 16}
        sampling = {"sampler": "euler", "steps": 2, "guidance": 1}
        return {"autoencoder": autoencoder, "denoiser": {**small, "plot_every": 64}, "sampling": sampling}

    def test_in_pixel_space(self, place, tmp_path):
        dataset = galdiff.GZ2Dataset(place / "data", size=16)
        model = LatentDiffusion.fit(dataset, tmp_path / "run", device="cpu", **self.sections(kind="identity"))
        images = np.stack([dataset.read(i) for i in range(3)])
        np.testing.assert_allclose(model.reconstruct(images), images, atol=1e-6)
        assert model.sample(2).shape == (2, 3, 16, 16)
        assert model.model.denoiser.backbone.spec["channels"] == 3
        with pytest.raises(StaleRunError, match=r"model\.kind: \"identity\" -> null"):
            LatentDiffusion.fit(dataset, tmp_path / "run", device="cpu", **self.sections())
        assert json.loads((tmp_path / "run" / "autoencoder" / "spec.json").read_text()) == {
            "kind": "identity",
            "bands": 3,
        }

    def test_mistakes_come_before_any_work(self, place, tmp_path):
        dataset = galdiff.GZ2Dataset(place / "data", size=20)
        for autoencoder, message in (
            ({"kind": "vq"}, "8 does not divide the side of the images, 20"),
            ({"kind": "identity", "factor": 8}, r"autoencoder\.factor: "),
        ):
            with pytest.raises(CatalogFileError, match=message):
                LatentDiffusion.fit(dataset, tmp_path / "run", device="cpu", **self.sections(**autoencoder))
        assert not (tmp_path / "run").exists()

    def test_a_pretrained_one_that_is_none(self, place, tmp_path):
        pytest.importorskip("diffusers")
        dataset = galdiff.GZ2Dataset(place / "data", size=20)
        none = self.sections(kind="diffusers", folder=str(tmp_path / "none"))
        with pytest.raises(CatalogFileError, match="is not a model of diffusers"):
            LatentDiffusion.fit(dataset, tmp_path / "run", device="cpu", **none)
        assert not (tmp_path / "run").exists()

    def test_a_pretrained_one_of_other_bands(self, place, tmp_path):
        dataset = galdiff.GZ2Dataset(place / "data", size=16)
        folder = str(pretrained(tmp_path / "grey", bands=1))
        with pytest.raises(GaldiffError, match=r"has 1 bands \(in_channels\), the images have 3"):
            LatentDiffusion.fit(
                dataset, tmp_path / "run", device="cpu", **self.sections(kind="diffusers", folder=folder)
            )


BAD_STEP = 64


def session(folder, fault):
    """Train a codebook in a process of its own, with a step whose gradient is not finite."""
    torch.set_num_threads(1)
    os.environ.pop("GALDIFF_FAULT", None)
    if fault:
        os.environ["GALDIFF_FAULT"] = fault
    torch.manual_seed(0)
    pixels = torch.rand(40, 2, 16, 16)
    spec = {"kind": "vq", "bands": 2, "factor": 4, "channels": 2, "codes": 32, "width": 8, "blocks": 1}
    image_format = ImageFormat(("g", "r"), 16, "display", Stretch.from_dict({"kind": "linear"}).fit(pixels.numpy()))
    task = AutoencoderTask(build_autoencoder(spec), pixels, image_format, AutoencoderLoss(kl=0.0), seed=3)
    plain = task.loss

    def loss(rows, positions):
        value, figures = plain(rows, positions)
        return value * (torch.inf if BAD_STEP in positions else 1.0), figures

    task.loss = loss
    with quiet():
        result = train(
            task,
            folder,
            images=128,
            batch=16,
            seed=3,
            learning_rate=1e-2,
            save_every=32,
            metrics=folder / "metrics.jsonl",
            log_every=0.0,
        )
    assert result.skipped_steps == 1
    task.model.load_state_dict(result.ema_state)
    task.model.save(folder)


def test_a_codebook_is_the_same_bits_after_kills(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["galdiff.pipeline.autoencoder", "hypothesis", "pytest", "torch._dynamo"])

    def run(folder, fault=None):
        folder.mkdir(exist_ok=True)
        process = context.Process(target=session, args=(folder, fault))
        process.start()
        process.join(120)
        return process.exitcode

    assert run(tmp_path / "whole") == 0
    codes = [run(tmp_path / "killed", "after-rename") for _ in range(3)]
    assert codes == [-signal.SIGKILL] * 3
    assert run(tmp_path / "killed") == 0
    whole, killed = (load_latest(tmp_path / name)[0] for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert whole["model.quantizer.steps"] == 128 // 16 - 1
    for name in ("encoder", "decoder"):
        files = [(tmp_path / k / f"{name}.safetensors").read_bytes() for k in ("whole", "killed")]
        assert files[0] == files[1]
    model = load_autoencoder(tmp_path / "killed")
    assert torch.isfinite(model.quantizer.codes).all()

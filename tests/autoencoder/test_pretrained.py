"""A pretrained autoencoder of diffusers gives what diffusers gives."""

import json
import shutil
import sys

import pytest
import torch

from galdiff.autoencoder import build_autoencoder, load_autoencoder
from galdiff.autoencoder.pretrained import find_pretrained
from galdiff.errors import CheckpointError, ResourceError

diffusers = pytest.importorskip("diffusers")

NORMS = [
    {},
    {"scaling_factor": 0.13025},
    {"scaling_factor": 0.3611, "shift_factor": 0.1159},
    {"scaling_factor": 0.5, "latents_mean": [0.1, -0.2, 0.3], "latents_std": [0.5, 2.0, 1.5]},
    {"use_quant_conv": False, "use_post_quant_conv": False},
]


def write(folder, bands=3, **options):
    """Write a tiny random model as diffusers does, and return it."""
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        in_channels=bands,
        out_channels=bands,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 8],
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=4,
        **options,
    )
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    write(folder)
    return folder


@pytest.mark.parametrize("options", NORMS, ids=lambda o: "+".join(o) or "plain")
@torch.no_grad()
def test_encodes_and_decodes_as_diffusers(tmp_path, options):
    theirs = write(tmp_path, **options)
    ours = build_autoencoder({"kind": "diffusers", "bands": 3, "folder": tmp_path}).eval()
    assert (ours.factor, ours.latent_channels) == (2, 3)
    x = torch.randn(2, 3, 12, 20)
    posterior, expected = ours.encode(x), theirs.encode(x).latent_dist
    config = theirs.config
    scale = config.scaling_factor
    # As diffusers' pipelines write it: img2img of SDXL with statistics, Flux with a shift, else the factor alone.
    if getattr(config, "latents_mean", None):
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.latents_mean, config.latents_std))
        z, raw = (expected.mean - mean) * scale / std, posterior.mean * std / scale + mean
        std = expected.std * scale / std
    else:
        shift = getattr(config, "shift_factor", None) or 0.0
        z, raw, std = (expected.mean - shift) * scale, posterior.mean / scale + shift, expected.std * scale
    torch.testing.assert_close(posterior.mean, z)
    torch.testing.assert_close((0.5 * posterior.log_var).exp(), std)
    torch.testing.assert_close(ours.decode(posterior.mean).mean, theirs.decode(raw).sample)


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_any_number_of_bands(tmp_path, bands):
    write(tmp_path, bands)
    model = build_autoencoder({"kind": "diffusers", "bands": bands, "folder": tmp_path})
    assert model.decode(model.encode(torch.randn(1, bands, 6, 10)).mean).mean.shape == (1, bands, 6, 10)


@torch.no_grad()
def test_a_copy_needs_the_folder_no_more(tmp_path):
    write(tmp_path / "theirs", scaling_factor=0.3, shift_factor=0.1)
    model = build_autoencoder({"kind": "diffusers", "bands": 3, "folder": tmp_path / "theirs"}).eval()
    x = torch.randn(2, 3, 16, 16)
    model.calibrate(x)
    model.save(tmp_path / "ours")
    shutil.rmtree(tmp_path / "theirs")
    assert str(tmp_path) not in (tmp_path / "ours" / "spec.json").read_text()
    again, encoder, decoder = (load_autoencoder(tmp_path / "ours", part) for part in (None, "encoder", "decoder"))
    z = model.encode(x).mean
    assert torch.equal(again.encode(x).mean, z)
    assert torch.equal(encoder.encode(x).mean, z)
    for other in (again, decoder):
        assert torch.equal(other.decode(z).sample(0, torch.arange(2)), model.decode(z).sample(0, torch.arange(2)))


@torch.no_grad()
def test_the_grain_has_the_power_of_what_reconstructions_leave(pretrained):
    model = build_autoencoder({"kind": "diffusers", "bands": 3, "folder": pretrained}).eval()
    torch.manual_seed(0)
    x = 0.3 * torch.randn(32, 3, 24, 24)  # a random decoder gives a smooth image; the noise is all in the residual
    model.calibrate(x)
    decoded = model.decode(model.encode(x).mean)
    residual, drawn = x - decoded.mean, decoded.sample(0, torch.arange(32)) - decoded.mean
    power, expected = (torch.fft.rfft2(y).abs().square().mean(dim=0)[:, 6:18, 6:].mean() for y in (drawn, residual))
    assert (power / expected).item() == pytest.approx(1.0, rel=0.15)


class TestRefused:
    def test_other_bands(self, pretrained):
        with pytest.raises(CheckpointError, match=r"has 3 bands \(in_channels\), the images have 1"):
            build_autoencoder({"kind": "diffusers", "bands": 1, "folder": pretrained})

    def test_pickles(self, pretrained, tmp_path):
        shutil.copytree(pretrained, tmp_path / "copy")
        weights = tmp_path / "copy" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(CheckpointError, match=r"no weights in safetensors.*could run code"):
            build_autoencoder({"kind": "diffusers", "bands": 3, "folder": tmp_path / "copy"})

    @pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"_class_name": "UNet2DModel"}'])
    def test_no_such_model(self, tmp_path, text):
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="AutoencoderKL"):
            find_pretrained(tmp_path, 3)

    def test_another_class(self, pretrained, tmp_path):
        config = json.loads((pretrained / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "VQModel"}))
        with pytest.raises(CheckpointError, match="holds a 'VQModel', not an 'AutoencoderKL'"):
            find_pretrained(tmp_path, 3)

    def test_damaged_weights(self, pretrained, tmp_path):
        shutil.copytree(pretrained, tmp_path / "copy")
        weights = tmp_path / "copy" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-50])
        with pytest.raises(CheckpointError, match="cannot be read"):
            build_autoencoder({"kind": "diffusers", "bands": 3, "folder": tmp_path / "copy"})

    def test_without_diffusers(self, pretrained, monkeypatch):
        monkeypatch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(ResourceError, match=r"pip install galdiff\[diffusers\]"):
            build_autoencoder({"kind": "diffusers", "bands": 3, "folder": pretrained})


def test_the_folder_of_a_pipeline(tmp_path):
    write(tmp_path / "vae")
    assert find_pretrained(tmp_path, 3)[0] == tmp_path / "vae"

"""What holds for every kind of autoencoder."""

import json

import pytest
import torch

from galdiff.autoencoder import (
    KINDS,
    AutoencoderLoss,
    LatentPosterior,
    SkyAutoencoder,
    build_autoencoder,
    load_autoencoder,
)
from galdiff.errors import CheckpointError
from galdiff.randomness import Draws

NETWORK = {"width": 8, "blocks": 1}
SPECS = [
    {"kind": "kl", "channels": 3, **NETWORK},
    {"kind": "kl", "channels": 3, "stem": "haar", "attention": True, "norm": "rms", "activation": "tanh", **NETWORK},
    {"kind": "vq", "channels": 3, "codes": 16, **NETWORK},
    {"kind": "fsq", "levels": [5, 4, 3], **NETWORK},
]
EVERY = [*SPECS, {"kind": "identity"}]


def name_of(spec):
    return spec["kind"] + ("+" if "stem" in spec else "")


def build(spec, bands, factor=4):
    torch.manual_seed(0)
    given = {**spec, "bands": bands}
    return build_autoencoder(given if spec["kind"] == "identity" else {**given, "factor": factor})


@pytest.mark.parametrize("bands", [1, 2, 5])
@pytest.mark.parametrize("spec", EVERY, ids=name_of)
def test_any_number_of_bands_and_odd_latents(spec, bands):
    model = build(spec, bands, 8).eval()
    x = torch.randn(2, bands, 24, 40)
    posterior = model.encode(x)
    assert posterior.mean.shape == (2, model.latent_channels, 24 // model.factor, 40 // model.factor)
    decoded = model.decode(posterior.mean)
    assert decoded.mean.shape == x.shape
    index = torch.tensor([3, 4])
    drawn = decoded.sample(0, index)
    assert drawn.shape == x.shape
    assert torch.equal(drawn, decoded.mean) == (not isinstance(model, SkyAutoencoder))
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
@pytest.mark.parametrize("factor", [1, 16])
def test_smallest_and_largest_factor_learn(spec, factor):
    model = build(spec, 2, factor)
    x = torch.randn(2, 2, 48, 48)
    loss, figures = AutoencoderLoss(kl=0.0)(model, x, Draws(0, range(2)))
    loss.backward()
    assert torch.isfinite(loss)
    assert "kl" not in figures
    # The branches start at zero, so that what is behind them is not moved by the first step; all else is.
    assert model.encoder.layers[1].weight.grad.abs().max() > 0
    assert ("perplexity" in figures) == (spec["kind"] in ("vq", "fsq"))


@pytest.mark.parametrize("spec", EVERY, ids=name_of)
def test_saved_and_loaded_whole_and_in_halves(spec, tmp_path):
    model = build(spec, 2).eval()
    x = torch.randn(2, 2, 16, 16)
    model.calibrate(x)
    model.save(tmp_path)
    again, encoder, decoder = (load_autoencoder(tmp_path, part) for part in (None, "encoder", "decoder"))
    assert again.spec == model.spec == json.loads((tmp_path / "spec.json").read_text())
    z = model.encode(x).mean
    assert torch.equal(again.encode(x).mean, z)
    assert torch.equal(encoder.encode(x).mean, z)
    index = torch.arange(2)
    for other in (again, decoder):
        assert torch.equal(other.decode(z).sample(0, index), model.decode(z).sample(0, index))
    assert not any(name.startswith("decoder") for name in encoder.state_dict())
    assert not any(name.startswith("encoder") for name in decoder.state_dict())


def test_a_spec_is_as_it_was_before_there_was_a_choice():
    model = build_autoencoder({"kind": "kl", "bands": 3, "width": 8, "stem": "unshuffle", "norm": "group"})
    assert model.spec == {"kind": "kl", "bands": 3, "factor": 8, "channels": 8, "width": 8, "blocks": 1}
    assert {name.split(".")[0] for name in model.state_dict()} == {"encoder", "decoder", "grain"}
    assert "encoder.layers.2.depthwise.weight" in model.state_dict()


def test_nothing_is_drawn_of_a_certain_posterior():
    mean = torch.randn(2, 3, 4, 4)
    posterior = LatentPosterior.certain(mean)
    assert torch.equal(posterior.sample(100 * torch.randn_like(mean)), mean)
    stored = LatentPosterior(mean, posterior.log_var.half().float())
    assert torch.equal(stored.sample(torch.randn_like(mean)), mean)


def test_unknown_kinds(tmp_path):
    with pytest.raises(CheckpointError, match="unknown autoencoder 'vae'") as caught:
        build_autoencoder({"kind": "vae", "bands": 3})
    assert all(kind in str(caught.value) for kind in KINDS)
    (tmp_path / "spec.json").write_text('{"bands": 3}')
    with pytest.raises(CheckpointError, match="unknown autoencoder 'None'"):
        load_autoencoder(tmp_path)
    (tmp_path / "spec.json").write_text('{"kind": "identity", "bands": 3, "factor": 2}')
    with pytest.raises(CheckpointError, match="cannot load the autoencoder"):
        load_autoencoder(tmp_path)

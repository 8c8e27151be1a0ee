"""Samples alone, done again with other options: they are drawn by them, and so is what the model draws from then on."""

import json

import xarray as xr

import galdiff
from galdiff import LatentDiffusion
from galdiff.pipeline import STAGES

SMALL = {
    "data.simulate": {"n": 60, "size": 16},
    "data.size": 16,
    "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    "autoencoder": "identity",
    "denoiser": {"images": 32, "batch": 16, "backbone": {"kind": "unet", "widths": [8]}},
}
SAMPLING = {"n": 4, "asks": {"any": {}}, "sweeps": {}}


def train(out, sampling, **more):
    return galdiff.train(
        "quickstart", out=out, quiet=True, device="cpu", sampling={**SAMPLING, **sampling}, **SMALL, **more
    )


def guidances(run):
    return set(xr.open_zarr(run / "samples.zarr", group="grid", consolidated=False)["guidance"].values.tolist())


def test_they_follow_the_catalog_file_as_it_is_now(tmp_path):
    run = train(tmp_path, {"sampler": "ddpm", "steps": 3, "guidance": 2, "noise_scale": 0.9}, stages=STAGES[:5])
    assert guidances(run) == {1.0, 2.0}
    weights = (run / "denoiser" / "weights.safetensors").read_bytes()
    train(tmp_path, {"sampler": "euler", "steps": 2, "guidance": 3}, stages=["samples"], redo=["samples"])
    assert guidances(run) == {1.0, 3.0}
    model = LatentDiffusion.load(run, device="cpu")
    assert model.model.sampling == {"sampler": "euler", "steps": 2, "guidance": 3.0, "rescale": 0.0}
    assert type(model.model.sampler()).__name__ == "Euler"
    assert (run / "denoiser" / "weights.safetensors").read_bytes() == weights
    assert json.loads((run / "stages" / "samples.json").read_text())["inputs"]["sampler"] == "euler"

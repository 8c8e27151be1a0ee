"""Samples alone, done again with other options: they are drawn by them, and so is what the model draws from then on."""

import json

import pytest
import xarray as xr

import galdiff
from galdiff import LatentDiffusion
from galdiff.errors import CheckpointError, StoreError
from galdiff.pipeline import STAGES
from galdiff.pipeline.external import evaluate

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
    assert_damaged_samples_are_named(tmp_path, run)
    # Beside the grid without guidance there is one with the weights that weaken a condition.
    weaker = {"spiral": 1, "bar": 0.5}
    train(tmp_path, {"sampler": "euler", "steps": 2, "guidance": weaker}, stages=["samples"], redo=["samples"])
    assert guidances(run) == {1.0, 0.5}
    assert_damage_is_named(tmp_path, run)


def assert_damaged_samples_are_named(out, run):
    """An evaluation that stops in the middle says what it cannot read, and what to do."""
    damages = {
        "zarr.json": "has no image, row",
        "image/zarr.json": "cannot be read: JSONDecodeError|has no image",
        "image/c/0/0/0/0": "cannot be read",
        "row/c/0": "cannot be read|not held out",
    }
    for name, words in damages.items():
        path = run / "samples.zarr" / "evaluation" / name
        whole = path.read_bytes()
        if name == "zarr.json":
            path.unlink()
        else:
            path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(StoreError, match=words) as caught:
            train(out, {"sampler": "euler", "steps": 2, "guidance": 3}, stages=["evaluation"])
        assert "--redo" in str(caught.value)
        with pytest.raises(StoreError, match=r"samples\.zarr"):
            evaluate(run / "cutouts.zarr", run, judges=False, memorisation=False)
        path.write_bytes(whole)
    (run / "samples.zarr" / "evaluation" / "image" / "c" / "0" / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="'evaluation' does not match its hash"):
        train(out, {"sampler": "euler", "steps": 2, "guidance": 3}, stages=["evaluation"])
    assert not (run / "evaluation.json").exists()


def assert_damage_is_named(out, run):
    """The same words, with what to do, wherever a stage finds the denoiser's description damaged; and no new one."""
    spec = run / "denoiser" / "spec.json"
    for damaged, why in (
        (b"", "Expecting value"),
        (b"[1]", "list"),
        (b'{"schema": \xff' + 999 * b" ", "utf-8"),
        (None, ""),
    ):
        spec.unlink() if damaged is None else spec.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"denoiser.*{why}|no trained denoiser") as caught:
            train(out, {"sampler": "ddim"}, stages=["samples"], redo=["samples"])
        assert "--redo denoiser" in str(caught.value) or damaged is None
        assert len(str(caught.value)) < 500
        assert spec.exists() == (damaged is not None)

"""The whole flow on a small scale: what it leaves, how it resumes, and what it refuses."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr
from damage import flip

import galdiff
from galdiff import LatentDiffusion
from galdiff.autoencoder import load_autoencoder
from galdiff.errors import CheckpointError, GaldiffError, ResourceError, StaleRunError
from galdiff.latents import CutoutStore
from galdiff.pipeline import STAGES, Run
from galdiff.pipeline.records import differences

SMALL = {
    "data.simulate.n": 160,
    "data.simulate.size": 32,
    "data.size": 32,
    "autoencoder": {"images": 640, "width": 16, "blocks": 1, "save_every": 128, "plot_every": 640, "warmup_images": 64},
    "denoiser": {
        "images": 640,
        "backbone": {"kind": "unet", "widths": [16]},
        "save_every": 128,
        "plot_every": 640,
        "warmup_images": 64,
    },
    "sampling": {"n": 16, "steps": 3, "guidance": 1.5, "asks": {"edge_on": {"votes": {"edge_on": 0.9}}, "any": {}}},
}


def train(out, **more):
    return galdiff.train("quickstart", out=out, quiet=True, **{**SMALL, **more})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
class TestFinishedRun:
    def test_every_stage_left_its_record_and_files(self, finished):
        for stage in STAGES:
            assert json.loads((finished / "stages" / f"{stage}.json").read_text())["inputs"]
        expected = {"autoencoder", "cutouts.zarr", "denoiser", "evaluation.json", "evaluation.zarr", "latents.zarr"}
        expected |= {"metrics.jsonl", "report.html", "samples.zarr", "catalog.yaml"}
        assert expected <= {p.name for p in finished.iterdir()}
        assert not list(finished.rglob("*.tmp"))

    def test_stores_open_in_xarray_with_their_conditions(self, finished):
        latents = xr.open_zarr(finished / "latents.zarr", consolidated=False)
        assert latents["mean"].dims == ("sample", "channel", "y", "x")
        assert {"id", "split", "votes", "votes_mask"} <= set(latents.variables)
        assert latents.attrs["complete"] is True

    def test_a_run_gives_the_threads_back(self, finished):
        before = torch.get_num_threads()
        train(finished.parent, threads=before + 1)
        assert torch.get_num_threads() == before

    def test_small_samples_are_too_few_and_not_a_number(self, finished):
        figures = {f["name"]: f for f in json.loads((finished / "evaluation.json").read_text())["figures"]}
        assert figures["FD_all"]["status"] == "too few"
        assert figures["FD_all"]["value"] is None

    def test_grids_show_all_seeds_at_both_guidances(self, finished):
        grid = xr.open_zarr(finished / "samples.zarr", group="grid", consolidated=False)
        for guidance in (1.0, 1.5):
            for ask in ("edge_on", "any"):
                chosen = (grid["guidance"] == guidance) & (grid["ask"] == ask)
                assert sorted(grid["seed"].values[chosen].tolist()) == list(range(64))

    def test_sweeps_are_the_model_s_samples_of_their_asks_and_seeds(self, finished):
        sweep = xr.open_zarr(finished / "samples.zarr", group="sweep", consolidated=False).load()
        assert set(sweep["sweep"].values.tolist()) == {"bar", "spiral"}
        assert set(sweep["guidance"].values.tolist()) == {1.5}
        model = LatentDiffusion.load(finished, device="cpu")
        for i in (3, 20):
            one = sweep.isel(sample=i)
            asked = {"features": 0.95, "not_edge_on": 0.95, str(one["sweep"].item()): float(one["value"].item())}
            again = model.sample(1, votes=asked, seed=int(one["seed"]))
            np.testing.assert_allclose(one["image"].values, again.values[0], rtol=1e-4, atol=1e-4)

    def test_a_run_from_before_there_were_sweeps_is_not_stale(self, finished):
        inputs = json.loads((finished / "stages" / "samples.json").read_text())["inputs"]
        assert "sweeps" not in inputs
        swept = {**SMALL["sampling"], "sweeps": {"bar": {"votes": {"bar": [0, 1]}}}}
        with pytest.raises(StaleRunError, match=r"sweeps\.bar|sweeps: null"):
            train(finished.parent, sampling=swept)

    def test_the_model_loads_and_samples_by_seed(self, finished):
        model = LatentDiffusion.load(finished, device="cpu")
        many = model.sample(4, votes={"spiral": 0.9}, seed=10, batch=3)
        assert many.dims == ("sample", "band", "y", "x")
        assert many["spiral"].values == pytest.approx([0.9] * 4)
        one = model.sample(1, votes={"spiral": 0.9}, seed=12)
        np.testing.assert_allclose(one.values[0], many.values[2], rtol=1e-4, atol=1e-4)
        smooth = model.sample(1, seed=12, noise=False)
        assert smooth.values.std() > 0
        with pytest.raises(GaldiffError, match="Did you mean 'spiral'"):
            model.sample(1, votes={"spirol": 0.9})

    def test_a_saved_model_is_the_same_model(self, finished, tmp_path):
        model = LatentDiffusion.load(finished, device="cpu")
        model.save(tmp_path)
        again = LatentDiffusion.load(tmp_path, device="cpu")
        assert np.array_equal(again.sample(2, seed=1).values, model.sample(2, seed=1).values)
        assert (tmp_path / "README.md").read_text().startswith("# A galdiff model")

    def test_run_again_it_does_nothing(self, finished):
        before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
        train(finished.parent)
        after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
        assert {p for p in after if after[p] != before.get(p)} <= {finished / "catalog.yaml"}

    def test_how_often_it_saves_does_not_make_it_stale(self, finished):
        train(finished.parent, autoencoder={**SMALL["autoencoder"], "save_every": 640})

    def test_changed_inputs_stop_with_what_changed(self, finished):
        with pytest.raises(StaleRunError, match=r"loss\.kl: 0\.001 -> 0\.3.*\n.*--redo autoencoder"):
            train(finished.parent, autoencoder={**SMALL["autoencoder"], "kl": 0.3})

    def test_redo_archives_and_does_again(self, finished, tmp_path):
        out = tmp_path / "runs"
        shutil.copytree(finished, out / finished.name)
        run = train(out, redo=["denoiser"], denoiser={**SMALL["denoiser"], "images": 320})
        [archived] = (run / "archive").iterdir()
        assert (archived / "denoiser" / "weights.safetensors").is_file()
        assert (archived / "report.html").is_file()
        old = json.loads((archived / "stages" / "denoiser.json").read_text())["inputs"]["training"]["images"]
        new = json.loads((run / "stages" / "denoiser.json").read_text())["inputs"]["training"]["images"]
        assert (old, new) == (640, 320)
        assert not (archived / "latents.zarr").exists()

    def test_latents_of_another_autoencoder_are_refused(self, finished, tmp_path):
        out = tmp_path / "runs"
        run = shutil.copytree(finished, out / finished.name)
        for name in ("denoiser", "samples", "evaluation", "report"):
            (run / "stages" / f"{name}.json").unlink()
        other = load_autoencoder(run / "autoencoder")
        with torch.no_grad():
            other.last_weight[0, 0] += 1e-3
        other.save(run / "autoencoder")
        with pytest.raises(GaldiffError, match="another autoencoder"):
            train(out)
        flip(run / "autoencoder" / "decoder.safetensors", -4)
        with pytest.raises(CheckpointError, match="do not match their hash"):
            train(out)


@pytest.mark.slow
def test_stages_alone(tmp_path):
    with pytest.raises(GaldiffError, match="needs 'cutouts'"):
        train(tmp_path, stages=["autoencoder"])
    run = train(tmp_path, stages=["cutouts"])
    assert (run / "cutouts.zarr").is_dir()
    assert not (run / "autoencoder").exists()


WORKER = """
import sys, json, torch
torch.set_num_threads(1)
import galdiff
galdiff.train("quickstart", out=sys.argv[1], quiet=True, stages=["cutouts", "autoencoder", "latents", "denoiser"],
              **json.loads(sys.argv[2]))
"""


def start(out, **denoiser):
    settings = {**SMALL, "denoiser": {**SMALL["denoiser"], **denoiser}}
    arguments = [sys.executable, "-c", WORKER, str(out), json.dumps(settings)]
    return subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_second_trainer_in_a_run_directory_is_refused_while_the_first_lives(tmp_path):
    with start(tmp_path) as first:
        lock = tmp_path / "quickstart" / "lock"
        while not (lock.exists() and lock.read_text()):
            assert first.poll() is None
            time.sleep(0.05)
        with pytest.raises(ResourceError, match=rf"lock: another process \(pid {first.pid}\) is at work"):
            train(tmp_path)
        first.kill()
    train(tmp_path, stages=["cutouts"])
    assert not lock.exists()


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", [{}, {"views": 8, "reader": "blocks"}], ids=["memory", "views-in-blocks"])
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, denoiser):
    assert start(tmp_path / "whole", **denoiser).wait() == 0
    rng, run = random.Random(0), tmp_path / "killed" / "quickstart"
    for seen in ("cutouts.zarr", "autoencoder", "stages/autoencoder.json", "denoiser", "denoiser/*.safetensors"):
        worker = start(tmp_path / "killed", **denoiser)
        while not any(run.glob(seen)):
            assert worker.poll() is None
            time.sleep(0.01)
        time.sleep(0.3 * rng.random())
        worker.send_signal(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed", **denoiser).wait() == 0
    for name in ("autoencoder/encoder", "autoencoder/decoder", "denoiser/weights"):
        whole, killed = (tmp_path / k / "quickstart" / f"{name}.safetensors" for k in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes(), name
    stores = [
        xr.open_zarr(tmp_path / k / "quickstart" / "latents.zarr", consolidated=False) for k in ("whole", "killed")
    ]
    assert np.array_equal(stores[0]["mean"].values, stores[1]["mean"].values)


@pytest.mark.parametrize("on_bad", ["fail", "skip"])
def test_a_damaged_image(tmp_path, on_bad):
    run = tmp_path / "quickstart"
    train(tmp_path, stages=["cutouts"])
    shutil.rmtree(run / "cutouts.zarr")
    for record in (run / "stages").iterdir():
        record.unlink()
    image = sorted((run / "simulated" / "images").glob("*.jpg"))[7]
    image.write_bytes(image.read_bytes()[:300])
    if on_bad == "fail":
        with pytest.raises(GaldiffError, match=image.name):
            train(tmp_path, stages=["cutouts"], **{"data.on_bad": "fail"})
        assert not (run / "stages" / "cutouts.json").exists()
    else:
        train(tmp_path, stages=["cutouts"], **{"data.on_bad": "skip"})
        store = CutoutStore.open(run / "cutouts.zarr")
        assert (store.split == "skipped").sum() == 1
        assert image.name in (run / "cutouts.skipped.jsonl").read_text()


def test_differences_name_every_leaf():
    old, new = {"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 5}, "e": 4}
    assert differences(old, new) == ["b.c: 2 -> 5", "b.d: 3 -> null", "e: null -> 4"]


def test_archiving_reads_over_a_line_that_a_crash_cut(tmp_path):
    run, metrics = Run(tmp_path), tmp_path / "metrics.jsonl"
    run.do("denoiser", {}, lambda: None)
    kept = '{"stage": "autoencoder", "images": 8}\n'
    metrics.write_text(kept + '{"stage": "denoiser", "validation_loss": 1.0}\n{"stage": "deno')
    archived = run.archive("denoiser")
    assert metrics.read_text() == kept
    assert (archived / "metrics.jsonl").read_text().endswith("deno")

"""The autoencoder's stage: what it keeps, what it tells, and that it goes on to the same bits, adversary and all."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from galdiff.autoencoder import AutoencoderLoss, IdentityAutoencoder, KLAutoencoder, load_autoencoder
from galdiff.data.stretches import Asinh
from galdiff.errors import DataError
from galdiff.imageformat import ImageFormat
from galdiff.latents import CutoutStore
from galdiff.pipeline import train_autoencoder
from galdiff.pipeline.autoencoder import AutoencoderTask
from galdiff.pipeline.diagnostics import confidence_maps, latent_maps
from galdiff.progress import quiet
from galdiff.schema.conditions import Conditions, ConditionSchema
from galdiff.training import load_latest, read_metrics

SIZE, BANDS, ROWS = 16, ("g", "r"), 60
FORMAT = ImageFormat(BANDS, SIZE, "nanomaggy", Asinh([0.1, 0.1], [5.0, 5.0]))
SMALL = {"factor": 4, "channels": 2, "width": 8, "blocks": 1}
EVERYTHING = {
    "model": SMALL,
    "loss": {
        **{"kl_warmup_images": 64, "free_bits": 0.05, "chi2": 0.01, "scale_equivariance": 0.2, "pixel": "huber"},
        **{"adversarial": 0.3, "adversarial_start": 40},
    },
    "discriminator": {"width": 8},
    "keep": "best",
    "training": {
        **{"images": 128, "batch": 8, "learning_rate": 3e-3, "save_every": 32, "plot_every": 64},
        **{"validate_every": 24, "early_stopping": 50, "log_every": 0.0},
    },
}
PLAIN = {"model": SMALL, "loss": {}, "training": {**EVERYTHING["training"], "early_stopping": None}}


def write_store(path, split=("train", "train", "train", "validation", "test")):
    rng = np.random.default_rng(0)
    r = np.hypot(*np.mgrid[-7.5:8, -7.5:8])
    images = rng.uniform(1, 4, (ROWS, 2, 1, 1)) * np.exp(-r / rng.uniform(1.5, 3, (ROWS, 1, 1, 1)))
    images = (images + rng.normal(0, 0.1, images.shape)).astype(np.float32)
    store = CutoutStore.create(
        path,
        shape=images.shape[1:],
        bands=BANDS,
        dtype="float32",
        ids=np.arange(ROWS),
        split=np.array(split)[np.arange(ROWS) % len(split)],
        conditions=Conditions({}, {}),
        schema=ConditionSchema([]),
        masks=True,
    )
    for k in list(store.missing_shards()):
        rows = store.shard_rows(k)
        store.write_shard(k, images[rows], rng.random(images[rows].shape) > 0.05)
    store.finish()
    return CutoutStore.open(path)


def train(store, folder, settings, fault=""):
    """Run the stage in this process."""
    torch.set_num_threads(1)
    os.environ["GALDIFF_FAULT"] = fault
    folder.mkdir(exist_ok=True)
    given = {"image_format": FORMAT, "seed": 3, "device": torch.device("cpu"), "metrics": folder / "metrics.jsonl"}
    with quiet():
        return train_autoencoder(store, folder, settings=settings, **given)


def session(path, folder, settings, fault):
    train(CutoutStore.open(path), folder, settings, fault)


@pytest.fixture(autouse=True, scope="module")
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "cutouts.zarr")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    return train(store, folder, EVERYTHING), folder


def end_state(folder):
    tensors, meta = load_latest(folder)
    clock = ("seconds", "images_per_second")
    lines = [{k: v for k, v in line.items() if k not in clock} for line in read_metrics(folder / "metrics.jsonl")]
    return tensors, {k: v for k, v in meta.items() if k != "seconds"}, lines


def test_what_is_not_trained_is_calibrated_on_valid_pixels(store, tmp_path, monkeypatch):
    class Recording(IdentityAutoencoder):
        def calibrate(self, x, *, valid=None, by_content=True):
            self.seen = x, valid

    monkeypatch.setattr("galdiff.pipeline.autoencoder.build_autoencoder", lambda spec: Recording(spec["bands"]))
    x, valid = train(store, tmp_path, {"model": {"kind": "identity"}, "loss": {}, "training": {}}).seen
    rows = store.rows("train")
    torch.testing.assert_close(x, FORMAT.stretch(torch.from_numpy(store.images(rows))))
    assert np.array_equal(valid.numpy(), store.masks(rows))


def test_files_in_the_order_of_their_classes_calibrate_with_all():
    """The noise model, pictures and validation were once those of the first class alone."""
    n = 3000
    pixels = torch.arange(n).div(n / 3, rounding_mode="floor").view(n, 1, 1, 1).expand(n, 2, 8, 8)

    class Recording(KLAutoencoder):
        def calibrate(self, x, *, valid=None, by_content=True):
            self.seen = x

    autoencoder = Recording(2, **{name: SMALL[name] for name in ("factor", "channels", "width")})
    task = AutoencoderTask(autoencoder, pixels.float(), FORMAT, AutoencoderLoss(), seed=0)
    task.calibrate()
    assert len(autoencoder.seen.unique()) == 3


@pytest.mark.slow
def test_killed_at_every_save_it_ends_with_the_same_bits(store, trained, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["galdiff.pipeline", "hypothesis", "pytest", "torch._dynamo"])
    codes = []
    while not codes or codes[-1] != 0:
        process = context.Process(target=session, args=(store.path, tmp_path, EVERYTHING, "after-prune"))
        process.start()
        process.join(120)
        codes.append(process.exitcode)
        process.close()
        assert len(codes) <= 5
    assert codes == [-signal.SIGKILL] * 4 + [0]
    ours, theirs = end_state(tmp_path), end_state(trained[1])
    assert ours[0].keys() == theirs[0].keys()
    assert any(name.startswith("optimizer.exp_avg.discriminator") for name in ours[0])
    for name, value in theirs[0].items():
        assert torch.equal(ours[0][name], value), name
    assert ours[1:] == theirs[1:]
    for part in ("encoder", "decoder"):
        assert (tmp_path / f"{part}.safetensors").read_bytes() == (trained[1] / f"{part}.safetensors").read_bytes()


class TestWhatItLeaves:
    def test_the_saved_autoencoder_is_the_best_one_and_holds_no_discriminator(self, trained):
        autoencoder, folder = trained
        kept, last = load_autoencoder(folder), load_autoencoder(folder / "last")
        tensors, meta = load_latest(folder)
        assert all(not name.startswith("discriminator") for name in kept.state_dict())
        name = "encoder.layers.1.weight"
        assert torch.equal(kept.state_dict()[name], tensors[f"best.autoencoder.{name}"])
        assert torch.equal(last.state_dict()[name], tensors[f"ema.autoencoder.{name}"])
        assert torch.equal(autoencoder.state_dict()[name], kept.state_dict()[name])
        lines = [line for line in read_metrics(folder / "metrics.jsonl") if "validation_loss" in line]
        assert [line["images"] for line in lines] == [24, 48, 72, 96, 120, 128]
        best = min(lines, key=lambda line: line["validation_loss"])
        assert meta["judged"]["best_loss"] == best["validation_loss"]
        assert meta["judged"]["best_images"] == best["images"]

    def test_terms_and_diagnostics_are_logged(self, trained):
        lines = read_metrics(trained[1] / "metrics.jsonl", "autoencoder")
        early, late = ([line for line in lines if "loss" in line][i] for i in (0, -1))
        terms = {"huber", "kl", "grain", "chi2", "half_size", "mse"}
        assert terms <= set(early)
        assert "d_real" not in early
        assert {"d_real", "d_made", "d_right", "d_weight"} <= set(late)
        judged = next(line for line in lines if "validation_loss" in line)
        assert {f"validation_{term}" for term in terms} <= set(judged)
        diagnosed = [line for line in lines if "latent_dimension" in line]
        assert [line["images"] for line in diagnosed] == [64, 128]
        assert len(diagnosed[0]["latent_kl"]) == 2
        assert {"latent_active", "equivariance_error", "equivariance_mse"} <= set(diagnosed[0])

    def test_pictures(self, trained):
        folder = trained[1]
        for name, columns, rows, gap in (("reconstructions", 8, 2, 1), ("latents", 2, 8, 1), ("confidences", 8, 4, 1)):
            with Image.open(folder / f"{name}-000000128.png") as picture:
                assert picture.size == (columns * (SIZE + gap) - gap, rows * (SIZE + gap) - gap)

    def test_the_last_is_kept_by_default_and_the_best_beside_it(self, store, trained, tmp_path):
        train(store, tmp_path, {**EVERYTHING, "keep": "last"})
        for part in ("encoder", "decoder"):
            ours = tmp_path / f"{part}.safetensors"
            assert ours.read_bytes() == (trained[1] / "last" / ours.name).read_bytes()
            assert (tmp_path / "best" / ours.name).read_bytes() == (trained[1] / ours.name).read_bytes()

    def test_validation_changes_nothing(self, store, tmp_path):
        often = {**PLAIN, "training": {**PLAIN["training"], "validate_every": 8}}
        never = {**PLAIN, "training": {**PLAIN["training"], "validate_every": None}}
        states = [train(store, tmp_path / name, s).state_dict() for name, s in (("a", often), ("b", never))]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert not (tmp_path / "b" / "best").exists()


class TestWithoutValidation:
    def test_it_trains(self, tmp_path):
        alone = write_store(tmp_path / "cutouts.zarr", ("train", "test"))
        train(alone, tmp_path / "ae", PLAIN)
        lines = read_metrics(tmp_path / "ae" / "metrics.jsonl")
        assert not any("validation_loss" in line for line in lines)

    @pytest.mark.parametrize("more", [{"keep": "best"}, {"training": {**PLAIN["training"], "early_stopping": 2}}])
    def test_what_needs_it_is_refused_at_once(self, tmp_path, more):
        alone = write_store(tmp_path / "cutouts.zarr", ("train", "test"))
        with pytest.raises(DataError, match="no validation images") as caught:
            train(alone, tmp_path / "ae", {**PLAIN, **more})
        assert "split.validation" in caught.value.remedy


def test_latent_maps_are_gray_by_channel():
    z = np.random.default_rng(0).normal(size=(50, 2, 3, 3)) * np.array([1, 100])[:, None, None]
    maps = latent_maps(z, 4, 2)
    assert (maps.shape, maps.dtype) == ((8, 6, 6, 3), np.uint8)
    for channel in (0, 1):
        assert maps[channel::2].mean() == pytest.approx(127, abs=15)
        assert maps[channel::2].std() == pytest.approx(255 / 6, rel=0.3)
    assert np.array_equal(maps[0, :2, :2, 0], np.full((2, 2), maps[0, 0, 0, 0]))


def test_confidence_is_blue_for_real_and_red_for_made():
    maps = confidence_maps(np.array([9.0, -9.0, 0.0]).reshape(3, 1, 1, 1), 5).astype(int)
    assert maps.shape == (3, 5, 5, 3)
    real, made, undecided = maps[:, 2, 2]
    assert real[2] > real[0]
    assert made[0] > made[2]
    assert undecided.tolist() == [255, 255, 255]

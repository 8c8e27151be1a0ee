"""A trained model as an astronomer uses it, from Python and from the command line."""

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from damage import flip
from typer.testing import CliRunner

import galdiff
from galdiff import LatentDiffusion, LatentStore, cli
from galdiff.autoencoder import load_autoencoder
from galdiff.errors import CheckpointError, GaldiffError, ResourceError
from galdiff.latents import CutoutStore
from galdiff.model import load_denoiser

SMALL = {
    "data.simulate.n": 120,
    "data.simulate.size": 32,
    "data.size": 32,
    "autoencoder": {
        "images": 2400,
        "batch": 16,
        "factor": 4,
        "channels": 4,
        "width": 16,
        "blocks": 1,
        "warmup_images": 64,
        "plot_every": 2400,
        "learning_rate": 4e-3,
    },
    "denoiser": {
        "images": 960,
        "backbone": {"kind": "unet", "widths": [16]},
        "warmup_images": 64,
        "plot_every": 960,
        "learning_rate": 5e-3,
    },
    "sampling": {"n": 12, "steps": 3, "asks": {"any": {}}},
    "evaluation": {"draws": 2},
}
runner = CliRunner()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return galdiff.train("quickstart", out=tmp_path_factory.mktemp("runs"), quiet=True, device="cpu", **SMALL)


@pytest.fixture(scope="module")
def model(run):
    return LatentDiffusion.load(run, device="cpu")


@pytest.fixture(scope="module")
def cutouts(run):
    return CutoutStore.open(run / "cutouts.zarr").images().astype(np.float32)


class TestSample:
    def test_what_comes_back(self, model):
        images = model.sample(3, votes={"spiral": 0.9}, seed=5, steps=2, guidance=2.0)
        assert images.dims == ("sample", "band", "y", "x")
        assert images.shape == (3, 3, 32, 32)
        assert images.dtype == np.float32
        assert images["seed"].values.tolist() == [5, 6, 7]
        assert images["band"].values.tolist() == list(model.model.format.bands)
        assert images.attrs["units"] == "display"
        assert (images.attrs["steps"], images.attrs["guidance"]) == (2, 2.0)
        assert np.isfinite(images).all()
        assert 0 <= float(images.min()) <= float(images.max()) <= 1

    def test_a_seed_is_an_image(self, model):
        many = model.sample(5, seed=3, votes={"bar": 0.7})
        for batch in (1, 2, 64):
            again = model.sample(3, seed=4, votes={"bar": 0.7}, batch=batch)
            np.testing.assert_allclose(again, many[1:4], atol=1e-4)
        assert float(np.abs(many[0] - many[1]).max()) > 0.01
        np.testing.assert_array_equal(model.sample(2, seed=9), model.sample(2, seed=9))

    def test_numpy_and_torch_seeds_are_left_alone(self, model):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        expected = torch.rand(1), np.random.rand()  # noqa: NPY002
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        model.sample(1)
        assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002

    def test_noise_is_drawn_by_seed_on_the_same_galaxy(self, model):
        smooth, noisy = (model.sample(4, seed=2, noise=noise) for noise in (False, True))

        def roughness(images):
            return float(np.abs(images.diff("x")).mean())

        assert roughness(noisy) > roughness(smooth)
        mean = [images.mean(("y", "x")).values for images in (smooth, noisy)]
        np.testing.assert_allclose(*mean, atol=0.03)

    def test_votes_fix_their_answers_and_leave_the_rest_open(self, model):
        images = model.sample(2, votes={"spiral": 0.9})
        np.testing.assert_allclose(images["spiral"], 0.9, rtol=1e-6)
        # The answers to the same question share what is left; other questions are open and not among the coordinates.
        np.testing.assert_allclose(images["no_spiral"], 0.1, rtol=1e-5)
        assert "bar" not in images.coords
        asked = model.schema.ask(1, votes={"spiral": 0.9})
        assert int(asked.masks["votes"].sum()) == 1

    def test_conditions_row_by_row(self, model):
        rows = [{"spiral": 0.1}, {"bar": 0.6}, {}]
        images = model.sample(3, votes=rows, seed=1)
        np.testing.assert_allclose(images["spiral"], [0.1, np.nan, np.nan], rtol=1e-5)
        np.testing.assert_allclose(images["bar"], [np.nan, 0.6, np.nan], rtol=1e-5)
        alone = model.sample(1, votes=rows[1], seed=2)
        np.testing.assert_allclose(alone[0], images[1], atol=1e-4)

    def test_guidance_zero_ignores_what_is_asked(self, model):
        asked, free = model.sample(2, votes={"edge_on": 1.0}, guidance=0), model.sample(2, guidance=1)
        np.testing.assert_allclose(asked, free, atol=1e-4)

    def test_nothing_asked_costs_one_pass(self, model):
        rows = []
        hook = model.model.denoiser.backbone.register_forward_hook(lambda m, inputs, y: rows.append(len(inputs[0])))
        images = model.sample(3, guidance=2.0)
        hook.remove()
        assert set(rows) == {3}
        assert images.attrs["guidance"] == 1

    def test_guidance_by_answer_is_guidance_where_it_is_all_that_is_asked(self, model):
        by_name, by_weight = (model.sample(2, votes={"spiral": 0.9}, guidance=g) for g in ({"spiral": 2.5}, 2.5))
        np.testing.assert_allclose(by_name, by_weight, rtol=1e-4, atol=1e-4)
        assert by_name.attrs["guidance"] == {"spiral": 2.5}

    @pytest.mark.parametrize(
        ("sampler", "options"),
        [("ddim", {"eta": 0.5}), ("ddpm", {"noise_scale": 0.9}), ("sde_dpmpp_2m", {"grid": "logsnr"}), ("unipc", {})],
    )
    def test_every_sampler_draws_by_seed(self, model, sampler, options):
        asked = {"votes": {"spiral": 0.9}, "sampler": sampler, "options": options, "steps": 6}
        many, one = model.sample(3, seed=4, **asked), model.sample(1, seed=6, **asked)
        np.testing.assert_allclose(one[0], many[2], rtol=1e-3, atol=1e-3)
        assert float(many.std()) > 0

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"n": 0}, "cannot draw 0 samples"),
            ({"n": 2.5}, "cannot draw 2.5 samples"),
            ({"n": "a"}, "cannot draw 'a' samples"),
            ({"n": 10**12}, "1000000000000 samples need 2.29e.07 GiB of memory, and the machine has .* a later seed"),
            ({"n": 1, "votes": {"bar": 1}, "options": [1]}, r"options: \[1\] is no mapping"),
            ({"n": 1, "options": "grid"}, "'grid' is no mapping"),
            ({"n": 1, "seed": 1.5}, "1.5 is no seed. Give a whole number from 0 on"),
            ({"n": 1, "seed": -1}, "-1 is no seed"),
            ({"n": 1, "seed": 2**70}, "1180591620717411303424 is no seed"),
            ({"n": 2, "seed": 2**63 - 1}, "9223372036854775807 is no seed"),
            ({"n": 1, "steps": 2.5}, "2.5 steps are no whole number"),
            ({"n": 1, "batch": 0.5}, "cannot draw 0.5 samples at once"),
            ({"n": 1, "batch": 0}, "cannot draw 0 samples at once"),
            ({"n": 1, "guidance": float("inf")}, "inf is no weight of guidance. Give a finite number from 0 on"),
            ({"n": 1, "guidance": float("nan"), "votes": {"bar": 1}}, "nan is no weight of guidance"),
            ({"n": 1, "guidance": -0.5, "votes": {"bar": 1}}, "-0.5 is no weight of guidance"),
            ({"n": 1, "guidance": "high"}, "'high' is no weight of guidance"),
            ({"n": 1, "guidance": {"bar": float("inf")}}, "inf is no weight of guidance"),
            ({"n": 1, "morphology": "spiral"}, "'morphology' is not among the conditions of this model"),
            ({"n": 1, "spiral": 0.9}, "'spiral' is an answer of votes. Ask for votes.spiral"),
            ({"n": 1, "votes": {"spirl": 0.9}}, "Did you mean 'spiral'"),
            ({"n": 1, "votes": {"spiral": 1.2}}, r"spiral=1.2 is outside \[0, 1\]"),
            ({"n": 1, "votes": {"spiral": 0.9, "no_spiral": 0.3}}, "sum to 1.2"),
            ({"n": 1, "sampler": "plms"}, "unknown sampler 'plms'. Known: ddim, ddpm, dpmpp_2m"),
            ({"n": 1, "steps": 0}, "0 steps are not enough"),
            ({"n": 1, "options": {"eta": 0.5}}, "sampler 'unipc' has no option 'eta'. These have: ddim"),
            ({"n": 1, "guidance": {"spirl": 2}}, "Did you mean 'spiral'"),
            ({"n": 1, "guidance": {"smooth": 3, "features": 1}}, "'features' and 'smooth' are of the same question"),
            ({"n": 1, "guidance": {"votes": 2, "bar": 3}}, "'bar' and 'votes' are of the same votes"),
            ({"n": 1, "guidance": {"bar": 3, "votes": 2}}, "'votes' and 'bar' are of the same votes"),
            ({"n": 1, "votes": {"bar": 1}, "options": {"interval": [0.9, 0.2]}}, "guidance within"),
            ({"n": 1, "units": "physical"}, "8-bit pictures, whose brightness is no flux"),
        ],
        ids=lambda value: str(value)[:24],
    )
    def test_mistakes(self, model, arguments, words):
        with pytest.raises(GaldiffError, match=words):
            model.sample(**arguments)


class TestReconstruct:
    def test_shape_and_unit(self, model, cutouts):
        images = model.reconstruct(cutouts[:70])
        assert images.shape == (70, 3, 32, 32)
        assert images.attrs["units"] == "display"
        again = model.reconstruct(xr.DataArray(cutouts[66:70], dims=("sample", "band", "y", "x")))
        np.testing.assert_allclose(again, images[66:], atol=1e-5)

    def test_a_trained_autoencoder_beats_the_mean_image(self, model, cutouts):
        error = float(np.square(model.reconstruct(cutouts) - cutouts).mean())
        assert error < 0.7 * np.square(cutouts - cutouts.mean(0)).mean()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_none(self, model, cutouts, bad):
        images = cutouts[:2].copy()
        images[1, 0, :2, 5] = bad
        with pytest.raises(GaldiffError, match="2 pixel values are NaN or infinite"):
            model.reconstruct(images)
        with pytest.raises(GaldiffError, match="images are no array of numbers"):
            model.reconstruct("images.npy")

    @pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 32, 32), (3, 32, 32), (0, 3, 32, 32)])
    def test_other_sizes_are_refused(self, model, shape):
        with pytest.raises(GaldiffError, match=r"the model's are \(n, 3, 32, 32\)"):
            model.reconstruct(np.zeros(shape))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


class TestSave:
    def test_it_is_the_same_model(self, model, saved, cutouts):
        again = LatentDiffusion.load(saved, device="cpu")
        xr.testing.assert_identical(again.sample(2, votes={"bar": 0.5}), model.sample(2, votes={"bar": 0.5}))
        xr.testing.assert_identical(again.reconstruct(cutouts[:2]), model.reconstruct(cutouts[:2]))
        assert again.schema == model.schema

    def test_what_others_wrote_stays(self, model, saved, tmp_path):
        """Neither the page of a project that is saved into, nor the weights of a run."""
        card = (saved / "README.md").read_bytes()
        model.save(saved)
        assert (saved / "README.md").read_bytes() == card
        (tmp_path / "README.md").write_text("# My project")
        with pytest.raises(ResourceError, match=r"README\.md: is of something else. Save into a folder of its own"):
            model.save(tmp_path)
        (tmp_path / "run" / "stages").mkdir(parents=True)
        with pytest.raises(ResourceError, match="run: is a run folder"):
            model.save(tmp_path / "run")
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["README.md", "run", "stages"]

    def test_a_file_in_its_place(self, model, tmp_path):
        (tmp_path / "model").write_text("mine")
        with pytest.raises(ResourceError, match="model: cannot write: Not a directory"):
            model.save(tmp_path / "model")
        assert (tmp_path / "model").read_text() == "mine"

    def test_nothing_in_it_is_code(self, saved):
        suffixes = {p.suffix for p in saved.rglob("*") if p.is_file()}
        assert suffixes == {".json", ".md", ".safetensors"}
        card = (saved / "README.md").read_text()
        assert "32 x 32" in card
        assert "`votes` (votes)" in card

    def test_encoder_and_decoder_load_on_their_own(self, model, saved, cutouts, tmp_path):
        x = model.model.format.stretch(torch.from_numpy(cutouts[:2]))
        whole = model.model.autoencoder
        for part, other in (("encoder", "decoder"), ("decoder", "encoder")):
            folder = tmp_path / part
            shutil.copytree(saved / "autoencoder", folder)
            (folder / f"{other}.safetensors").unlink()
            alone = load_autoencoder(folder, part=part)
            assert not any(name.startswith(other) for name in alone.state_dict())
            with torch.no_grad():
                posterior = whole.encode(x)
                if part == "encoder":
                    assert torch.equal(alone.encode(x).mean, posterior.mean)
                else:
                    assert torch.equal(alone.decode(posterior.mean).mean, whole.decode(posterior.mean).mean)
            with pytest.raises(CheckpointError, match="cannot load the autoencoder"):
                load_autoencoder(folder)

    def test_the_denoiser_loads_on_its_own(self, model, saved, tmp_path):
        folder = shutil.copytree(saved / "denoiser", tmp_path / "alone")
        denoiser, spec = load_denoiser(folder)
        assert (spec["format"]["size"], spec["sampling"]["steps"]) == (32, 3)
        x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.7])
        conditions = model.schema.ask(2, votes={"spiral": 0.9})
        with torch.no_grad():
            assert torch.equal(denoiser(x, t, conditions), model.model.denoiser(x, t, conditions))
        (folder / "weights.safetensors").unlink()
        with pytest.raises(CheckpointError, match="cannot load the denoiser"):
            load_denoiser(folder)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda f: (f / "denoiser" / "spec.json").unlink(),
            lambda f: (f / "denoiser" / "spec.json").write_text("{"),
            lambda f: (f / "denoiser" / "weights.safetensors").unlink(),
            lambda f: (f / "denoiser" / "weights.safetensors").write_bytes(b"\x00" * 64),
            lambda f: flip(f / "denoiser" / "weights.safetensors", -50),
            lambda f: (f / "autoencoder" / "decoder.safetensors").write_bytes(b""),
            lambda f: flip(f / "autoencoder" / "decoder.safetensors", -50),
            lambda f: shutil.rmtree(f / "autoencoder"),
            lambda f: shutil.rmtree(f),
        ],
        ids=[
            "no spec",
            "torn spec",
            "no weights",
            "bad weights",
            "flipped weights",
            "empty decoder",
            "flipped decoder",
            "no autoencoder",
            "nothing",
        ],
    )
    def test_damage_is_named(self, saved, tmp_path, damage):
        folder = tmp_path / "model"
        shutil.copytree(saved, folder)
        damage(folder)
        with pytest.raises(CheckpointError, match="model"):
            LatentDiffusion.load(folder)

    def test_weights_of_another_architecture(self, saved, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(saved, folder)
        path = folder / "denoiser" / "spec.json"
        spec = json.loads(path.read_text())
        spec["backbone"]["widths"] = [24]
        path.write_text(json.dumps(spec))
        with pytest.raises(CheckpointError, match="cannot load the denoiser"):
            LatentDiffusion.load(folder)


class TestFit:
    def test_from_a_dataset(self, run, tmp_path):
        dataset = galdiff.GZ2Dataset(run / "simulated", size=32, limit=60)
        sections = {name: {**SMALL[name], "images": 128} for name in ("autoencoder", "denoiser")}
        model = LatentDiffusion.fit(dataset, tmp_path / "fit", device="cpu", seed=1, **sections)
        assert model.sample(1, votes={"spiral": 1.0}).shape == (1, 3, 32, 32)
        assert len(LatentStore.open(tmp_path / "fit" / "latents.zarr").ids) == 60
        again = LatentDiffusion.fit(dataset, tmp_path / "fit", device="cpu", seed=1, **sections)
        xr.testing.assert_identical(again.sample(1), model.sample(1))

    def test_mistakes_are_all_named(self, run, tmp_path):
        dataset = galdiff.GZ2Dataset(run / "simulated", size=32)
        with pytest.raises(GaldiffError) as caught:
            LatentDiffusion.fit(dataset, tmp_path / "fit", autoencoder={"image": 5}, denoiser={"backbone": "vit"})
        assert "autoencoder.image" in str(caught.value)
        assert "denoiser.backbone" in str(caught.value)
        assert not (tmp_path / "fit").exists()


class TestCommands:
    def call(self, *arguments):
        return runner.invoke(cli.app, [str(a) for a in arguments])

    def test_sample_is_what_python_gives(self, run, model, tmp_path):
        out = tmp_path / "samples.zarr"
        asked = ("--condition", "votes.spiral=0.9", "--seed", 4, "--steps", 2, "--device", "cpu")
        result = self.call("sample", run, "-n", 3, *asked, "-o", out)
        assert result.exit_code == 0, result.output
        found = xr.open_zarr(out, consolidated=False)["image"].load()
        expected = model.sample(3, seed=4, steps=2, votes={"spiral": 0.9})
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found["spiral"], 0.9, rtol=1e-6)

    def test_sample_mistakes(self, run, tmp_path):
        result = self.call("sample", run, "-o", tmp_path / "x.png", "--condition", "votes.spirl=1")
        assert result.exit_code == 2
        assert "Did you mean 'spiral'?" in result.stderr
        result = self.call("sample", tmp_path, "-o", tmp_path / "x.png")
        assert result.exit_code == 2
        assert "there is no trained denoiser here" in result.stderr
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--guidance", "inf"), "inf is no weight of guidance"),
            (("--guidance", "inf", "--condition", "votes.bar=1"), "inf is no weight of guidance"),
            (("--seed", "9999999999999999999999"), "9999999999999999999999 is no seed"),
        ],
    )
    def test_numbers_that_are_none(self, run, tmp_path, arguments, words):
        result = self.call("sample", run, "-o", tmp_path / "x.npy", *arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {words}")
        assert result.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())

    def test_evaluate_judges_again_and_keeps_the_old(self, run, tmp_path):
        copy = shutil.copytree(run, tmp_path / run.name)
        before = json.loads((copy / "evaluation.json").read_text())
        result = self.call("evaluate", copy, "--device", "cpu")
        assert result.exit_code == 0, result.output
        assert result.stdout.strip().endswith(f"report: {copy / 'report.html'}")
        after = json.loads((copy / "evaluation.json").read_text())
        assert [f["name"] for f in after["figures"]] == [f["name"] for f in before["figures"]]
        [archived] = (copy / "archive").iterdir()
        assert json.loads((archived / "evaluation.json").read_text()) == before
        assert (archived / "report.html").is_file()
        assert (copy / "report.html").is_file()

    def test_report_again(self, run, tmp_path):
        copy = shutil.copytree(run, tmp_path / run.name)
        result = self.call("report", copy)
        assert result.exit_code == 0, result.output
        assert (copy / "report.html").is_file()
        assert result.stdout.strip() == str(copy / "report.html")

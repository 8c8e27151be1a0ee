"""From options of sampling to a sampler: the model's own, those of another sampler, and those of the estimate."""

import numpy as np
import pytest
import torch
import xarray as xr
from stirring import stirred
from typer.testing import CliRunner

from galdiff import LatentDiffusion, cli
from galdiff.autoencoder import build_autoencoder
from galdiff.data.stretch import Linear
from galdiff.diffusion import ClassifierFree, Denoiser, Floor, Schedule
from galdiff.diffusion.samplers import SAMPLERS
from galdiff.errors import GaldiffError
from galdiff.model import DiffusionModel, ImageFormat, resolve_device
from galdiff.nn import build_backbone
from galdiff.schema.conditions import Class, ConditionSchema

SCHEMA = ConditionSchema([Class("kind", ("disk", "round"))])
ANCESTRAL = {"sampler": "ddpm", "steps": 1000, "grid": "logsnr", "noise_scale": 0.9, "guidance": 2.0, "rescale": 0.5}


def tiny(sampling, *, autoencoder="identity", schedule="rectified_flow", prediction="flow", size=9, bands=2):
    """A small model that learned nothing, of odd size and two bands."""
    torch.manual_seed(0)
    coder = {"kind": autoencoder, "bands": bands}
    coder |= {} if autoencoder == "identity" else {"factor": 1, "channels": 3, "width": 8, "blocks": 1}
    coder = build_autoencoder(coder).eval()
    backbone = {"kind": "unet", "channels": coder.latent_channels, "widths": [8], "blocks": 1, "head_width": 8}
    network = stirred(build_backbone(backbone, SCHEMA))
    denoiser = Denoiser(network, Schedule.from_dict({"kind": schedule}), prediction=prediction).eval()
    image_format = ImageFormat(tuple("gr"[:bands]), size, "nJy", Linear(-1.0, 9.0))
    mean, std = torch.linspace(-0.5, 0.5, coder.latent_channels), torch.linspace(1, 2, coder.latent_channels)
    return LatentDiffusion(DiffusionModel(coder, denoiser, SCHEMA, image_format, mean, std, sampling))


class TestAnotherSampler:
    @pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ddpm"])
    def test_has_the_steps_and_the_grid_of_its_kind(self, name):
        model = tiny(ANCESTRAL).model
        drawn = model.sampler(sampler=name)
        assert drawn.steps == SAMPLERS[name].STEPS
        torch.testing.assert_close(drawn.times, torch.linspace(1, 0, drawn.steps + 1, dtype=torch.float64))
        assert getattr(drawn, "noise_scale", 1.0) == 1.0

    def test_is_guided_as_the_model_s_own(self):
        guided = tiny(ANCESTRAL).model.sampler(sampler="heun").denoiser
        assert isinstance(guided, ClassifierFree)
        assert (guided.weight, guided.rescale) == (2.0, 0.5)

    def test_the_same_one_by_name_is_as_the_catalog_file_has_it(self):
        model = tiny(ANCESTRAL).model
        for drawn in (model.sampler(), model.sampler(sampler="ddpm")):
            assert (drawn.steps, drawn.noise_scale) == (1000, 0.9)
        assert model.sampler(steps=5).noise_scale == 0.9

    def test_another_grid_is_not_bent_as_the_model_s_own(self):
        model = tiny({"sampler": "heun", "steps": 5, "grid": "karras", "rho": 3.0, "guidance": 1.0}).model
        assert model.options(grid="uniform") == {"sampler": "heun", "steps": 5, "grid": "uniform", "guidance": 1.0}
        assert model.options(grid="karras")["rho"] == 3.0
        assert model.sampler(grid="uniform").times.tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])

    def test_the_images_say_what_they_were_drawn_with(self):
        images = tiny(ANCESTRAL).sample(1, kind="disk", sampler="unipc", options={"shift": 3.0})
        told = {k: images.attrs[k] for k in ("sampler", "steps", "shift", "guidance", "rescale")}
        assert told == {"sampler": "unipc", "steps": 12, "shift": 3.0, "guidance": 2.0, "rescale": 0.5}
        assert not {"grid", "noise_scale", "eta"} & set(images.attrs)


EULER = {"sampler": "euler", "steps": 4, "guidance": 2.0}


class TestFloor:
    def test_no_pixel_lies_below_it(self):
        model = tiny(EULER)
        free, floored = model.sample(6, kind="disk"), model.sample(6, kind="disk", options={"floor": 3.0})
        assert float(free.min()) < 2.9
        assert float(floored.min()) == pytest.approx(3.0, abs=1e-4)
        assert floored.attrs["floor"] == 3.0

    def test_it_is_the_catalog_file_s_for_any_sampler(self):
        model = tiny({**EULER, "floor": 3.0}).model
        assert isinstance(model.sampler().denoiser, Floor)
        assert isinstance(model.sampler(sampler="heun").denoiser, Floor)

    def test_latents_have_none(self):
        with pytest.raises(GaldiffError, match="a floor is of pixels, and the denoiser of this model sees latents"):
            tiny(EULER, autoencoder="kl").sample(1, options={"floor": 0.0})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 3, "options": {"steps": 4}}, "steps is given twice"),
        ({"options": {"stepps": 4}}, "did you mean 'steps'"),
        ({"options": {"interval": 5}}, "options.interval: should be a valid tuple"),
        ({"options": {"rho": 3}}, "a rho of 3 is none of the grid 'uniform'"),
        ({"options": {"shift": 2, "grid": "logsnr"}}, "a shift of 2 is none of the grid 'logsnr'"),
        ({"sampler": "ddim", "options": {"noise_scale": 0.9}}, "says nothing where eta is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(GaldiffError, match=words):
        tiny({"sampler": "heun", "steps": 2, "guidance": 1.0}).sample(1, kind="disk", **given)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("schedule", "prediction"), [("rectified_flow", "flow"), ("edm", "edm"), ("linear", "eps"), ("cosine", "v")]
)
def test_odd_sizes_and_any_bands_through_every_sampler(sampler, schedule, prediction):
    model = tiny({"sampler": sampler, "steps": 3, "guidance": 2.0}, schedule=schedule, prediction=prediction)
    images = model.sample(2, kind="round")
    assert images.shape == (2, 2, 9, 9)
    assert np.isfinite(images).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "saved"
    tiny({"sampler": "heun", "steps": 2, "guidance": 1.0}).save(folder)
    return folder


class TestCommand:
    def test_draws_with_the_options_that_are_set(self, folder, tmp_path):
        out = tmp_path / "samples.zarr"
        chosen = ("sampler=ddim", "eta=1", "noise_scale=0.9", "shift=2", "steps=3", "floor=0")
        texts = [word for text in chosen for word in ("--set", f"sampling.{text}")]
        asked = ["--condition", "kind=disk", "--guidance", "2", "--device", "cpu"]
        result = CliRunner().invoke(cli.app, ["sample", str(folder), "-n", "2", "-o", str(out), *asked, *texts])
        assert result.exit_code == 0, result.output
        found = xr.open_zarr(out, consolidated=False)["image"].load()
        options = {"eta": 1.0, "noise_scale": 0.9, "shift": 2.0, "floor": 0.0}
        model = LatentDiffusion.load(folder, device="cpu")
        expected = model.sample(2, kind="disk", guidance=2, sampler="ddim", steps=3, options=options)
        np.testing.assert_array_equal(found, expected)
        assert found.attrs["eta"] == 1
        assert float(found.min()) >= -1e-5

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("sampling.eta=0.5", "error: sampler 'heun' has no option 'eta'. These have: ddim"),
            ("sampling.eta=2", "error: --set sampling.eta: should be less than or equal to 1, not 2"),
            ("seed=3", "error: --set seed=3: is no option of sampling"),
        ],
    )
    def test_mistakes_are_one_line(self, folder, tmp_path, text, words):
        arguments = ["sample", str(folder), "-o", str(tmp_path / "x.npy"), "--set", text, "--device", "cpu"]
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith(words)
        assert result.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mps", "galdiff does not run on 'mps': its numbers need float64"),
        ("xpu", "galdiff does not run on 'xpu'"),
        ("tpu", "there is no device 'tpu'"),
        ("cuda:99", "cuda:99"),
    ],
)
def test_devices_that_are_none(name, words):
    with pytest.raises(GaldiffError, match=words):
        resolve_device(name)

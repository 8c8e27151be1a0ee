"""The section `autoencoder` of a catalog file: its kinds, their keys, and where mistakes are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_load import problems

from galdiff.config import dump, load
from galdiff.config.check import check
from galdiff.config.coders import AutoencoderSpec
from galdiff.config.cost import estimate, time_stages
from galdiff.config.ready import IdentitySpec, PretrainedSpec
from galdiff.schema.conditions import ConditionSchema

HEAD = "name: demo\ndata: {kind: gz2, root: x, size: 64}\n"


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "demo.yaml"
        path.write_text(text)
        return path

    return _write


def test_without_a_kind_it_is_what_it_was(write):
    for text in ("", "autoencoder: {}\n", "autoencoder: {kind: kl}\n", "autoencoder: kl\n"):
        spec = load(write(HEAD + text)).autoencoder
        assert spec == AutoencoderSpec()
        assert spec.settings()["model"] == {"factor": 8, "channels": 8, "width": 128, "blocks": 1}
        assert spec.settings()["loss"] == {"kl": 1e-3, "gradient": 0.5, "grain": 0.03}


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("identity", {"kind": "identity"}),
        ("vq",
         {"kind": "vq", "factor": 8, "channels": 8, "width": 128, "blocks": 1, "codes": 1024, "commitment": 0.25}),
        ("{kind: fsq, factor: 4, levels: [5, 5]}",
         {"kind": "fsq", "factor": 4, "width": 128, "blocks": 1, "levels": [5, 5]}),
        ("{stem: haar, attention: true, norm: rms, activation: tanh}",
         {"factor": 8, "channels": 8, "width": 128, "blocks": 1, "stem": "haar", "attention": True, "norm": "rms",
          "activation": "tanh"}),
    ],
)  # fmt: skip
def test_what_each_kind_is_built_from(write, text, model):
    spec = load(write(f"{HEAD}autoencoder: {text}\n"))
    assert spec.autoencoder.settings()["model"] == model
    assert load(write(dump(spec))) == spec


def test_a_folder_is_relative_to_the_catalog_file(write, tmp_path):
    spec = load(write(HEAD + "autoencoder: {kind: diffusers, folder: vae}\n"))
    assert isinstance(spec.autoencoder, PretrainedSpec)
    assert spec.autoencoder.settings()["model"] == {"kind": "diffusers", "folder": str(tmp_path / "vae")}
    assert load(write(dump(spec))) == spec
    assert load(write(HEAD), ["autoencoder={kind: diffusers, folder: vae}"]).autoencoder.folder == Path("vae").resolve()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("autoencoder: {kind: vqq}", ["3:21: autoencoder.kind: should be kl or vq or fsq or ", "(did you mean 'vq'?)"]),
        ("autoencoder: identty", ["3:14: autoencoder.kind: should be ", "(did you mean 'identity'?)"]),
        ("autoencoder: {kind: identity, factor: 8}", ["3:31: autoencoder.factor: there is no such key"]),
        ("autoencoder: {kind: diffusers}", ["3:1: autoencoder.folder: is required"]),
        ("autoencoder: {kind: diffusers, foldr: x, folder: y}",
         ["3:32: autoencoder.foldr: there is no such key (did you mean 'folder'?)"]),
        ("autoencoder: {kind: vq, cods: 8}", ["3:25: autoencoder.cods: there is no such key (did you mean 'codes'?)"]),
        ("autoencoder: {kind: fsq, channels: 4}", ["3:36: autoencoder.channels: is an option of kl and vq, not of"]),
        ("autoencoder: {kind: vq, kl: 0.1}", ["3:29: autoencoder.kl: is an option of kl, not of vq"]),
        ("autoencoder: {codes: 5}", ["3:22: autoencoder.codes: is an option of vq, not of kl"]),
        ("autoencoder: {kind: fsq, levels: [8, 1]}", ["3:38: autoencoder.levels.1: should be greater than"]),
        ("autoencoder: {kl: 0.1, bach: 3}", ["3:24: autoencoder.bach: there is no such key (did you mean 'batch'?)"]),
        ("autoencoder: {kl: -1, batch: 0}", ["3:30: autoencoder.batch: ", "3:19: autoencoder.kl: should be greater"]),
        ("autoencoder: {kind: vq, factor: 16, norm: lay}", ["3:43: autoencoder.norm: should be 'group' or 'rms'"]),
        ("autoencoder: [kl]", ["3:14: autoencoder: should be a section (key: value)"]),
    ],
)  # fmt: skip
def test_mistakes_stand_where_they_are(write, text, expected):
    found = "\n".join(problems(write(HEAD + text)))
    assert all(part in found for part in expected), found


def test_the_factor_divides_the_side_where_there_is_one(write):
    odd = HEAD.replace("64", "50")
    [problem] = problems(write(odd + "autoencoder: vq\n"))
    assert "autoencoder.factor: 8 does not divide the side of the images, 50" in problem
    assert load(write(odd + "autoencoder: identity\n")).autoencoder == IdentitySpec()


def test_a_budget_goes_to_what_is_trained(write):
    from galdiff.config.build import _budgets

    ready, trained = load(write(HEAD + "autoencoder: identity\n")), load(write(HEAD))
    assert _budgets(60.0, ready) == {"denoiser.budget": 60.0}
    assert _budgets((10.0, 20.0), ready) == {"denoiser.budget": 20.0}
    assert _budgets(60.0, trained) == {"autoencoder.budget": 30.0, "denoiser.budget": 30.0}


@pytest.mark.parametrize("section", ["identity", "{kind: vq, width: 8, codes: 64}", "{kind: fsq, width: 8}"])
def test_cost_knows_the_kinds(write, section):
    small = "denoiser: {backbone: {kind: unet, widths: [8]}}\n"

    spec, rows = load(write(f"{HEAD.replace('64', '16')}autoencoder: {section}\n{small}")), 10**9
    schema, device = ConditionSchema([]), torch.device("cpu")
    cost = estimate(spec, rows=rows, bands=2, schema=schema, bytes_per_value=2)
    cost = replace(cost, seconds=time_stages(spec, rows=rows, bands=2, schema=schema, device=device))
    ready = section == "identity"
    assert (cost.parameters["autoencoder"] == 0) == ready
    assert (cost.seconds["autoencoder"] == 0) == ready
    latent = {"identity": 2 * 16 * 16}.get(section, (8 if "vq" in section else 6) * 2 * 2)
    assert cost.disk / rows == pytest.approx(2 * 16 * 16 * 2 + latent * 4, abs=0.1)


def test_a_check_looks_into_the_folder(write, tmp_path):
    (tmp_path / "x").mkdir()
    text = "name: demo\ndata: {kind: gz2, simulate: {n: 4}}\nautoencoder: {kind: diffusers, folder: none}\n"
    found = check(load(write(text)), tmp_path / "run")
    assert str(found.problems[0]).startswith("autoencoder.folder: ")
    assert found.cost is None


def test_mnist_fits_its_catalog_file(real_data, tmp_path):
    root = real_data("mnist")
    spec = load("mnist_ddpm", {"data.root": root, "data.images": "t10k-images-idx3-ubyte.gz", "data.limit": 100})
    assert check(spec, tmp_path / "run", estimate=False).problems == []

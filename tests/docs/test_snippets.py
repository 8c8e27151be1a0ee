"""What the pages show works: catalog files are valid, commands parse, Python runs on a tiny model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from astropy.io import fits
from PIL import Image
from typer.main import get_command

import galdiff
from galdiff import LatentDiffusion, cli
from galdiff.config import fit_settings, load
from galdiff.config.build import build_dataset
from galdiff.config.samples import parse_options
from galdiff.config.theory import check_theory
from galdiff.pipeline import STAGES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("index", "tutorial", "howto", "choices"))]
TINY = {
    "data.simulate": {"n": 40, "size": 32},
    "data.size": 32,
    "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    "autoencoder": {"images": 32, "width": 8},
    "denoiser": {"images": 32, "backbone": {"kind": "unet", "widths": [8]}},
    "sampling": {"n": 2, "steps": 2, "asks": {}, "sweeps": {}},
}


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the pages' blocks of a language, each with its page."""
    found = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(page.name, text) for page in PAGES for text in found.findall(page.read_text())]


def _write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder that has what the pages name: data, catalog files, runs."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "catalogs").symlink_to(ROOT / "catalogs")
    data, n = folder / "data", 12

    _write_images(data / "mine" / "images", [f"m{i}.png" for i in range(n)])
    labels = {"name": [f"m{i}" for i in range(n)], "type": list("EZS") * (n // 3)}
    pd.DataFrame(labels).to_csv(data / "mine" / "labels.csv", index=False)

    _write_images(data / "club" / "images", [f"ngc{i:04d}.jpg" for i in range(n)])
    share = np.linspace(0, 1, n)
    votes = {"galaxy": [f"ngc{i:04d}" for i in range(n)], "smooth": share, "disk": 1 - share}
    pd.DataFrame(votes | {"edge_on": share, "arms": share}).to_csv(data / "club" / "votes.csv", index=False)

    (data / "stamps").mkdir()
    for i in range(n):
        for band in "gr":
            fits.writeto(data / "stamps" / f"{i:03d}_{band}.fits", np.full((48, 48), i, np.float32))
    objects = {"id": [f"{i:03d}" for i in range(n)], "type": ["round", "flat"] * (n // 2)}
    numbers = {"redshift": share, "log_mass": 10 + share}
    pd.DataFrame(objects | numbers).to_csv(data / "stamps" / "objects.csv", index=False)

    for _, text in blocks("yaml"):
        if "name" in (catalog := yaml.safe_load(text)):
            (folder / f"{catalog['name']}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(place):
    run = galdiff.train("quickstart", out=place / "runs", quiet=True, device="cpu", stages=STAGES[:5], **TINY)
    for name in ("mine", "quickstart-short"):
        (place / "runs" / name).symlink_to(run)
    (place / "data" / "gz2").symlink_to(run / "simulated")
    cutouts = galdiff.GZ2Dataset(run / "simulated", size=32)
    for name, rows in (("real", range(24)), ("theirs", range(24, 40))):
        np.save(place / f"{name}.npy", np.stack([cutouts.read(i) for i in rows]))
    return place


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_catalog_files_are_valid(page, text, place):
    catalog = yaml.safe_load(text)
    if "data" in catalog:
        path = place / f"{catalog.get('name', 'part')}.yaml"
        path.write_text(yaml.safe_dump({"name": "part"} | catalog))
        spec = load(path)
        assert len(build_dataset(spec, place)) == 12
    else:
        spec = load("quickstart", catalog)
    check_theory(spec)


def _commands() -> list[tuple[str, str]]:
    lines = [(page, line) for page, text in blocks("sh") for line in text.replace("\\\n", " ").splitlines()]
    return [(page, line) for page, line in lines if line.startswith("galdiff")]


@pytest.mark.parametrize(("page", "line"), _commands())
def test_commands_parse(page, line, place, monkeypatch):
    monkeypatch.chdir(place)
    name, *arguments = shlex.split(line, comments=True)
    command = get_command({"galdiff": cli.app, "galdiff-train": cli.train_app}[name])
    context = command.make_context(name, arguments)
    while hasattr(command, "resolve_command"):
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, arguments, parent=context)
    given = context.params
    if "catalog" in given:
        load(given["catalog"], given["overrides"] or ())
        stages = (given.get("stages") or "").split(",") if given.get("stages") else []
        assert {*stages, *(given.get("redo") or ())} <= set(STAGES)
    elif "condition" in given:
        parse_options(given["overrides"] or ())


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs(page, trained, monkeypatch):
    def train(catalog, **overrides):
        load(catalog, overrides)
        return Path("runs/quickstart")

    def fit(dataset, folder, **sections):
        fit_settings(sections, bands=len(dataset.bands), size=dataset.size)
        return LatentDiffusion.load("runs/quickstart")

    monkeypatch.chdir(trained)
    monkeypatch.setattr(galdiff, "train", train)
    monkeypatch.setattr(LatentDiffusion, "fit", fit)
    names: dict[str, object] = {}
    for where, text in blocks("python"):
        if where == page.name:
            exec(compile(text, page.name, "exec"), names)

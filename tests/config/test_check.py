"""What is wrong with a run is found before it starts, all of it; the estimate follows the shapes."""

import os
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from galdiff.config import check as check_module
from galdiff.config import fit_settings, load
from galdiff.config.build import build_dataset
from galdiff.config.check import check
from galdiff.config.cost import estimate, time_stages
from galdiff.data import split_rows
from galdiff.errors import CatalogFileError, DataError, GaldiffError
from galdiff.schema.conditions import Class, ConditionSchema

CATALOG = """\
name: demo
data: {kind: image_folder, root: stamps, table: table.csv, id: id, label: label, classes: {0: disk, 1: round}, size: 32}
autoencoder: {width: 16, blocks: 1}
denoiser: {backbone: {kind: unet, widths: [16, 32], blocks: 1, head_width: 16}}
"""


@pytest.fixture
def catalog(tmp_path) -> Path:
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    rng = np.random.default_rng(0)
    rows = [f"{1000 + i},{i % 2}" for i in range(60)]
    for row in rows:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(stamps / f"{row.split(',')[0]}.png")
    (stamps / "table.csv").write_text("\n".join(["id,label", *rows]))
    path = tmp_path / "demo.yaml"
    path.write_text(CATALOG)
    return path


def messages(path: Path, *overrides: str) -> list[str]:
    return [str(problem) for problem in check(load(path, overrides), path.parent / "runs", estimate=False).problems]


def test_a_sound_run_has_no_problems_and_a_cost(catalog):
    found = check(load(catalog), catalog.parent / "runs" / "demo")
    assert found.problems == []
    assert found.facts[0].startswith("images      60, 32 pixels")
    assert found.cost.disk > 60 * 3 * 32 * 32 * 2
    assert set(found.cost.seconds) == {"cutouts", "autoencoder", "latents", "denoiser", "samples"}
    assert "roughly" in str(found.cost)
    assert not (catalog.parent / "runs").exists()
    found.raise_problems()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.root=nowhere", "nowhere"),
        ("data.table=none.csv", "none.csv"),
        ("data.label=KLASS", "KLASS"),
        ("data.id=OBJID", "OBJID"),
        ("data.classes={0: disk, 2: round}", "label '1'"),
        ("data.limit=2", "split of 2 images is empty"),
        ("device=cuda:99", "cuda:99"),
        ("evaluation.features=[inception]", "there is no feature space 'inception'"),
        ("evaluation.features=[dinov2=nowhere]", "model.safetensors"),
    ],
)
def test_every_kind_of_problem_is_found(catalog, override, words):
    assert words in "\n".join(messages(catalog, override))


def test_feature_spaces_change_what_an_evaluation_depends_on_only_where_there_are_some(catalog):
    """Runs that were begun before there were any go on."""
    assert set(load(catalog).evaluation.settings()) == {"classifier", "draws"}
    spec = load(catalog, ["evaluation.features=[inception-2015:tf]"])
    assert spec.evaluation.settings()["features"] == ["inception-2015:tf"]


def test_keys_that_came_later_change_what_an_evaluation_depends_on_only_where_they_are_set(catalog):
    usual = load(catalog, ["evaluation.votes=16000", "evaluation.encoder=8000", "evaluation.memorisation=true"])
    assert set(usual.evaluation.settings()) == {"classifier", "draws"}
    other = load(catalog, ["evaluation.votes=0", "evaluation.encoder=64", "evaluation.memorisation=false"])
    assert other.evaluation.settings().items() >= {"votes": 0, "encoder": 64, "memorisation": False}.items()


def test_asks_are_held_against_the_data(catalog):
    (message,) = messages(
        catalog, "data.classes=null", "sampling.asks={good: {morphology: '1'}, bad: {morphology: '7'}}"
    )
    assert message.startswith("sampling.asks.bad: '7' is not among")


@pytest.mark.parametrize(("null", "never"), [(0, "without"), (1, "with")])
def test_guidance_needs_images_with_and_without_conditions(catalog, null, never):
    (message,) = messages(catalog, f"denoiser.null={null}")
    assert message.startswith(f"denoiser.null: guidance needs what the network makes of images {never} conditions")
    assert messages(catalog, f"denoiser.null={null}", "sampling.guidance=1") == []
    # Of several conditions, such as questions of votes, all are hidden from some images anyway.
    schema = ConditionSchema([Class("morphology", ("disk", "round"))])
    with pytest.raises(CatalogFileError, match=f"images {never} conditions"):
        fit_settings({"denoiser": {"null": null}}, schema=schema)
    fit_settings({"denoiser": {"null": null}, "sampling": {"guidance": 1}}, schema=schema)
    votes = check(load("quickstart", [f"denoiser.null={null}"]), catalog.parent / "runs", estimate=False).problems
    assert bool(votes) == (null == 1)


class TestRowsThatStagesNeed:
    NOTHING = "split={train: 1.0, validation: 0, test: 0}"

    def problems(self, name, folder, *overrides, **options):
        found = check(load(name, overrides), folder / "runs" / "demo", estimate=False, **options)
        return [str(problem) for problem in found.problems]

    def test_no_image_is_held_out(self, catalog):
        (message,) = self.problems(catalog, catalog.parent, self.NOTHING)
        assert "no image is held out" in message
        assert self.problems(catalog, catalog.parent, self.NOTHING, stages=["cutouts", "denoiser"]) == []
        assert len(self.problems(catalog, catalog.parent, self.NOTHING, stages=["samples"])) == 1

    def test_a_column_holds_none_out(self, catalog):
        table = catalog.parent / "stamps" / "table.csv"
        pd.read_csv(table).assign(split="train").to_csv(table, index=False)
        (message,) = self.problems(catalog, catalog.parent, "split={by: column}")
        assert "no image is held out" in message

    def test_what_is_empty_is_told_once(self, catalog):
        shares = "split={train: 0.998, validation: 0.002, test: 0}"
        (message,) = self.problems(catalog, catalog.parent, "data.limit=3", shares)
        assert "the validation split of 3 images is empty" in message

    def test_one_image_is_not_trained_on(self, catalog):
        table = catalog.parent / "stamps" / "table.csv"
        pd.read_csv(table).assign(split=["train"] + ["test"] * 59).to_csv(table, index=False)
        (message,) = self.problems(catalog, catalog.parent, "split={by: column}")
        assert "fewer than two images are in the training split" in message

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            (NOTHING, "no image is held out"),
            ("data.simulate.n=1", "fewer than two images"),
            ("data.simulate.n=2", "no image is held out"),
            ("data.limit=1", "fewer than two images"),
        ],
    )
    def test_of_simulated_data(self, override, words, tmp_path):
        (message,) = self.problems("quickstart", tmp_path, override)
        assert words in message


def test_a_missing_image_is_found(catalog):
    (catalog.parent / "stamps" / "1007.png").unlink()
    assert "1007" in "\n".join(messages(catalog))
    assert messages(catalog, "data.on_bad=skip") == []


def test_classes_without_a_training_image_are_named(catalog):
    """As where a folder of a class is nearly empty: asked for, they would be what an untrained embedding gives."""
    table = catalog.parent / "stamps" / "table.csv"
    spec = load(catalog)
    frame = pd.read_csv(table)
    held_out = frame["id"][split_rows(frame["id"].to_numpy(), frame, **spec.split.settings()) == "test"]
    frame.assign(label=frame["id"].isin(held_out).astype(int)).to_csv(table, index=False)
    facts = check(spec, catalog.parent / "runs", estimate=False).facts
    assert "unlearned   no training image is of morphology round" in facts
    frame.to_csv(table, index=False)
    assert not any("unlearned" in fact for fact in check(spec, catalog.parent / "runs", estimate=False).facts)


def test_problems_come_together(catalog):
    found = check(load(catalog, ["data.limit=2", "device=cuda:99"]), catalog.parent / "runs", estimate=False)
    assert len(found.problems) >= 2
    with pytest.raises(DataError, match=f"{len(found.problems)} problems"):
        found.raise_problems()


def test_a_missing_table_does_not_hide_missing_images(catalog):
    both = messages(catalog, "data.table=none.csv", "data.images=nowhere", "evaluation.features=[dinov2=absent]")
    assert len(both) == 3
    assert all(word in "\n".join(both) for word in ("none.csv", "nowhere", "absent"))


def test_missing_columns_are_told_together(catalog):
    both = messages(catalog, "data.label=KLASS", "data.scalars=[redshift]")
    assert len(both) == 2
    assert all(word in "\n".join(both) for word in ("'KLASS'", "'redshift'"))


def test_a_missing_table_of_votes_mapping_and_images_are_told_together(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "demo.yaml").write_text("name: demo\ndata: {kind: gz2, root: x, mapping: map.csv}\n")
    found = messages(tmp_path / "demo.yaml")
    assert len(found) == 3
    assert sum("map.csv: the filename mapping is missing" in problem for problem in found) == 1


@pytest.mark.parametrize(
    "override",
    [
        "autoencoder.width=65536",
        "denoiser.backbone={kind: dit, width: 65536, depth: 64, heads: 64}",
        "denoiser.batch=1000000000000",
    ],
)
def test_what_no_memory_holds_is_refused_before_it_is_built(catalog, override):
    found = check(load(catalog, [override]), catalog.parent / "runs")
    assert "GiB of memory" in "\n".join(map(str, found.problems))
    assert found.cost.seconds == {}


def test_images_that_no_memory_holds_at_once_are_refused(catalog, monkeypatch):
    """Of a large data set the evaluation needs more than the trainings, and comes after them."""
    spec = load(catalog, ["split={train: 0.5, validation: 0.2, test: 0.3}", "sampling.n=1000"])
    shape = {"bands": 3, "schema": ConditionSchema([]), "bytes_per_value": 2}
    few, many = (estimate(spec, rows=rows, **shape) for rows in (1000, 301_000))
    # Of 300,000 more, half are held out; there are no more than 5,000 to train on and 1,000 samples.
    assert many.host - few.host == 6 * 4 * 3 * 32**2 * (150_000 + 4500 + 500)
    monkeypatch.setattr(check_module, "estimate_cost", lambda spec, **more: many)
    monkeypatch.setattr(check_module, "machine_memory", lambda: many.host - 1)
    (problem,) = check(spec, catalog.parent / "runs", estimate=False).problems
    assert "drawing and comparing images needs" in str(problem)
    assert "split" in str(problem)
    assert check(spec, catalog.parent / "runs", estimate=False, stages=["cutouts", "denoiser"]).problems == []


_MEASURE = """
import resource, sys
from galdiff.config import run
run("quickstart", overrides=sys.argv[2:], out=sys.argv[1], stages=["cutouts", "autoencoder"], quiet=True, device="cpu")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units")
def test_memory_and_disk_are_those_of_a_run(tmp_path):
    """Of the quickstart's autoencoder, whose training and noise model take the most."""
    overrides = ["data.simulate.n=240", "autoencoder.images=64", "evaluation.votes=0", "threads=1"]
    command = [sys.executable, "-c", _MEASURE, str(tmp_path), *overrides]
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    few = ["sampling.n=1", "sampling.asks={any: {}}", "sampling.sweeps={}", "denoiser.backbone.widths=[8, 8]"]
    cost = check(load("quickstart", [*overrides, *few]), tmp_path / "other", estimate=False).cost
    assert 0.75 < cost.memory / measured < 1.3
    written = ("cutouts.zarr", "autoencoder")
    disk = sum(p.stat().st_size for name in written for p in (tmp_path / "quickstart" / name).rglob("*") if p.is_file())
    assert 0.9 < cost.disk / disk < 1.5


def test_a_single_problem_is_raised_as_it_is(catalog):
    with pytest.raises(GaldiffError, match="there is no such folder"):
        check(load(catalog, ["data.root=x"]), catalog.parent / "runs", estimate=False).raise_problems()


def test_an_output_folder_that_is_a_file(catalog):
    found = check(load(catalog), catalog / "runs", estimate=False)
    assert "is a file" in str(found.problems[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_cannot_be_written(catalog):
    closed = catalog.parent / "closed"
    closed.mkdir(mode=0o500)
    assert "cannot be written" in str(check(load(catalog), closed / "runs", estimate=False).problems[0])


def test_a_disk_that_is_too_small(catalog, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 10**5)
    monkeypatch.setattr(check_module.shutil, "disk_usage", lambda _: usage)
    assert "of disk" in "\n".join(map(str, check(load(catalog), catalog.parent / "runs").problems))


def test_a_run_with_its_cutouts_goes_on_without_the_data(catalog):
    spec = load(catalog, ["data.root=gone"])
    assert check(spec, catalog.parent / "runs", cached=True, estimate=False).problems == []


@pytest.mark.parametrize(("name", "what"), [("quickstart", "4000 galaxies"), ("lenses", "3000 lenses")])
def test_simulated_data_need_no_files(name, what, tmp_path):
    found = check(load(name), tmp_path / name, estimate=False)
    assert found.problems == []
    assert f"{what} to simulate" in found.facts[0]


def test_lenses_cannot_be_simulated_without_caustics(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "caustics.func", None)
    found = check(load("lenses"), tmp_path / "lenses", estimate=False)
    assert "galdiff[lenses]" in str(found.problems[0])


@pytest.mark.parametrize("limit", ["null", "1"])
def test_what_is_promised_of_simulated_lenses_is_so(limit, tmp_path):
    spec = load("lenses", ["data.simulate.n=6", f"data.limit={limit}"])
    promised = check(spec, tmp_path, estimate=False).facts[0]
    dataset = build_dataset(spec, tmp_path)
    assert f"{len(dataset)} lenses" in promised
    assert f"{len(dataset.bands)} bands" in promised
    assert dataset.storage_dtype == "float32"
    assert dataset.schema.to_dict() == check_module._SIMULATED["deeplense"].schema.to_dict()


@pytest.mark.skipif("GALDIFF_DATA" not in os.environ, reason="needs GALDIFF_DATA")
@pytest.mark.parametrize(("name", "root"), [("gz1", "gz1"), ("deeplense", "deeplense_generated/Model_II")])
def test_shipped_catalogs_fit_the_real_data(name, root, tmp_path):
    spec = load(name, {"data.root": Path(os.environ["GALDIFF_DATA"]) / root})
    found = check(spec, tmp_path / name, estimate=False)
    assert found.problems == []


def test_cost_grows_with_what_is_asked(catalog):
    schema = ConditionSchema([Class("label", ("disk", "round"))])

    def cost(*overrides: str, rows: int = 1000):
        spec = load(catalog, overrides)
        seconds = time_stages(spec, rows=rows, bands=3, schema=schema, device=torch.device("cpu"))
        return replace(estimate(spec, rows=rows, bands=3, schema=schema, bytes_per_value=2), seconds=seconds)

    one, two = cost(rows=1000), cost(rows=2000)
    cutouts, latents = 3 * 32 * 32 * 2, 8 * 4 * 4 * 2 * 2
    assert two.disk - one.disk == 1000 * (cutouts + latents)
    assert one.parameters == two.parameters
    wide = cost("autoencoder.width=32")
    assert wide.parameters["autoencoder"] > one.parameters["autoencoder"]
    assert wide.memory > one.memory
    assert cost("autoencoder.budget=60", "denoiser.budget=30").seconds["autoencoder"] == 60


def test_the_samples_that_are_counted_are_those_that_are_drawn(catalog):
    # Grids are drawn of the classes of the first field alone.
    schema = ConditionSchema([Class("morphology", ("disk", "round")), Class("bar", ("strong", "weak", "none"))])
    said = {"sampling.asks": {name: {"morphology": name} for name in ("disk", "round")}}
    specs = [load(catalog, overrides) for overrides in ((), said)]
    assert len({estimate(s, rows=100, bands=3, schema=schema, bytes_per_value=2).disk for s in specs}) == 1


class TestSplitsAndTwins:
    def test_a_twin_across_splits_stops_the_run_unless_it_is_allowed(self, catalog):
        stamps = catalog.parent / "stamps"
        dataset = check(load(catalog), catalog.parent / "runs", estimate=False).dataset
        split = split_rows(dataset.ids, dataset.table)
        (held_out, trained) = dataset.ids[split == "test"][0], dataset.ids[split == "train"][0]
        (stamps / f"{held_out}.png").write_bytes((stamps / f"{trained}.png").read_bytes())
        (message,) = messages(catalog)
        assert f"{held_out} (test) = {trained} (train)" in message
        allowed = check(load(catalog, ["split.duplicates=allow"]), catalog.parent / "runs", estimate=False)
        assert allowed.problems == []
        assert any(fact.startswith("duplicates  1 held-out rows have a twin") for fact in allowed.facts)

    def test_twins_in_one_split_are_told(self, catalog):
        stamps = catalog.parent / "stamps"
        dataset = check(load(catalog), catalog.parent / "runs", estimate=False).dataset
        first, second = dataset.ids[split_rows(dataset.ids, dataset.table) == "train"][:2]
        (stamps / f"{second}.png").write_bytes((stamps / f"{first}.png").read_bytes())
        found = check(load(catalog), catalog.parent / "runs", estimate=False)
        assert found.problems == []
        assert any("1 pairs by content that leak nothing" in fact for fact in found.facts)

    def test_a_limit_of_the_search_is_told(self, catalog, monkeypatch):
        monkeypatch.setattr("galdiff.config.check.LOADED", 3)
        monkeypatch.setattr("galdiff.data.imagefolder.ImageFolderDataset.source", lambda self, i: None)
        monkeypatch.setattr("galdiff.data.imagefolder.ImageFolderDataset.load", lambda self, i: np.full((3, 8, 8), i))
        found = check(load(catalog), catalog.parent / "runs", estimate=False)
        assert any("looked for in the first 3 alone" in fact for fact in found.facts)

    def with_columns(self, catalog, **columns):
        path = catalog.parent / "stamps" / "table.csv"
        pd.read_csv(path).assign(**columns).to_csv(path, index=False)

    def test_by_sky_with_a_separation(self, catalog):
        draw = np.random.default_rng(1)
        self.with_columns(catalog, RA=draw.uniform(0, 8, 60), DEC=draw.uniform(0, 8, 60))
        shares = "split.train=0.6", "split.validation=0.2", "split.test=0.2"
        options = "split.by=sky", "split.cell=1", "split.separation=2000", *shares
        found = check(load(catalog, options), catalog.parent / "runs", estimate=False)
        assert found.problems == []
        (dropped,) = [int(fact.split("dropped ")[1]) for fact in found.facts if "dropped" in fact]
        told = check(load(catalog, [*options, "split.close=report"]), catalog.parent / "runs", estimate=False)
        assert f"close       {dropped} training rows within 2000 arcsec of held-out ones" in told.facts

    def test_by_column(self, catalog):
        self.with_columns(catalog, fold=["train"] * 50 + ["val"] * 10)
        spec = load(catalog, ["split={by: column, column: fold}"])
        found = check(spec, catalog.parent / "runs", estimate=False)
        assert found.problems == []
        assert "split       train 50, validation 10, test 0" in found.facts
        assert spec.split.settings() == {"by": "column", "column": "fold"}

    @pytest.mark.parametrize(
        ("split", "words"),
        [
            ("{by: column, train: 0.7, validation: 0.2}", "split.train"),
            ("{by: hash, cell: 2}", "split.cell"),
            ("{by: sky, ra: RAJ2000}", "split.dec"),
            ("{by: sky, cell: 0}", "split.cell"),
        ],
    )
    def test_keys_that_do_not_go_together(self, catalog, split, words):
        with pytest.raises(GaldiffError, match=words.replace(".", r"\.")):
            load(catalog, [f"split={split}"])

    def test_what_is_missing_is_a_problem(self, catalog):
        assert "no columns 'ra' and 'dec'" in "\n".join(messages(catalog, "split.by=sky"))
        assert "no column 'split'" in "\n".join(messages(catalog, "split.by=column"))


def test_what_no_image_knows_is_not_asked_for(catalog, monkeypatch):
    """Such as votes on a question that the table has no column of."""
    asks = "sampling.asks={flat: {morphology: disk}}"
    assert messages(catalog, asks) == []
    find = check_module._dataset

    def forgetful(*args, **more):
        dataset = find(*args, **more)
        dataset.conditions.masks["morphology"][:] = False
        return dataset

    monkeypatch.setattr(check_module, "_dataset", forgetful)
    [problem] = messages(catalog, asks)
    assert "sampling.asks.flat" in problem
    assert "no image knows anything" in problem

"""What a run refuses, it refuses before it has changed anything; what it does not refuse goes on."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from galdiff.config import check as check_module
from galdiff.config import load, run
from galdiff.config.build import again
from galdiff.errors import DataError, GaldiffError, StaleRunError, StoreError
from galdiff.pipeline import STAGES, Run
from galdiff.pipeline.evaluation import Evaluation
from galdiff.pipeline.run import _Flow
from galdiff.pipeline.scores import write_evaluation

REPORT = _Flow.do_report
CATALOG = """\
name: demo
data: {kind: image_folder, root: stamps, table: table.csv, id: id, label: label, classes: {0: disk, 1: round}, size: 16}
autoencoder: {images: 64}
denoiser: {images: 64}
"""


@pytest.fixture
def worked(monkeypatch):
    """Stages that were worked on; but for the cutouts they do nothing."""
    stages = []
    for stage in STAGES[1:]:
        monkeypatch.setattr(_Flow, f"do_{stage}", lambda flow, stage=stage: stages.append(stage))
    return stages


@pytest.fixture
def catalog(tmp_path):
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    rng = np.random.default_rng(0)
    lines = ["id,label"]
    for i in range(1000, 1060):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(stamps / f"{i}.png")
        lines.append(f"{i},{i % 2}")
    (stamps / "table.csv").write_text("\n".join(lines))
    path = tmp_path / "demo.yaml"
    path.write_text(CATALOG)
    return path


def train(catalog, *overrides, **more):
    return run(catalog, overrides=overrides, out=catalog.parent / "runs", quiet=more.pop("quiet", True), **more)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def assert_refused(catalog, folder, error, match, *overrides, **more):
    before = files(folder)
    with pytest.raises(error, match=match) as caught:
        train(catalog, *overrides, **more)
    assert files(folder) == before
    return str(caught.value)


class TestTheCatalogFileOfARun:
    def test_a_refused_command_leaves_it(self, catalog, worked):
        folder = train(catalog)
        assert_refused(catalog, folder, StaleRunError, "training.images: 64 -> 128", "denoiser.images=128")
        evaluated = again(folder, "evaluation", "report")
        assert yaml.safe_load((evaluated / "catalog.yaml").read_text())["denoiser"]["images"] == 64
        del worked[:]
        train(catalog)
        assert worked == []

    def test_an_evaluation_that_is_refused_leaves_it(self, catalog, worked):
        folder = train(catalog)
        before = files(folder)
        with pytest.raises(StaleRunError, match=r"training\.images: 64 -> 128"):
            again(folder, "evaluation", "report", denoiser__images=128)
        assert files(folder) == before

    def test_it_goes_on_to_say_what_later_stages_were_made_of(self, catalog, worked):
        folder = train(catalog)
        train(catalog, "denoiser.images=128", stages=["cutouts", "autoencoder"])
        assert yaml.safe_load((folder / "catalog.yaml").read_text())["denoiser"]["images"] == 64


class TestStages:
    def test_settings_of_earlier_ones_are_compared(self, catalog, worked):
        folder = train(catalog, stages=["cutouts", "autoencoder", "latents"])
        for override, change in (("autoencoder.images=999", "training.images: 64 -> 999"), ("data.crop=0.9", "crop")):
            assert_refused(catalog, folder, StaleRunError, change, override, stages=["denoiser"])
        train(catalog, stages=["denoiser"])
        assert worked == ["autoencoder", "latents", "denoiser"]

    def test_all_that_are_missing_are_named(self, catalog, worked):
        folder = train(catalog, stages=["cutouts"])
        named = "needs 'autoencoder', 'latents', which are not finished.* --stages autoencoder,latents,denoiser$"
        assert_refused(catalog, folder, GaldiffError, named, stages=["denoiser"])
        with pytest.raises(GaldiffError, match=r"--stages autoencoder,latents,denoiser$"):
            train(catalog, stages=["latents", "denoiser"])
        train(catalog, stages=["autoencoder", "latents", "denoiser"])

    def test_what_is_archived_is_missing(self, catalog, worked):
        folder = train(catalog)
        stages = {"redo": ["autoencoder"], "stages": ["autoencoder", "denoiser"]}
        assert_refused(catalog, folder, GaldiffError, "needs 'latents', which is not finished", **stages)

    def test_one_that_only_follows_another_names_it(self, catalog, worked):
        folder = train(catalog)
        for record in folder.glob("stages/autoencoder.*"):
            record.unlink()
        message = assert_refused(
            catalog, folder, StaleRunError, "another 'autoencoder' came before", "autoencoder.images=128"
        )
        assert "after" not in message
        assert "--redo latents" in message


class TestRedo:
    def test_nothing_is_archived_that_is_not_to_be_done(self, catalog, worked):
        folder = train(catalog)
        left_out = {"redo": ["autoencoder"], "stages": ["cutouts"]}
        assert_refused(catalog, folder, GaldiffError, "'autoencoder' is to be done.* cutouts,autoencoder$", **left_out)
        assert_refused(catalog, folder, GaldiffError, "unknown stage 'encoder'", redo=["encoder"])

    def test_nothing_is_archived_where_the_run_is_refused(self, catalog, worked):
        folder = train(catalog)
        assert_refused(
            catalog, folder, StaleRunError, "training.images: 64 -> 9", "autoencoder.images=9", redo=["samples"]
        )

    def test_simulated_data_go_with_the_cutouts(self, tmp_path, worked):
        few = {"data.simulate.n": 30, "data.simulate.size": 32, "data.size": 32, "autoencoder.images": 64}
        usual = {"out": tmp_path, "quiet": True, "stages": ["cutouts"]}
        folder = run("quickstart", overrides=few, **usual)
        more = {**few, "data.simulate.n": 32}
        with pytest.raises(GaldiffError, match="--redo cutouts"):
            run("quickstart", overrides=more, **usual)
        run("quickstart", overrides=more, **usual, redo=["cutouts"])
        [archived] = (folder / "archive").iterdir()
        kept = [place / "simulated" / "simulation.json" for place in (archived, folder)]
        assert [json.loads(path.read_text())["n"] for path in kept] == [30, 32]
        # The same once more: what was there when it was checked is not what it is made of.
        run("quickstart", overrides=more, **usual, redo=["cutouts"])
        assert Run(folder).record("cutouts")["images"] == 32


class TestDataThatAreGone:
    def test_the_run_says_so_and_goes_on(self, catalog, worked, capsys):
        train(catalog, stages=["cutouts"])
        shutil.rmtree(catalog.parent / "stamps")
        train(catalog, quiet=False)
        [line] = [line for line in capsys.readouterr().err.splitlines() if "stamps" in line]
        assert line.split(maxsplit=1)[0] == "cutouts"
        assert "goes on with its cached cutouts" in line
        assert worked == [*STAGES[1:]]

    @pytest.mark.parametrize(
        ("override", "change"), [("data.crop=0.9", r"data\.crop: 1\.0 -> 0\.9"), ("data.limit=30", "data.limit")]
    )
    def test_their_settings_are_compared(self, catalog, worked, override, change):
        folder = train(catalog)
        shutil.rmtree(catalog.parent / "stamps")
        assert_refused(catalog, folder, StaleRunError, rf"stage 'cutouts'.*\n  {change}", override)
        train(catalog, "data.root=elsewhere")


class TestTooFewRows:
    def test_nothing_held_out_is_found_before_anything_is_trained(self, catalog, worked):
        nothing = "split={train: 1.0, validation: 0, test: 0}"
        with pytest.raises(DataError, match="no image is held out"):
            train(catalog, nothing)
        assert not (catalog.parent / "runs" / "demo" / "cutouts.zarr").exists()
        folder = train(catalog, nothing, stages=STAGES[:4])
        del worked[:]
        assert_refused(catalog, folder, DataError, "no image is held out.*--redo cutouts", nothing)
        assert worked == []

    def test_simulated_rows_are_counted_as_soon_as_they_are_there(self, tmp_path, worked):
        few = ["data.simulate.n=3", "data.simulate.size=32", "data.size=32"]
        assert check_module.check(load("quickstart", few), tmp_path, estimate=False).problems == []
        for _ in range(2):
            with pytest.raises(DataError, match="no image is held out"):
                run("quickstart", overrides=few, out=tmp_path, quiet=True)
        assert worked == []
        run("quickstart", overrides=few, out=tmp_path, quiet=True, stages=STAGES[:4])
        assert worked == [*STAGES[1:4]]

    def test_files_that_are_skipped_are_not_held_out(self, catalog, worked):
        stamps = catalog.parent / "stamps"
        folds = {1000: "val"} | dict.fromkeys(range(1001, 1060), "train")
        table = ["id,label,split", *(f"{i},{i % 2},{fold}" for i, fold in folds.items())]
        (stamps / "table.csv").write_text("\n".join(table))
        (stamps / "1000.png").write_bytes((stamps / "1000.png").read_bytes()[:90])
        with pytest.raises(DataError, match="no image is held out"):
            train(catalog, "split={by: column}", "data.on_bad=skip")
        assert worked == []


@pytest.mark.parametrize("text", ['{"inputs": {"tra', "[]", "{}", "", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["cutouts.json", "denoiser.json"])
def test_a_damaged_record_is_named_with_what_to_do(catalog, worked, name, text):
    folder = train(catalog)
    record, stage = folder / "stages" / name, name.split(".")[0]
    record.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = assert_refused(catalog, folder, GaldiffError, f"{name}: the record of stage '{stage}' is damaged")
    assert f"--redo {stage}" in message
    if text:
        record.unlink()
        train(catalog)
    else:
        train(catalog, redo=[stage])
    assert Run(folder).record(stage)


@pytest.mark.parametrize("gone", ["evaluation.json", "evaluation.zarr/zarr.json"])
def test_a_report_of_an_evaluation_that_is_gone_is_refused(catalog, worked, monkeypatch, gone):
    """A page without figures would look whole."""
    monkeypatch.setattr(_Flow, "do_report", REPORT)
    with pytest.raises(StoreError, match=r"evaluation\.json: is gone.* --redo evaluation"):
        train(catalog)
    folder = catalog.parent / "runs" / "demo"
    write_evaluation(folder, Evaluation([]), start=0)
    assert (train(catalog) / "report.html").is_file()
    (folder / gone).unlink()
    with pytest.raises(StoreError, match=f"{gone}: is gone"):
        train(catalog, redo=["report"], stages=["report"])
    assert not (folder / "report.html").exists()


def test_a_damaged_note_of_a_beginning_is_named(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "samples.begun.json").write_text("nul")
    with pytest.raises(GaldiffError, match=r"samples\.begun\.json: the record of stage 'samples' is damaged"):
        Run(tmp_path).do("samples", {}, lambda: None)

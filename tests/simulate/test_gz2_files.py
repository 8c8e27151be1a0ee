"""Simulated galaxies written as Galaxy Zoo 2 has them, read back with nothing but pandas and Pillow."""

import errno
import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from galdiff.data import GZ2Dataset
from galdiff.errors import DataError, ResourceError
from galdiff.schema.trees import GZ2_TREE
from galdiff.simulate.galaxies import simulate_galaxies
from galdiff.simulate.gz2_files import write_gz2

KINDS = ("count", "weight", "fraction", "weighted_fraction", "debiased", "flag")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gz2")
    write_gz2(folder, 40, seed=4)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "gz2_hart16.csv")


def test_every_cutout_is_there_and_is_the_simulated_one(folder):
    images, _ = simulate_galaxies(40, seed=4)
    assert sorted(int(p.stem) for p in (folder / "images").iterdir()) == list(range(1, 41))
    for asset_id in (1, 17, 40):
        with Image.open(folder / "images" / f"{asset_id}.jpg") as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (64, 64))
            pixels = np.asarray(picture, dtype=np.float32) / 255
        assert np.abs(pixels.transpose(2, 0, 1) - images[asset_id - 1]).mean() < 0.01


def test_ids_are_unique_integers_of_18_digits(folder, table):
    mapping = pd.read_csv(folder / "gz2_filename_mapping.csv")
    assert list(mapping) == ["objid", "sample", "asset_id"]
    for ids in (table["dr7objid"], mapping["objid"]):
        assert ids.dtype == np.int64
        assert ids.is_unique
        assert ids.astype(str).str.fullmatch("58[78][0-9]{15}").all()
    assert (table["dr7objid"] == mapping["objid"]).all()
    # A float would not keep them, so a reader that makes floats is caught by this data.
    assert (table["dr7objid"].astype(float).astype("int64") != table["dr7objid"]).any()
    assert set(mapping["sample"]) <= {"original", "extra"}


def test_the_table_has_the_columns_of_hart16(table):
    expected = ["dr7objid", "ra", "dec", "sample", "gz2_class", "total_classifications", "total_votes"]
    expected += [f"{answer.name}_{kind}" for answer in GZ2_TREE.answers for kind in KINDS]
    assert list(table) == expected
    assert not table.isna().any(axis=None)
    for answer in GZ2_TREE.answers:
        assert table[f"{answer.name}_count"].dtype == np.int64
        assert table[f"{answer.name}_flag"].isin([0, 1]).all()


def test_counts_fractions_and_totals_agree(table):
    total = 0
    for question in GZ2_TREE.questions:
        names = [answer.name for answer in question.answers]
        count = table[[f"{name}_count" for name in names]].to_numpy()
        asked = count.sum(1, keepdims=True)
        total = total + asked[:, 0]
        for kind in ("fraction", "weighted_fraction", "debiased"):
            share = table[[f"{name}_{kind}" for name in names]].to_numpy()
            np.testing.assert_allclose(share.sum(1), asked[:, 0] > 0, atol=1e-5)
            assert np.abs(share - count / np.maximum(asked, 1)).max() < (1e-5 if kind == "fraction" else 0.25)
    assert (table["total_votes"] == total).all()


def test_class_names_are_those_of_galaxy_zoo_2(table):
    pattern = r"(A|E[ric]|Se[rbn]|SB?[abcd]([1234+?][tml])?)(\(o\))?"
    assert table["gz2_class"].str.fullmatch(pattern).all()
    assert table["gz2_class"].str.startswith("E").any()
    assert table["gz2_class"].str.startswith("SB").any()


def test_truth_names_what_was_drawn(folder, table):
    truth = pd.read_csv(folder / "truth.csv")
    _, drawn = simulate_galaxies(40, seed=4)
    assert (truth["asset_id"] == np.arange(1, 41)).all()
    assert (truth["dr7objid"] == table["dr7objid"]).all()
    assert (truth["has_spiral"].to_numpy() == drawn["has_spiral"].to_numpy()).all()
    assert truth["axis_ratio"].to_numpy() == pytest.approx(drawn["axis_ratio"].to_numpy(), rel=1e-5)


def test_files_do_not_depend_on_the_workers(folder, tmp_path):
    write_gz2(tmp_path, 40, seed=4, workers=1)
    for path in folder.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()


def test_a_finished_folder_is_left_alone_and_another_simulation_is_refused(folder):
    before = {p: os.stat(p).st_mtime_ns for p in folder.rglob("*")}
    assert write_gz2(folder, 40, seed=4, workers=1) == json.loads((folder / "simulation.json").read_text())
    assert before == {p: os.stat(p).st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(DataError, match="another simulation"):
        write_gz2(folder, 41, seed=4)


def test_a_broken_record_a_file_in_the_way_and_no_galaxies_are_named(tmp_path):
    (tmp_path / "simulation.json").write_text("{")
    with pytest.raises(DataError, match="simulation record"):
        write_gz2(tmp_path, 2, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        write_gz2(tmp_path / "file", 2, seed=0)
    with pytest.raises(DataError, match="0 galaxies"):
        write_gz2(tmp_path / "none", 0, seed=0)


def test_a_full_disk_is_named_and_leaves_a_folder_that_is_not_taken_for_whole(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(ResourceError, match="disk is full"):
            write_gz2(tmp_path, 3, seed=0)
    assert not (tmp_path / "simulation.json").exists()
    assert not (tmp_path / "gz2_hart16.csv").exists()
    write_gz2(tmp_path, 3, seed=0)
    assert len(pd.read_csv(tmp_path / "truth.csv")) == 3


def test_the_loader_reads_back_pixels_ids_and_votes(folder, table):
    dataset = GZ2Dataset(folder, votes="fraction")
    images, _ = simulate_galaxies(40, seed=4)
    assert len(dataset) == 40
    assert dataset.skipped == []
    np.testing.assert_array_equal(dataset.ids, table["dr7objid"])
    assert np.abs(dataset.read(7) - images[7]).mean() < 0.01
    votes, known = dataset.conditions.values["votes"].numpy(), dataset.conditions.masks["votes"].numpy()
    counts = table[[f"{answer.name}_count" for answer in GZ2_TREE.answers]].to_numpy()
    np.testing.assert_allclose(votes, counts, atol=1e-3)
    for q in range(len(GZ2_TREE.questions)):
        np.testing.assert_array_equal(known[:, q], counts[:, GZ2_TREE.answer_slice(q)].sum(1) > 0)

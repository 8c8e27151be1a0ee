"""Simulated lenses written as DeepLense has them, read back with numpy, pandas and the loader."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from galdiff.data import DeepLenseDataset
from galdiff.errors import DataError
from galdiff.simulate import deeplense_files
from galdiff.simulate.deeplense_files import write_deeplense
from galdiff.simulate.lenses import CLASSES, simulate_lenses


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module", params=[False, True], ids=["proper", "compat"])
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lenses") / "new"
    record = write_deeplense(folder, 10, seed=3, model="II", compat=request.param)
    return folder, record, request.param


def test_files_and_folders_are_named_as_theirs(written):
    folder, record, _ = written
    assert json.loads((folder / "simulation.json").read_text()) == record
    assert sorted(p.name for p in folder.iterdir()) == sorted([*CLASSES, "lenses.csv", "simulation.json"])
    for name, count in zip(CLASSES, (4, 3, 3), strict=True):
        paths = list((folder / name).iterdir())
        assert len(paths) == count
        numbers = [int(re.fullmatch(rf"{name}_sim_(\d+)\.npy", path.name)[1]) for path in paths]
        assert all(0 <= number < 2**128 for number in numbers)
        assert max(numbers) > 2**120


def test_arrays_are_the_simulated_ones_and_the_table_tells_them_apart(written):
    folder, _, compat = written
    images, truth = simulate_lenses(10, seed=3, model="II", compat=compat)
    table = pd.read_csv(folder / "lenses.csv")
    assert list(table) == ["id", *truth]
    for image, row in zip(images, table.itertuples(), strict=True):
        label = CLASSES[row.index % 3]
        pickled = compat and label == "axion"
        array = np.load(folder / label / f"{row.id}.npy", allow_pickle=pickled)
        if pickled:
            assert array.shape == (2,)
            array, mass = array
            assert mass == pytest.approx(row.axion_mass)
        np.testing.assert_array_equal(array, image)


def test_the_loader_reads_them(written):
    folder, _, compat = written
    data = DeepLenseDataset(folder, allow_object_arrays=compat)
    assert len(data) == 10
    assert data.conditions.values["substructure"].bincount().tolist() == [4, 3, 3]
    assert data.conditions.masks["log10_mass"].sum() == 3 if compat else "log10_mass" not in data.conditions.values
    assert data.read(0).shape == (1, 64, 64)


def test_the_loader_reads_what_was_drawn(written):
    folder, _, compat = written
    scalars = {"theta_e": "arcsec", "source_x": "arcsec", "log10_mass": "log10 eV"}
    data = DeepLenseDataset(folder, allow_object_arrays=compat, scalars=scalars)
    assert [field.name for field in data.schema.fields] == ["substructure", "log10_mass", "theta_e", "source_x"]
    truth = pd.read_csv(folder / "lenses.csv").set_index("id").loc[[name.split("/")[1] for name in data.ids]]
    values, masks = data.conditions.values, data.conditions.masks
    for name in ("theta_e", "source_x"):
        np.testing.assert_allclose(values[name], truth[name], rtol=1e-6)
        assert masks[name].all()
    axion = (truth["class"] == "axion").to_numpy(copy=True)
    np.testing.assert_array_equal(masks["log10_mass"], axion)
    np.testing.assert_allclose(values["log10_mass"].numpy()[axion], np.log10(truth["axion_mass"][axion]), rtol=1e-6)
    half = DeepLenseDataset(folder, allow_object_arrays=compat, scalars=["vortex_half_length"]).conditions
    np.testing.assert_array_equal(half.masks["vortex_half_length"], axion)
    assert data.fingerprint() != DeepLenseDataset(folder, allow_object_arrays=compat).fingerprint()


def test_scalars_that_are_not_there_are_refused(written, tmp_path):
    folder, _, compat = written
    with pytest.raises(DataError, match="Did you mean 'theta_e'"):
        DeepLenseDataset(folder, allow_object_arrays=compat, scalars=["theta_E"])
    (tmp_path / "cdm").mkdir()
    np.save(tmp_path / "cdm" / "cdm_sim_1.npy", np.zeros((8, 8)))
    with pytest.raises(DataError, match="missing"):
        DeepLenseDataset(tmp_path, scalars=["theta_e"])
    (tmp_path / "lenses.csv").write_text("id,theta_e\ncdm_sim_2,1.5\n")
    with pytest.raises(DataError, match="1 arrays are not in it, such as 'cdm_sim_1'"):
        DeepLenseDataset(tmp_path, scalars=["theta_e"])


def test_a_finished_folder_is_left_alone_and_another_simulation_refused(written, monkeypatch):
    folder, record, compat = written
    monkeypatch.setattr(deeplense_files, "simulate_lenses", None)
    assert write_deeplense(folder, 10, seed=3, model="II", compat=compat) == record
    with pytest.raises(DataError, match="another simulation"):
        write_deeplense(folder, 10, seed=4, model="II", compat=compat)


def test_an_interrupted_folder_is_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(deeplense_files, "BATCH", 4)
    write_deeplense(tmp_path / "whole", 10, seed=3, model="II")
    batches = []

    def stop(n, **options):
        batches.append(options["start"])
        if len(batches) == 2:
            raise KeyboardInterrupt
        return simulate_lenses(n, **options)

    monkeypatch.setattr(deeplense_files, "simulate_lenses", stop)
    with pytest.raises(KeyboardInterrupt):
        write_deeplense(tmp_path / "cut", 10, seed=3, model="II")
    assert not (tmp_path / "cut" / "simulation.json").exists()
    with pytest.raises(DataError, match="another simulation"):
        write_deeplense(tmp_path / "cut", 10, seed=4, model="II")
    write_deeplense(tmp_path / "cut", 10, seed=3, model="II")
    assert batches == [0, 4, 4, 8]
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_folders_that_hold_something_else_are_refused(tmp_path):
    (tmp_path / "cdm").mkdir()
    with pytest.raises(DataError, match="Write elsewhere"):
        write_deeplense(tmp_path, 3, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        write_deeplense(tmp_path / "file", 3, seed=0)
    with pytest.raises(DataError, match="one or more"):
        write_deeplense(tmp_path / "none", 0, seed=0)
    with pytest.raises(DataError, match="no model"):
        write_deeplense(tmp_path / "none", 3, seed=0, model="V")
    assert not (tmp_path / "none").exists()

"""The cutout cache keeps what the loader knew of every pixel, and tells what is left out."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits

from galdiff.data import FITSDataset
from galdiff.errors import StoreError
from galdiff.pipeline.cutouts import write_cutouts
from galdiff.progress import quiet

SPLIT = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_masks_of_invalid_pixels_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.normal(size=(2, 12, 12)).astype(np.float32)
        pixels[0, i, 3] = np.nan
        fits.writeto(tmp_path / f"{i}.fits", pixels)
    dataset = FITSDataset(tmp_path, size=12)
    with quiet():
        store = write_cutouts(dataset, tmp_path / "cutouts.zarr", split=SPLIT)
    masks = store.masks()
    assert masks.shape == store.images().shape
    for i in range(5):
        assert np.array_equal(masks[i], dataset.mask(i))
        assert not masks[i, 0, i, 3]
        assert masks[i].sum() == masks[i].size - 1


@pytest.fixture
def dataset(tmp_path):
    for i in range(5):
        fits.writeto(tmp_path / f"{i}.fits", np.full((12, 12), i, np.float32))
    return FITSDataset(tmp_path, size=12)


def test_a_cache_that_was_finished_is_taken_as_it_is(dataset, tmp_path):
    """A run may be killed between the end of the store and the record of the stage."""
    path = tmp_path / "cutouts.zarr"
    with quiet():
        first = write_cutouts(dataset, path, split=SPLIT)
        sealed = (path / "zarr.json").read_bytes()
        again = write_cutouts(dataset, path, split=SPLIT)
        with pytest.raises(StoreError, match="other inputs"):
            write_cutouts(dataset, path, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert (path / "zarr.json").read_bytes() == sealed
    assert np.array_equal(first.images(), again.images())
    assert not path.with_name("cutouts.zarr.lock").exists()


def test_a_line_that_a_crash_cut_is_no_bad_file(dataset, tmp_path):
    listed = tmp_path / "cutouts.skipped.jsonl"
    listed.write_text('{"row": 3, "id": "3", "why": "damaged"}\n{"row": 4, "i')
    with quiet():
        store = write_cutouts(dataset, tmp_path / "cutouts.zarr", split=SPLIT, on_bad="skip")
    assert np.flatnonzero(store.split == "skipped").tolist() == [3]


def test_what_the_catalog_left_out_is_said_and_listed_once(dataset, tmp_path, capsys):
    dataset.skipped = [("a.fits", "no votes in the table"), ("b", "no image")]
    listed = tmp_path / "cutouts.skipped.jsonl"
    for _ in range(2):
        write_cutouts(dataset, tmp_path / "cutouts.zarr", split=SPLIT, on_bad="skip")
        assert [json.loads(line)["id"] for line in listed.read_text().splitlines()] == ["a.fits", "b"]
        shutil.rmtree(tmp_path / "cutouts.zarr")  # as where a run was killed early on
    said = capsys.readouterr().err
    assert f"2 rows or images are left out: {listed} lists them" in said
    assert "with --redo cutouts" in said

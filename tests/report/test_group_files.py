"""Groups of arrays that a report is drawn from: as they were written, or an error."""

import shutil

import numpy as np
import pytest
import xarray as xr
from damage import flip

from galdiff.errors import StoreError
from galdiff.report.files import load_group, write_group

DATA = xr.Dataset(
    {
        "image": (("sample", "y"), np.float32([[0, np.nan], [1, -np.nan], [np.inf, 2]])),
        "row": ("sample", np.arange(3)),
        "near": ("sample", np.array([True, False, False])),
        "few": ((), 2.5),
    },
    coords={"ask": ("sample", np.array(["edge-on", "", "face-on"], dtype=object)), "none": ("nobody", np.zeros(0))},
)


@pytest.fixture
def store(tmp_path):
    write_group(DATA, tmp_path / "samples.zarr", "grid")
    write_group(DATA[["row"]], tmp_path / "samples.zarr", "real")
    return tmp_path / "samples.zarr"


def test_what_is_written_is_read(store):
    xr.testing.assert_equal(load_group(store, "grid").drop_attrs(), DATA)
    xr.testing.assert_equal(load_group(store, "real").drop_attrs(), DATA[["row"]])
    assert not load_group(store, "sweep").variables


@pytest.mark.parametrize("name", ["image", "row", "near", "few", "ask"])
@pytest.mark.parametrize("damage", ["gone", "flipped", "no array"])
def test_lost_and_changed_values_are_seen(store, name, damage):
    [chunk] = (path for path in (store / "grid" / name).rglob("*") if path.is_file() and path.name != "zarr.json")
    if damage == "gone":
        chunk.unlink()
    elif damage == "flipped":
        flip(chunk, len(chunk.read_bytes()) // 2)
    else:
        shutil.rmtree(store / "grid" / name)
    with pytest.raises(StoreError, match=r"samples\.zarr.*(does not match its hash|cannot be read).*--redo STAGE"):
        load_group(store, "grid")
    load_group(store, "real")


def test_groups_without_a_hash_are_taken_as_they_are(tmp_path):
    DATA.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    xr.testing.assert_equal(load_group(tmp_path / "a.zarr"), DATA)

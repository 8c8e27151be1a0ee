"""Conditions on the command line, and files of samples."""

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from PIL import Image

from galdiff.config.samples import parse_conditions, save_samples, suffix_of
from galdiff.errors import GaldiffError, ResourceError


@pytest.fixture
def images() -> xr.DataArray:
    pixels = np.random.default_rng(0).random((5, 3, 16, 16), dtype=np.float32)
    coords = {"seed": ("sample", np.arange(5)), "band": ["r", "g", "b"]}
    return xr.DataArray(pixels, dims=("sample", "band", "y", "x"), coords=coords, attrs={"units": "display"})


def test_conditions_are_read_as_yaml():
    asked = parse_conditions(["morphology=merger", "votes.spiral=0.9", "votes.bar=1e-1", "redshift=0.05", "flag=no"])
    assert asked == {"morphology": "merger", "votes": {"spiral": 0.9, "bar": 0.1}, "redshift": 0.05, "flag": "no"}
    assert parse_conditions(["votes={spiral: 1}"]) == {"votes": {"spiral": 1}}


@pytest.mark.parametrize("text", ["morphology", "=merger", "votes.=1", "votes=*x", "votes=[1", "votes=!t 1"])
def test_conditions_that_are_none(text):
    with pytest.raises(GaldiffError, match="--condition"):
        parse_conditions([text])


def test_a_condition_cannot_be_both_whole_and_in_parts():
    with pytest.raises(GaldiffError, match="both whole and by answers"):
        parse_conditions(["votes=1", "votes.spiral=0.9"])


def test_suffixes(tmp_path):
    with pytest.raises(GaldiffError, match=r"\.zarr, \.fits, \.npy, \.png"):
        suffix_of(tmp_path / "x.jpeg")


@pytest.mark.parametrize("suffix", [".zarr", ".fits", ".npy", ".png"])
def test_samples_are_written_and_read_back(images, suffix, tmp_path):
    path = tmp_path / f"samples{suffix}"
    save_samples(images, path)
    if suffix == ".zarr":
        found = xr.open_zarr(path, consolidated=False)["image"].load()
        xr.testing.assert_equal(found, images)
        assert found.attrs == images.attrs
        with pytest.raises(ResourceError, match="is there already"):
            save_samples(images, path)
    elif suffix == ".fits":
        found = [fits.getdata(path / "images" / f"sample-{k}.fits") for k in range(5)]
        np.testing.assert_array_equal(np.stack(found), images)
    elif suffix == ".npy":
        np.testing.assert_array_equal(np.load(path), images)
    else:
        with Image.open(path) as picture:
            assert picture.size[0] >= 3 * 16
            assert picture.size[1] >= 2 * 16
    with pytest.raises(ResourceError, match="no such folder"):
        save_samples(images, tmp_path / "nowhere" / path.name)

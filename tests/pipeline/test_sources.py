"""Images of any kind of source are the same images."""

import json
import zipfile

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from astropy.io import fits
from PIL import Image

from galdiff import ImageFolderDataset, write_fits
from galdiff.errors import DataError, GaldiffError, StoreError
from galdiff.latents import CutoutStore
from galdiff.pipeline.cutouts import write_cutouts
from galdiff.pipeline.sources import open_images

N, SIZE = 7, 16
BYTES = np.random.default_rng(0).integers(0, 256, (N, 3, SIZE, SIZE), dtype=np.uint8)
SHOWN = BYTES.astype(np.float32) / 255
FLUX = np.random.default_rng(1).normal(5, 20, (N, 2, SIZE, SIZE)).astype(np.float32)


def write_pictures(folder):
    folder.mkdir()
    for k, image in enumerate(BYTES):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{k}.png")
    return folder


def pictures(tmp):
    return write_pictures(tmp / "pictures"), SHOWN, "display"


def channels_last(tmp):
    np.savez(tmp / "x.npz", BYTES.transpose(0, 2, 3, 1))
    return tmp / "x.npz", SHOWN, "display"


def mapped(tmp):
    np.save(tmp / "x.npy", FLUX)
    return tmp / "x.npy", FLUX, None


def fortran(tmp):
    np.save(tmp / "x.npy", np.asfortranarray(FLUX))
    return str(tmp / "x.npy"), FLUX, None


def folder_of_arrays(tmp):
    (tmp / "arrays").mkdir()
    for k, image in enumerate(FLUX):
        np.save(tmp / "arrays" / f"{k}.npy", image)
    return tmp / "arrays", FLUX, None


def folder_of_bytes(tmp):
    (tmp / "arrays").mkdir()
    for k, image in enumerate(BYTES):
        np.save(tmp / "arrays" / f"{k}.npy", image)
    return tmp / "arrays", SHOWN, "display"


def cube(tmp):
    fits.writeto(tmp / "x.fits", FLUX[:, 0])
    return tmp / "x.fits", FLUX[:, :1], None


def stamps(tmp):
    array = xr.DataArray(FLUX, dims=("sample", "band", "y", "x"), coords={"band": ["g", "r"]}, attrs={"units": "nmgy"})
    return write_fits(array, tmp / "stamps"), FLUX, "nmgy"


def group(tmp):
    array = xr.DataArray(FLUX, dims=("sample", "band", "y", "x"), attrs={"units": "nmgy"})
    array = array.assign_coords(band=np.array(["g", "r"], dtype=object))
    array.to_dataset(name="image").to_zarr(tmp / "x.zarr", zarr_format=3, consolidated=False)
    return tmp / "x.zarr", FLUX, "nmgy"


def samples(tmp):
    array = xr.DataArray(FLUX, dims=("sample", "band", "y", "x"), attrs={"units": "nmgy"})
    data = array.to_dataset(name="image").assign(row=("sample", np.arange(len(FLUX)) % 3))
    for name in ("evaluation", "grid"):
        data.to_zarr(tmp / "samples.zarr", group=name, zarr_format=3, consolidated=False)
    return tmp / "samples.zarr", FLUX, "nmgy"


def one_array(tmp):
    zarr.create_array(tmp / "x.zarr", name="deep/pixels", data=FLUX, zarr_format=3, chunks=(3, 2, SIZE, SIZE))
    return f"{tmp / 'x.zarr'}:deep/pixels", FLUX, None


def format_2(tmp):
    zarr.save_array(tmp / "x.zarr", BYTES, zarr_format=2)
    return tmp / "x.zarr", SHOWN, "display"


def in_memory(tmp):
    return torch.from_numpy(FLUX), FLUX, None


def dataset(tmp):
    return ImageFolderDataset(write_pictures(tmp / "pictures"), size=None), SHOWN, "display"


ALL = [
    pictures,
    channels_last,
    mapped,
    fortran,
    folder_of_arrays,
    folder_of_bytes,
    cube,
    stamps,
    group,
    samples,
    one_array,
    format_2,
]


@pytest.mark.parametrize("make", [*ALL, in_memory, dataset])
def test_rows_are_read_in_the_order_asked_for(make, tmp_path):
    where, expected, unit = make(tmp_path)
    source = open_images(where)
    assert (source.n, source.shape, source.unit) == (N, expected.shape[1:], unit)
    rows = np.array([5, 0, 3])
    found = source.read(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[rows], rtol=1e-6)


def test_bands_are_those_of_the_files(tmp_path):
    assert open_images(group(tmp_path)[0]).bands == ("g", "r")
    assert open_images(stamps(tmp_path)[0]).bands == ("g", "r")
    assert open_images(FLUX).bands is None


@pytest.fixture
def run(tmp_path):
    """Write a run folder with cutouts of three splits and samples."""
    folder = tmp_path / "run"
    (folder / "stages").mkdir(parents=True)
    data = ImageFolderDataset(write_pictures(tmp_path / "p"), size=None, folders="ignore")
    split = {"train": 0.4, "validation": 0.3, "test": 0.3}
    write_cutouts(data, folder / "cutouts.zarr", split=split, workers=1, attrs={"unit": "display"})
    samples(folder)
    return folder


def test_a_run_has_held_out_images_and_samples(run):
    store = CutoutStore.open(run / "cutouts.zarr")
    counts = {name: len(store.rows(name)) for name in ("train", "validation", "test")}
    assert open_images(run).n == counts["validation"] + counts["test"]
    assert open_images(run, generated=True).shape == (2, SIZE, SIZE)
    for name, count in counts.items():
        if count:
            source = open_images(f"{run / 'cutouts.zarr'}:{name}")
            expected = store.images(store.rows(name))
            np.testing.assert_array_equal(source.read(np.arange(count)), expected.astype(np.float32))
    assert open_images(run / "cutouts.zarr").n == N
    with pytest.raises(StoreError, match="there is no split 'tset'"):
        open_images(f"{run / 'cutouts.zarr'}:tset")


class Loud:
    def __reduce__(self):
        return (print, ("ran",))


def pickled(tmp):
    np.save(tmp / "x.npy", np.array([Loud(), 1], dtype=object), allow_pickle=True)
    return tmp / "x.npy", "not numbers"


def pickled_member(tmp):
    np.savez(tmp / "x.npz", np.array([Loud(), 1], dtype=object))
    return tmp / "x.npz", "not numbers"


def two_arrays(tmp):
    np.savez(tmp / "x.npz", images=BYTES, labels=np.zeros(N))
    return tmp / "x.npz", "2 arrays: images, labels"


def cut_short(tmp):
    np.save(tmp / "x.npy", FLUX)
    (tmp / "x.npy").write_bytes((tmp / "x.npy").read_bytes()[:-100])
    return tmp / "x.npy", "its header says"


def no_archive(tmp):
    (tmp / "x.npz").write_bytes(b"not a zip file")
    return tmp / "x.npz", "cannot be read"


def lying_member(tmp):
    np.save(tmp / "x.npy", FLUX)
    with zipfile.ZipFile(tmp / "x.npz", "w") as archive:
        archive.writestr("arr_0.npy", (tmp / "x.npy").read_bytes()[:-100])
    return tmp / "x.npz", "its header says"


def pickle_filter(tmp):
    zarr.save_array(tmp / "x.zarr", FLUX, zarr_format=2)
    meta = json.loads((tmp / "x.zarr" / ".zarray").read_text())
    (tmp / "x.zarr" / ".zarray").write_text(json.dumps({**meta, "filters": [{"id": "pickle", "protocol": 5}]}))
    return tmp / "x.zarr", "codecs of '' are not allowed"


def unknown_codec(tmp):
    zarr.create_array(tmp / "x.zarr", name="image", data=FLUX, zarr_format=3)
    path = tmp / "x.zarr" / "image" / "zarr.json"
    meta = json.loads(path.read_text())
    meta["codecs"].append({"name": "numcodecs.pickle"})
    path.write_text(json.dumps(meta))
    return tmp / "x.zarr", "codec 'numcodecs.pickle' is not allowed"


def mixed(tmp):
    np.save(write_pictures(tmp / "both") / "x.npy", FLUX)
    return tmp / "both", "holds images and arrays"


def folder_of_stacks(tmp):
    (tmp / "arrays").mkdir()
    np.save(tmp / "arrays" / "0.npy", FLUX)
    return tmp / "arrays", "not that of one image"


def no_images(tmp):
    (tmp / "nothing").mkdir()
    return tmp / "nothing", "holds no images"


def absent(tmp):
    return tmp / "absent", "there are no images here"


def absent_store(tmp):
    return f"{tmp / 'absent.zarr'}:test", "there is no such folder"


def no_such_array(tmp):
    return f"{group(tmp)[0]}:pixels", "there is no array 'pixels'"


def odd_axes(tmp):
    return np.zeros((3, 40, 30, 50)), "which axis"


def flat(tmp):
    return np.zeros((3, 20)), "not (sample, band, y, x)"


def text(tmp):
    return np.array([["a"]]), "not numbers"


BAD = [pickled, pickled_member, two_arrays, cut_short, no_archive, lying_member, pickle_filter, unknown_codec]


@pytest.mark.parametrize(
    "make", [*BAD, mixed, folder_of_stacks, no_images, absent, absent_store, no_such_array, odd_axes, flat, text]
)
def test_what_cannot_be_read_is_refused(make, tmp_path, capsys):
    where, words = make(tmp_path)
    with pytest.raises(GaldiffError) as error:
        open_images(where)
    assert words in str(error.value)
    assert "ran" not in capsys.readouterr().out


def test_images_of_other_sizes_are_named(tmp_path):
    folder = write_pictures(tmp_path / "p")
    Image.new("RGB", (9, 9)).save(folder / "9.png")
    with pytest.raises(DataError, match=r"9\.png: the image is \(3, 9, 9\)"):
        open_images(folder).read(np.arange(N + 1))
    assert open_images(folder, size=8).read(np.arange(N + 1)).shape == (N + 1, 3, 8, 8)


@pytest.mark.parametrize(("name", "bands"), [("gz1/images", 3), ("fits/jwst", 1), ("decals/images", 3)])
def test_real_folders(real_data, name, bands):
    source = open_images(real_data(name), size=32)
    assert source.shape == (bands, 32, 32)
    assert np.isfinite(source.read(np.arange(min(3, source.n)))).all()


@pytest.mark.parametrize("make", [pictures, mapped, group])
def test_resizing_keeps_the_mean(make, tmp_path):
    where, expected, _ = make(tmp_path)
    found = open_images(where, size=8).read(np.arange(N))
    assert found.shape == (N, expected.shape[1], 8, 8)
    np.testing.assert_allclose(found.mean(axis=(2, 3)), expected.mean(axis=(2, 3)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [pictures, mapped])
def test_a_crop_is_the_central_square(make, tmp_path):
    where, expected, _ = make(tmp_path)
    found = open_images(where, size=8, crop=0.5).read(np.arange(N))
    np.testing.assert_allclose(found, expected[..., 4:12, 4:12], atol=1e-6)
    with pytest.raises(DataError, match="crop"):
        open_images(where, crop=0.5)

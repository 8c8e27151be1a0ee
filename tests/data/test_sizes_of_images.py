"""Images of another size among those of a survey are bad ones: resizing would hide that their scale is another."""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from galdiff.data import DeepLenseDataset, FITSDataset, GZ2Dataset, HDF5Dataset, IDXDataset, ImageFolderDataset
from galdiff.errors import DataError
from galdiff.latents import CutoutStore
from galdiff.pipeline.cutouts import write_cutouts
from galdiff.simulate.gz2_files import write_gz2

RNG = np.random.default_rng(0)
REMEDY = "Bring all to one size and pixel scale, or leave it out"
SPLIT = {"train": 1.0, "validation": 0.0, "test": 0.0}


def lenses(root, *shapes):
    (root / "no").mkdir(parents=True)
    for i, shape in enumerate(shapes):
        np.save(root / "no" / f"{i:02}.npy", RNG.random(shape))
    return root


def pictures(root, *sides, suffix="png"):
    root.mkdir(parents=True, exist_ok=True)
    for i, (width, height) in enumerate(sides):
        Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / f"{i:02}.{suffix}")
    return root


@pytest.mark.parametrize("odd", [(32, 32), (64, 50), (128, 128), (64, 9)])
def test_an_array_of_another_shape_is_bad(tmp_path, odd):
    data = DeepLenseDataset(lenses(tmp_path, odd, *[(64, 64)] * 5), size=32)
    assert data.read(1).shape == (1, 32, 32)
    with pytest.raises(DataError, match=f"image is {odd[1]} x {odd[0]} pixels, most are 64 x 64") as caught:
        data.read(0)
    assert caught.value.where == "no/00"
    assert len(data.check()) == 1


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ((1, 1), "not enough for 16"),
        ((9, 9), "not enough for 16"),
        ((29, 29), "not enough for 16"),
        ((421, 423), "not square"),
        ((423, 300), "not square"),
    ],
)
def test_a_picture_that_is_too_small_or_cut_is_bad_and_one_pixel_is_not(tmp_path, odd, why):
    data = ImageFolderDataset(pictures(tmp_path, *[(423, 423), (424, 424)] * 2, odd, suffix="jpg"), crop=0.5, size=16)
    assert all(data.read(i).shape == (3, 16, 16) for i in range(4))
    with pytest.raises(DataError, match=f"the image is {odd[0]} x {odd[1]} pixels, {why} as most are"):
        data.read(4)


def test_cutouts_of_galaxy_zoo_have_one_size(tmp_path):
    write_gz2(tmp_path, 6, seed=1, size=32)
    path = sorted((tmp_path / "images").iterdir())[2]
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(path)
    data = GZ2Dataset(tmp_path, size=16)
    bad = next(i for i in range(6) if data.source(i) == path)
    assert data.read((bad + 1) % 6).shape == (3, 16, 16)
    with pytest.raises(DataError, match="the image is 24 x 24 pixels, most are 32 x 32"):
        data.read(bad)


def test_one_pixel_less_than_asked_for_is_enough(tmp_path):
    data = ImageFolderDataset(pictures(tmp_path, *[(24, 24)] * 3, (23, 23)), size=24)
    assert data.read(3).shape == (3, 24, 24)


def test_a_stamp_of_another_size_is_bad(tmp_path):
    for i, side in enumerate([20, 20, 9, 20]):
        fits.writeto(tmp_path / f"{i}.fits", RNG.normal(size=(side, side)))
    data = FITSDataset(tmp_path, size=16)
    assert data.mask(0).all()
    with pytest.raises(DataError, match="the image is 9 x 9 pixels, not enough for 16 as most are"):
        data.read_masked(2)
    assert data.check() == ["2: the image is 9 x 9 pixels, not enough for 16 as most are. " + REMEDY]


def test_a_mosaic_has_one_size(tmp_path):
    fits.writeto(tmp_path / "m.fits", RNG.normal(size=(60, 60)).astype(np.float32))
    pd.DataFrame({"id": [1, 2], "x": [20, 30], "y": [30, 40]}).to_csv(tmp_path / "t.csv", index=False)
    data = FITSDataset(tmp_path, table="t.csv", mosaic="m.fits", x="x", y="y", side=20, size=16)
    assert data.read(1).shape == (1, 16, 16)


def test_it_is_skipped_and_listed_where_it_may_be(tmp_path):
    data = DeepLenseDataset(lenses(tmp_path / "lenses", *[(64, 64)] * 5, (64, 50)), size=32, on_bad="skip")
    store = write_cutouts(data, tmp_path / "cutouts.zarr", split=SPLIT, on_bad="skip")
    assert store.complete
    assert CutoutStore.open(tmp_path / "cutouts.zarr").split.tolist() == ["train"] * 5 + ["skipped"]
    assert "most are 64 x 64" in (tmp_path / "cutouts.skipped.jsonl").read_text()
    with pytest.raises(DataError, match="the image is 50 x 64 pixels"):
        write_cutouts(data, tmp_path / "again.zarr", split=SPLIT)


class TestMixedSizes:
    """Folders of images of many sizes are what some people have."""

    SIDES = ((30, 40), (50, 20), (20, 20), (64, 48), (36, 36))

    def test_none_is_usual(self, tmp_path):
        data = ImageFolderDataset(pictures(tmp_path, *self.SIDES), size=16)
        assert {data.read(i).shape for i in range(5)} == {(3, 16, 16)}

    def test_but_pixels_are_not_made_up(self, tmp_path):
        data = ImageFolderDataset(pictures(tmp_path, *self.SIDES, (9, 9)), size=16)
        with pytest.raises(DataError, match="the image is 9 x 9 pixels, not enough for 16 as most are"):
            data.read(5)

    def test_or_only_some_are(self, tmp_path):
        data = ImageFolderDataset(pictures(tmp_path, *[(40, 30)] * 5, (50, 50), (20, 20)), size=16)
        assert {data.read(i).shape for i in range(7)} == {(3, 16, 16)}

    def test_or_another_one(self, tmp_path):
        """A point-spread function lies beside its image."""
        for i, side in enumerate([209, 209, 41, 209, 209]):
            fits.writeto(tmp_path / f"{i}.fits", RNG.normal(size=(side, side)))
        assert FITSDataset(tmp_path, size=32).read(2).shape == (1, 32, 32)

    def test_unless_they_are_of_most(self, tmp_path):
        data = ImageFolderDataset(pictures(tmp_path, *self.SIDES, (9, 9)), size=96)
        assert data.read(5).shape == data.read(0).shape == (3, 96, 96)

    def test_a_crop_by_radius_knows_the_scale(self, tmp_path):
        pictures(tmp_path, *[(40, 40)] * 5, (20, 17))
        table = pd.DataFrame({"id": [f"{i:02}" for i in range(6)], "r": 4.0})
        table.to_csv(tmp_path / "t.csv", index=False)
        data = ImageFolderDataset(tmp_path, table="t.csv", crop={"radius": "r", "times": 2.0}, size=16)
        assert data.read(5).shape == (3, 16, 16)

    def test_nothing_is_hidden_where_nothing_is_resized(self, tmp_path):
        data = ImageFolderDataset(pictures(tmp_path, *[(40, 40)] * 5, (20, 20)), size=None)
        assert data.read(5).shape == (3, 20, 20)

    def test_images_that_cannot_be_read_have_no_size(self, tmp_path):
        pictures(tmp_path, *[(20, 20)] * 3)
        for name in "abcd":
            (tmp_path / f"{name}.png").write_bytes(b"nothing")
        data = ImageFolderDataset(tmp_path, size=16)
        assert data.read(0).shape == (3, 16, 16)


def test_the_usual_size_is_of_images_from_everywhere(tmp_path):
    """The first images may be those that are wrong."""
    data = DeepLenseDataset(lenses(tmp_path, *[(16, 16)] * 9, *[(32, 32)] * 60), size=16)
    assert data.read(40).shape == (1, 16, 16)
    with pytest.raises(DataError, match="most are 32 x 32"):
        data.read(0)


def test_arrays_of_many_images_are_not_read_for_their_size(tmp_path, monkeypatch):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = RNG.integers(0, 256, (30, 20, 24, 3), dtype=np.uint8)
    header = np.array([2051, 30, 20, 24], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + bytes(30 * 20 * 24))
    for data in (HDF5Dataset(tmp_path, label=None, layout="bands_last", size=16), IDXDataset(tmp_path, size=16)):
        loaded = []
        load = data.load
        monkeypatch.setattr(data, "load", lambda i, load=load, loaded=loaded: loaded.append(i) or load(i))
        assert data.read(7).shape[1:] == (16, 16)
        data._probes  # noqa: B018 - which looks at some
        assert loaded == [7]
        assert set(data._probes) == {(20, 24)}

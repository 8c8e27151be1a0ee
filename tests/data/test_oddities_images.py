"""Oddities of real files, by their numbers in the project's list of them: images, suffixes and labels."""

import gzip
import hashlib
import struct

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from galdiff.data import GZ2Dataset, IDXDataset, ImageFolderDataset
from galdiff.data.images import read_image
from galdiff.errors import DataError


def picture(path, side=16, level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(path)


class TestOddity04Suffixes:
    def test_ids_with_a_suffix_name_files_with_another(self, tmp_path):
        for i, name in enumerate(["100008.jpg", "100023.jpeg", "100053.png"]):
            picture(tmp_path / "images" / name, level=50 * i)
        (tmp_path / "t.csv").write_text("GalaxyID,label\n100053.jpg,2\n100008.jpg,0\n100023,1\n")
        data = ImageFolderDataset(tmp_path, table="t.csv", id="GalaxyID", label="label", images="images", size=None)
        assert [round(float(data.read(i).mean()) * 255) for i in range(3)] == [100, 0, 50]
        assert data.ids.tolist() == ["100053.jpg", "100008.jpg", "100023"]

    def test_iau_names_keep_their_dots_and_signs(self, tmp_path):
        picture(tmp_path / "images" / "J132200.16+005202.0.png")
        (tmp_path / "t.csv").write_text("iau,file_loc\nJ132200.16+005202.0,data/dr5/J132/J132200.16+005202.0.jpg\n")
        for more in ({}, {"file": "file_loc"}):
            data = ImageFolderDataset(tmp_path, table="t.csv", id="iau", images="images", **more)
            assert data.ids.tolist() == ["J132200.16+005202.0"]

    def test_decals(self, real_data):
        """The table says .jpg in a folder of another machine; the files are .png."""
        root, table = real_data("decals"), "example_ring_catalog_basic_subset.csv"
        data = ImageFolderDataset(
            root,
            table=table,
            id="id_str",
            file="file_loc",
            label="ring",
            name="ring",
            images="images",
            scalars=["has-spiral-arms_no_fraction"],
        )
        assert len(data) == 82
        assert data.skipped == []
        rows = pd.read_csv(root / table)
        assert data.conditions.values["ring"].tolist() == rows["ring"].tolist()
        np.testing.assert_allclose(
            data.conditions.values["has-spiral-arms_no_fraction"], rows["has-spiral-arms_no_fraction"], rtol=1e-6
        )
        assert data.load(0).shape == (3, 424, 424)


class TestOddity05Sizes:
    def test_423_pixels_beside_424_become_one_size_with_the_galaxy_in_the_middle(self, tmp_path):
        for side in (423, 424):
            picture(tmp_path / f"{side}.png", side)
        data = ImageFolderDataset(tmp_path, crop=0.5, size=64)
        assert [data.load(i).shape[-1] for i in range(2)] == [423, 424]
        assert [data.read(i).shape for i in range(2)] == [(3, 64, 64)] * 2

    def test_gz1_and_gz2_are_such(self, real_data):
        gz1 = ImageFolderDataset(real_data("gz1") / "images", limit=3)
        gz2 = ImageFolderDataset(real_data("gz2") / "images_gz2", limit=3)
        assert {gz1.load(i).shape[-1] for i in range(3)} == {423}
        assert {gz2.load(i).shape[-1] for i in range(3)} == {424}
        assert gz1.read(0).shape == gz2.read(0).shape


class TestOddity01ImagesWithoutLabels:
    def test_61_of_130_images_have_no_row(self, real_data):
        data = ImageFolderDataset(
            real_data("gz2"),
            table="labels_8class_for_images.csv",
            id="galaxyID",
            label="label1",
            images="images_gz2/images",
        )
        assert len(data) == 69
        assert data.skipped == [("61 images", "no row in the table")]

    def test_200_images_of_the_test_set_are_a_folder_like_any(self, real_data):
        data = ImageFolderDataset(real_data("galaxyzoo"), images="images_test_rev1", folders="ignore")
        assert len(data) == 200
        assert data.schema.fields == ()


class TestOddity10LabelsWithoutImages:
    def test_it_is_one_sentence(self, tmp_path):
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"\0\1\2"
        (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
        with pytest.raises(DataError, match=r"labels without images: train-labels-idx1-ubyte\.gz"):
            IDXDataset(tmp_path)
        with pytest.raises(DataError, match=r"images are missing; their labels are there, train-labels-idx1-ubyte\.gz"):
            IDXDataset(tmp_path, images="train-images-idx3-ubyte.gz")

    def test_mnist_is_such(self, real_data):
        with pytest.raises(DataError, match="their labels are there"):
            IDXDataset(real_data("mnist"), images="train-images-idx3-ubyte.gz")
        with pytest.raises(DataError, match="10000 images and 60000 labels"):
            IDXDataset(real_data("mnist"), labels="train-labels-idx1-ubyte.gz")


class TestOddity11LabelMistakes:
    def test_labels_are_read_as_published(self, real_data):
        """The C5 labels are an argmax over 37 columns of different questions: nothing can see that from the file."""
        root, table = real_data("galaxyzoo"), "class_labels_C5_subset.csv"
        data = ImageFolderDataset(root, table=table, id="GalaxyID", label="label", images="images_training_rev1")
        published = pd.read_csv(root / table)["label"]
        field = data.schema.fields[0]
        assert [int(field.classes[v]) for v in data.conditions.values["morphology"]] == published.tolist()


class TestOddity12Truncation:
    """No corrupt JPEG was found in the wild, so this one is made."""

    @pytest.fixture
    def cut(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.jpg")
        whole = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
        return tmp_path / "a.jpg"

    def test_half_an_image_is_named_and_never_grey(self, cut):
        with pytest.raises(DataError, match="cannot be read as an image") as caught:
            read_image(cut)
        assert caught.value.where == str(cut)

    def test_the_dataset_says_so_before_a_run(self, cut):
        data = ImageFolderDataset(cut.parent)
        assert any("cannot be read" in problem for problem in data.check())

    def test_every_real_image_is_whole(self, real_data):
        """A sample of them; decoding all takes a minute."""
        root = real_data("galaxyzoo")
        data = ImageFolderDataset(root, images="images_training_rev1", folders="ignore")
        assert len(data) == 2100
        digests = {hashlib.sha256(data.load(i).tobytes()).digest() for i in range(0, len(data), 100)}
        assert len(digests) == 21


def test_oddity_03_ids_of_another_system_are_no_silent_join(real_data):
    """Kaggle's GalaxyID and GZ2's asset_id look alike; object ids of Table 5 name no image by themselves."""
    with pytest.raises(DataError, match="no row"):
        GZ2Dataset(real_data("gz2"), table="table5_head200.csv", images="images_gz2/images")

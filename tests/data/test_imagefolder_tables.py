"""Folders of images with tables of every kind: files by path, several conditions, CelebA and FFHQ as they come."""

from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from galdiff.config.data import HDF5Spec, ImageFolderSpec, ask_problems
from galdiff.data import ImageFolderDataset
from galdiff.data.celeba import read_attributes
from galdiff.errors import DataError


def picture(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


def levels(data):
    return [round(float(data.read(i).mean()) * 255) for i in range(len(data))]


FRAME = pd.DataFrame(
    {
        "name": ["a", "b", "c", "d"],
        "path": ["train/1.png", "test/1.png", "train/2.jpeg", "old/disk/2.jpg"],
        "kind": ["spiral", "smooth", None, "spiral"],
        "ring": [1, -1, -1, 1],
        "redshift": [0.1, np.nan, 0.3, np.inf],
    }
)


@pytest.fixture
def folder(tmp_path):
    """Names repeat between folders, and suffixes are not what the table says."""
    for path, level in {"train/1.png": 10, "test/1.png": 20, "train/2.png": 30}.items():
        picture(tmp_path / "images" / path, level)
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


def by_file(folder, table="t.csv", **more):
    return ImageFolderDataset(folder, table=table, id="name", file="path", images="images", **{"size": None, **more})


class TestFiles:
    def test_paths_tell_apart_what_names_do_not(self, folder):
        data = by_file(folder)
        assert data.ids.tolist() == ["a", "b", "c", "d"]
        assert levels(data) == [10, 20, 30, 30]  # by path, by path, by another suffix, by its name alone

    def test_names_alone_that_repeat_are_an_error(self, folder):
        FRAME.assign(path=["1.png", "test/1.png", "2.png", "x"]).to_csv(folder / "t.csv", index=False)
        with pytest.raises(DataError, match="two files are called '1'") as caught:
            by_file(folder)
        assert "file" in caught.value.remedy

    def test_paths_never_lead_outside(self, folder):
        picture(folder / "secret.png", 99)
        FRAME.assign(path=["../secret.png", "test/1.png", "train/2.png", "train/1.png"]).to_csv(folder / "t.csv")
        with pytest.raises(DataError, match=r"1 rows of t\.csv have no image, the first is 'a'"):
            by_file(folder)

    def test_without_ids_the_paths_are_the_ids(self, folder):
        data = ImageFolderDataset(folder, table="t.csv", file="path", images="images", size=None)
        assert data.ids.tolist() == FRAME["path"].tolist()

    @pytest.mark.parametrize("kind", ["parquet", "fits"])
    def test_tables_of_other_formats(self, folder, kind):
        if kind == "parquet":
            FRAME.to_parquet(folder / "t.parquet")
        else:
            Table.from_pandas(FRAME.fillna({"kind": ""})).write(folder / "t.fits")
        data = by_file(folder, table=f"t.{kind}", scalars=["redshift"])
        assert levels(data) == [10, 20, 30, 30]
        assert data.conditions.masks["redshift"].tolist() == [True, False, True, False]


class TestConditions:
    def test_labels_attributes_and_numbers_together(self, folder):
        data = by_file(folder, label="kind", attributes=["ring"], scalars={"redshift": "z"})
        kind, ring, redshift = data.schema.fields
        assert (kind.classes, ring.classes) == (("smooth", "spiral"), ("-1", "1"))
        assert data.conditions.values["ring"].tolist() == [1, 0, 0, 1]
        assert data.conditions.masks["morphology"].tolist() == [True, True, False, True]
        assert (redshift.unit, redshift.mean) == ("z", pytest.approx(0.2))
        assert redshift.std == pytest.approx(0.1)
        assert data.conditions.masks["redshift"].tolist() == [True, False, True, False]
        assert torch.isfinite(data.conditions.values["redshift"]).all()
        assert set(data[0]) >= {"morphology", "ring_mask", "redshift"}

    def test_numbers_that_do_not_vary_have_a_scale_of_one(self, folder):
        FRAME.assign(redshift=0.5).to_csv(folder / "t.csv", index=False)
        assert by_file(folder, scalars=["redshift"]).schema.fields[0].std == 1.0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"scalars": ["kind"]}, "'kind' does not hold numbers"),
            ({"scalars": ["redshfit"]}, "no column 'redshfit'"),
            ({"attributes": ["bar"]}, "no column 'bar'"),
            ({"label": "king"}, "no column 'king'"),
            ({"file": "paths"}, "no column 'paths'"),
            ({"folders": "no"}, "folders is 'no'"),
            ({"table": None, "label": "kind"}, "there is no table for id, file, label"),
            ({"label": "ring", "name": "ring", "attributes": ["ring"]}, "same name"),
        ],
    )
    def test_mistakes_are_said(self, folder, arguments, message):
        with pytest.raises(Exception, match=message) as caught:
            ImageFolderDataset(
                folder, **{"table": "t.csv", "id": "name", "file": "path", "images": "images", **arguments}
            )
        assert type(caught.value).__module__ == "galdiff.errors"

    def test_a_column_without_one_number(self, folder):
        FRAME.assign(redshift=np.nan).to_csv(folder / "t.csv", index=False)
        with pytest.raises(DataError, match="not one finite number"):
            by_file(folder, scalars=["redshift"])


class TestCelebA:
    TABLE = "3\nSmiling Wearing_Hat Young\n000001.jpg  1 -1  1\n000002.jpg -1 -1  1\n000003.jpg  1  1 -1\n"

    @pytest.fixture
    def celeba(self, tmp_path):
        for i in (1, 2, 3):
            picture(tmp_path / "img_align_celeba" / f"00000{i}.jpg", 50 * i)
        (tmp_path / "list_attr_celeba.txt").write_text(self.TABLE)
        return tmp_path

    def read(self, folder, **more):
        return ImageFolderDataset(folder, table="list_attr_celeba.txt", images="img_align_celeba", size=None, **more)

    def test_every_attribute_is_a_condition(self, celeba):
        data = self.read(celeba)
        assert data.ids.tolist() == ["000001.jpg", "000002.jpg", "000003.jpg"]
        assert [f.name for f in data.schema.fields] == ["Smiling", "Wearing_Hat", "Young"]
        assert all(f.classes == ("no", "yes") for f in data.schema.fields)
        assert data.conditions.values["Smiling"].tolist() == [1, 0, 1]
        assert data.conditions.values["Young"].tolist() == [1, 1, 0]
        assert data.schema.ask(1, Smiling="yes", Young=False).values["Smiling"].item() == 1

    def test_some_of_them(self, celeba):
        data = self.read(celeba, attributes=["Young", "Wearing_Hat"], where="Young == 1")
        assert [f.name for f in data.schema.fields] == ["Young", "Wearing_Hat"]
        assert data.schema.fields[0].classes == ("no", "yes")  # though every row that is left says yes
        assert data.conditions.values["Young"].tolist() == [1, 1]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("3\n", "4\n", "says 4 rows, the file has 3"),
            ("3\n", "", "first line is not the number"),
            ("000002.jpg -1 -1  1", "000002.jpg -1 -1", "line 4 is not a file and 3"),
            ("000003.jpg  1", "000003.jpg  2", "line 5"),
            ("Young", "Smiling", "twice"),
            ("3\n", "9" * 5000 + "\n", "says 9999"),
        ],
    )
    def test_other_tables_are_refused(self, celeba, old, new, message):
        path = celeba / "list_attr_celeba.txt"
        path.write_text(self.TABLE.replace(old, new, 1))
        with pytest.raises(DataError, match=message):
            read_attributes(path)

    @given(st.text(max_size=200), st.booleans())
    def test_any_text_is_a_table_or_a_named_error(self, tmp_path, text, header):
        path = tmp_path / "fuzzed.txt"
        path.write_bytes((("1\n" if header else "") + text).encode("utf-8", "replace"))
        with suppress(DataError):
            assert len(read_attributes(path)) > 0


class TestFolders:
    def test_ffhq(self, tmp_path):
        for number in (0, 999, 1000, 69_999):
            picture(tmp_path / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png", number % 200)
        data = ImageFolderDataset(tmp_path, folders="ignore", size=None)
        assert data.ids.tolist() == ["00000", "00999", "01000", "69999"]
        assert data.schema.fields == ()

    def test_ids_are_paths_where_names_repeat(self, tmp_path):
        for i, path in enumerate(["train/spiral/1.png", "test/spiral/1.png", "train/smooth/2.png"]):
            picture(tmp_path / path, 10 * i)
        data = ImageFolderDataset(tmp_path, size=None)
        assert data.ids.tolist() == ["test/spiral/1.png", "train/smooth/2.png", "train/spiral/1.png"]
        assert levels(data) == [10, 20, 0]
        assert data.conditions.values["morphology"].tolist() == [1, 0, 1]

    def test_files_that_systems_hide_are_no_images(self, tmp_path):
        picture(tmp_path / "a.png", 1)
        (tmp_path / "._a.png").write_bytes(b"resource fork")
        assert ImageFolderDataset(tmp_path, size=None).ids.tolist() == ["a"]


class TestDepth:
    def test_a_cache_keeps_16_bits_and_counts_keep_their_unit(self, tmp_path):
        values = np.random.default_rng(0).integers(0, 65_536, (8, 8), dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / "a.png")
        shown = ImageFolderDataset(tmp_path, size=None, grey=True)
        assert (shown.unit, shown.storage_dtype) == ("display", "float32")
        assert shown.read(0).max() <= 1
        counts = ImageFolderDataset(tmp_path, size=None, grey=True, unit="adu", stretch="asinh")
        assert np.array_equal(counts.read(0)[0], values)
        assert shown.fingerprint() != counts.fingerprint()


class TestAsks:
    def problems(self, data, **asks):
        return [message for _, message in ask_problems({"a": asks}, data)]

    def test_every_condition_may_be_asked_for(self):
        data = ImageFolderSpec(root=".", table="t.csv", attributes=("ring",), scalars={"redshift": "z"})
        assert self.problems(data, ring="yes", redshift=0.1, morphology="x") == []
        assert "ring is" not in self.problems(data, wring="yes")[0].split(",")[0]
        assert self.problems(ImageFolderSpec(root=".", table="list_attr_celeba.txt"), Smiling="yes") == []

    def test_names_of_galaxy10_need_no_list(self):
        data = HDF5Spec(root=".", classes="galaxy10_decals", mirror=(("Merging", "Disturbed"),))
        assert self.problems(data, morphology="Merging") == []

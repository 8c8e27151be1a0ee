"""Loaders: what a folder and a table say, joined row by row, and what is wrong with them said in one sentence."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from galdiff.data import DeepLenseDataset, GZ2Dataset, ImageFolderDataset, split_rows
from galdiff.errors import DataError
from galdiff.progress import quiet
from galdiff.schema.trees import GZ2_TREE
from galdiff.simulate.gz2_files import write_gz2


def picture(path, value=100, size=12, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 50, (size, size, 3))
    Image.fromarray((value + noise).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gz2")
    with quiet():
        write_gz2(folder, 30, seed=7, size=32)
    return folder


@pytest.fixture
def gz2(simulated, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(simulated, tmp_path / "gz2")


def hart16(folder):
    return pd.read_csv(folder / "gz2_hart16.csv")


def rewrite(folder, table):
    table.to_csv(folder / "gz2_hart16.csv", index=False)


class TestGZ2:
    def test_every_row_has_its_own_image_and_votes(self, simulated):
        data = GZ2Dataset(simulated, size=None)
        table = hart16(simulated)
        asset = pd.read_csv(simulated / "gz2_filename_mapping.csv").set_index("objid")["asset_id"]
        assert data.ids.dtype == np.int64
        assert data.ids.tolist() == table["dr7objid"].tolist()
        assert data.skipped == []
        for i in (0, 11, 29):
            with Image.open(simulated / "images" / f"{asset[data.ids[i]]}.jpg") as file:
                expected = np.asarray(file).transpose(2, 0, 1) / 255
            np.testing.assert_allclose(data.read(i), expected, atol=1e-6)
        values, masks = data.conditions.values["votes"].numpy(), data.conditions.masks["votes"].numpy()
        for q, question in enumerate(GZ2_TREE.questions):
            names = [answer.name for answer in question.answers]
            counts = table[[f"{name}_count" for name in names]].to_numpy().sum(axis=1)
            debiased = table[[f"{name}_debiased" for name in names]].to_numpy()
            assert np.array_equal(masks[:, q], (counts > 0) & (debiased.sum(axis=1) > 0))
            share = debiased / np.maximum(debiased.sum(axis=1, keepdims=True), 1e-9)
            known = masks[:, q]
            got = values[:, GZ2_TREE.answer_slice(q)][known]
            np.testing.assert_allclose(got, (counts[:, None] * share)[known], rtol=1e-5)
            np.testing.assert_allclose(got.sum(axis=1), counts[known], rtol=1e-5)

    def test_an_item_is_stretched_and_has_every_field(self, simulated):
        data = GZ2Dataset(simulated, size=16, crop=0.5)
        item = data[3]
        assert set(item) == {"image", "id", "votes", "votes_mask"}
        assert item["image"].shape == (3, 16, 16)
        assert item["id"] == data.ids[3]
        np.testing.assert_allclose(item["image"].numpy(), data.stretch(data.read(3)), atol=1e-6)
        batch = torch.utils.data.default_collate([data[0], data[1]])
        assert batch["image"].shape == (2, 3, 16, 16)
        assert batch["id"].dtype == torch.int64
        with pytest.raises(IndexError):
            data[len(data)]

    @pytest.mark.parametrize(("kind", "column"), [("weighted", "_weighted_fraction"), ("fraction", "_fraction")])
    def test_kinds_of_votes(self, simulated, kind, column):
        data = GZ2Dataset(simulated, votes=kind)
        first = hart16(simulated)[[f"{a.name}{column}" for a in GZ2_TREE.questions[0].answers]].to_numpy()
        values = data.conditions.values["votes"][:, :3].numpy()
        np.testing.assert_allclose(
            values / values.sum(1, keepdims=True), first / first.sum(1, keepdims=True), rtol=1e-4, atol=1e-6
        )

    def test_rows_without_an_image_and_images_without_a_row_are_listed(self, gz2):
        (gz2 / "images" / "7.jpg").unlink()
        rewrite(gz2, hart16(gz2).iloc[:-2])
        data = GZ2Dataset(gz2)
        assert len(data) == 27
        assert data.skipped == [("7", "no image"), ("2 images", "no votes in the table")]
        with pytest.raises(DataError, match="has no image '7'"):
            GZ2Dataset(gz2, on_bad="fail")

    @pytest.mark.parametrize("bad", [-0.1, 1.2])
    def test_votes_outside_the_unit_interval(self, gz2, bad):
        table = hart16(gz2)
        table.loc[4, "t04_spiral_a08_spiral_debiased"] = bad
        rewrite(gz2, table)
        with pytest.raises(DataError, match=rf"object {table['dr7objid'][4]} has votes outside \[0, 1\]"):
            GZ2Dataset(gz2, on_bad="fail")
        data = GZ2Dataset(gz2)
        assert data.skipped == [(str(table["dr7objid"][4]), "votes outside [0, 1]")]
        assert table["dr7objid"][4] not in data.ids

    def test_votes_that_are_absent_are_masked(self, gz2):
        table = hart16(gz2)
        table.loc[4, "t01_smooth_or_features_a01_smooth_debiased"] = np.nan
        rewrite(gz2, table)
        data = GZ2Dataset(gz2)
        assert not data.conditions.masks["votes"][4, 0]
        assert data.conditions.values["votes"].isfinite().all()

    def test_votes_that_are_words(self, gz2):
        table = hart16(gz2).astype({"t03_bar_a06_bar_debiased": object})
        table.loc[4, "t03_bar_a06_bar_debiased"] = "many"
        rewrite(gz2, table)
        with pytest.raises(DataError, match="not numbers"):
            GZ2Dataset(gz2)

    def test_an_object_that_is_there_twice(self, gz2):
        table = hart16(gz2)
        rewrite(gz2, pd.concat([table, table.iloc[[3]]]))
        with pytest.raises(DataError, match=f"row 32: id {table['dr7objid'][3]} is there twice"):
            GZ2Dataset(gz2)

    def test_selections_and_limits(self, simulated):
        table = hart16(simulated)
        data = GZ2Dataset(simulated, where="t01_smooth_or_features_a01_smooth_debiased > 0.5")
        expected = table["dr7objid"][table["t01_smooth_or_features_a01_smooth_debiased"] > 0.5]
        assert data.ids.tolist() == expected.tolist()
        assert GZ2Dataset(simulated, limit=5).ids.tolist() == table["dr7objid"][:5].tolist()

    def test_own_columns_with_a_count(self, simulated):
        columns = {"edge_on": "t02_edgeon_a04_yes_fraction", "spiral": "t04_spiral_a08_spiral_fraction"}
        data = GZ2Dataset(simulated, columns=columns, count=30)
        values, masks = data.conditions.values["votes"], data.conditions.masks["votes"]
        assert masks[:, [1, 3]].all()
        assert masks.sum() == 2 * len(data)
        np.testing.assert_allclose(values[:, GZ2_TREE.answer_slice(1)].sum(1), 30, rtol=1e-6)
        wanted = 30 * hart16(simulated)["t04_spiral_a08_spiral_fraction"].to_numpy()
        np.testing.assert_allclose(values[:, GZ2_TREE.find("spiral")[1]], wanted, rtol=1e-5, atol=1e-5)

    def test_a_mistyped_column_names_the_right_one(self, simulated):
        with pytest.raises(DataError) as caught:
            GZ2Dataset(simulated, columns={"spiral": "t04_spiral_a08_spiral_debased"})
        assert "t04_spiral_a08_spiral_debiased" in caught.value.remedy

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda f: shutil.rmtree(f / "images"), "images folder is missing"),
            (lambda f: (f / "gz2_hart16.csv").unlink(), "no table"),
            (lambda f: (f / "gz2_filename_mapping.csv").write_text("objid,sample\n1,x\n"), "no column 'asset_id'"),
            (lambda f: (f / "gz2_filename_mapping.csv").write_text("objid,asset_id\nx,1\n"), "SDSS object ids"),
            (lambda f: (f / "gz2_filename_mapping.csv").write_text("objid,asset_id\n1,1\n"), "no row"),
        ],
    )
    def test_what_is_missing_is_said(self, gz2, spoil, message):
        spoil(gz2)
        with pytest.raises(DataError, match=message):
            GZ2Dataset(gz2)

    def test_a_corrupt_image_is_named_when_it_is_read(self, gz2):
        path = gz2 / "images" / "1.jpg"
        path.write_bytes(path.read_bytes()[:300])
        data = GZ2Dataset(gz2)
        with pytest.raises(DataError, match="cannot be read") as caught:
            data.read(0)
        assert caught.value.where == str(path)
        assert any(str(path) in problem for problem in data.check())


@pytest.fixture
def folder(tmp_path):
    """Five images by a table, with suffixes of all sorts."""
    for i, name in enumerate(["1.jpg", "2.JPEG", "3.png", "4.jpeg", "5.x.jpg"]):
        picture(tmp_path / "images" / name, 40 * i, seed=i)
    table = "OBJID,CLASS\n3,2\n1,0\n5.x.jpg,1\n4,\n2,10\n"
    (tmp_path / "classes.csv").write_text(table)
    return tmp_path


def by_table(folder, **more):
    arguments = {"table": "classes.csv", "id": "OBJID", "label": "CLASS", "images": "images", "size": None}
    return ImageFolderDataset(folder, **{**arguments, **more})


class TestImageFolder:
    def test_rows_follow_the_table_and_files_their_stem(self, folder):
        data = by_table(folder)
        assert data.ids.tolist() == ["3", "1", "5.x.jpg", "4", "2"]
        levels = [float(data.read(i).mean()) for i in range(5)]
        np.testing.assert_allclose(levels, [(40 * k + 24.5) / 255 for k in (2, 0, 4, 3, 1)], atol=0.02)

    def test_classes_are_in_order_and_gaps_are_masked(self, folder):
        data = by_table(folder)
        (field,) = data.schema.fields
        assert field.classes == ("0", "1", "2", "10")  # numbers in their order, written as they are
        assert data.conditions.masks["morphology"].tolist() == [True, True, True, False, True]
        named = [field.classes[v] for v in data.conditions.values["morphology"]]
        assert [n for n, known in zip(named, data.conditions.masks["morphology"], strict=True) if known] == [
            *("2", "0", "1", "10")
        ]

    def test_names_and_mirror_images(self, folder):
        classes = {0: "round", 1: "left", 2: "right", 10: "other"}
        data = by_table(folder, classes=classes, mirror=[["left", "right"]], name="winding")
        before = data.conditions.values["winding"]
        flipped = data.schema.mirror(data.conditions, torch.ones(5, dtype=torch.bool)).values["winding"]
        names = data.schema.fields[0].classes
        swap = {"left": "right", "right": "left"}
        assert [names[v] for v in flipped] == [swap.get(names[v], names[v]) for v in before]

    def test_an_unknown_label_is_named_with_its_image(self, folder):
        with pytest.raises(DataError, match="'2': label '10' in column 'CLASS' is not known"):
            by_table(folder, classes={0: "a", 1: "b", 2: "c"})

    def test_a_missing_image(self, folder):
        (folder / "images" / "3.png").unlink()
        with pytest.raises(DataError, match=r"1 rows of classes\.csv have no image, the first is '3'"):
            by_table(folder)
        data = by_table(folder, on_bad="skip")
        assert len(data) == 4
        assert data.skipped == [("3", "no image")]

    def test_two_files_of_one_name(self, folder):
        picture(folder / "images" / "deeper" / "3.jpg")
        with pytest.raises(DataError, match="two files are called '3'"):
            by_table(folder)

    def test_grey(self, folder):
        data = by_table(folder, grey=True)
        assert data.bands == ("grey",)
        assert data.read(0).shape == (1, 12, 12)

    def test_without_a_label_it_is_unconditional(self, folder):
        assert by_table(folder, label=None).schema.fields == ()

    def test_folders_are_classes(self, tmp_path):
        for i, name in enumerate(["spiral/a.jpg", "spiral/b.jpg", "smooth/c.jpg"]):
            picture(tmp_path / name, seed=i)
        data = ImageFolderDataset(tmp_path, size=None)
        assert data.schema.fields[0].classes == ("smooth", "spiral")
        classes = [data.schema.fields[0].classes[v] for v in data.conditions.values["morphology"]]
        named = dict(zip(data.ids.tolist(), classes, strict=True))
        assert named == {"a": "spiral", "b": "spiral", "c": "smooth"}

    def test_a_single_class_is_still_a_class(self, tmp_path):
        for i, name in enumerate(["lenses/a.jpg", "lenses/b.jpg"]):
            picture(tmp_path / name, seed=i)
        data = ImageFolderDataset(tmp_path, size=None)
        assert data.schema.fields[0].classes == ("lenses",)
        assert data.conditions.masks["morphology"].all()
        assert data.schema.ask(2, morphology="lenses").values["morphology"].tolist() == [0, 0]

    def test_images_that_lie_loose_have_no_class(self, tmp_path):
        picture(tmp_path / "a.jpg")
        picture(tmp_path / "b.jpg", seed=1)
        assert ImageFolderDataset(tmp_path, size=None).schema.fields == ()
        picture(tmp_path / "spiral" / "c.jpg", seed=2)
        mixed = ImageFolderDataset(tmp_path, size=None)
        assert mixed.conditions.masks["morphology"].tolist() == [i == "c" for i in mixed.ids]

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(DataError, match="no"):
            ImageFolderDataset(tmp_path)


class TestFingerprint:
    def prints(self, data):
        return json.dumps(data.fingerprint(), sort_keys=True)

    def test_it_does_not_depend_on_the_place(self, folder, tmp_path_factory):
        elsewhere = shutil.copytree(folder, tmp_path_factory.mktemp("else") / "where")
        assert self.prints(by_table(folder)) == self.prints(by_table(elsewhere))

    def test_it_sees_every_change(self, folder):
        before = self.prints(by_table(folder))
        for more in ({"size": 8}, {"crop": 0.5}, {"stretch": "linear"}, {"grey": True}, {"limit": 3}):
            assert self.prints(by_table(folder, **more)) != before
        (folder / "classes.csv").write_text("OBJID,CLASS\n3,1\n1,0\n5.x.jpg,1\n4,\n2,10\n")
        changed = self.prints(by_table(folder))
        assert changed != before
        picture(folder / "images" / "3.png", 200, size=14)
        assert self.prints(by_table(folder)) != changed


class TestReading:
    def test_values_that_are_not_finite_are_named(self, tmp_path):
        for name, values in (("no/a.npy", np.ones((8, 8))), ("no/b.npy", np.full((8, 8), np.nan))):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            np.save(tmp_path / name, values)
        data = DeepLenseDataset(tmp_path)
        assert data.read(0).shape == (1, 8, 8)
        with pytest.raises(DataError, match="64 values are NaN") as caught:
            data.read(1)
        assert caught.value.where == str(tmp_path / "no" / "b.npy")

    def test_of_an_oblong_image_the_central_square_is_kept(self, tmp_path):
        ramp = np.repeat(np.arange(0, 90, 10, dtype=np.uint8)[None], 6, axis=0)  # 9 x 6 pixels
        Image.fromarray(ramp).save(tmp_path / "a.png")
        data = ImageFolderDataset(tmp_path, size=3, grey=True)
        # Six of nine columns have their center at the fifth; the ramp's mean there is the image's.
        assert data.read(0).mean() * 255 == pytest.approx(40, abs=1e-4)
        with pytest.raises(DataError, match="no central square of whole pixels") as caught:
            ImageFolderDataset(tmp_path, size=None, grey=True).read(0)
        assert caught.value.where == "a"

    def test_an_image_deeper_than_the_first_is_refused_and_not_rounded(self, tmp_path):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
        Image.fromarray(np.full((8, 8), 257, np.uint16)).save(tmp_path / "b.png")
        data = ImageFolderDataset(tmp_path, size=8, grey=True)
        assert data.read(0).shape == (1, 8, 8)
        with pytest.raises(DataError, match="16 bits where the first image has 8") as caught:
            data.read(1)
        assert caught.value.where == str(tmp_path / "b.png")


def lens(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)


def with_mass(image, mass):
    array = np.empty(2, dtype=object)
    array[0], array[1] = image, mass
    return array


class TestDeepLense:
    def test_every_spelling_and_layout(self, tmp_path):
        image = np.random.default_rng(0).random((8, 8))
        lens(tmp_path / "train" / "no" / "1.npy", image)
        lens(tmp_path / "val" / "no_sub" / "2.npy", (100 * image).astype(np.int64)[None])
        lens(tmp_path / "sphere" / "3.npy", image[None, None].astype(">f4"))
        lens(tmp_path / "CDM" / "4.npy", image[..., None])
        lens(tmp_path / "vort" / "5.npy", image)
        data = DeepLenseDataset(tmp_path)
        classes = data.schema.fields[0].classes
        named = {str(i): classes[v] for i, v in zip(data.ids, data.conditions.values["substructure"], strict=True)}
        assert named == {
            "CDM/4": "cdm",
            "sphere/3": "cdm",
            "train/no/1": "no_sub",
            "val/no_sub/2": "no_sub",
            "vort/5": "axion",
        }
        for i, identifier in enumerate(data.ids):
            expected = np.floor(100 * image) if identifier == "val/no_sub/2" else image
            np.testing.assert_allclose(data.read(i)[0], expected, rtol=1e-6)

    def test_folders_of_splits_are_a_column(self, tmp_path):
        for place in ("train/no/1", "val/no/2", "Test/cdm/3", "train/cdm/4"):
            lens(tmp_path / f"{place}.npy", np.ones((8, 8)))
        data = DeepLenseDataset(tmp_path)
        split = dict(zip(data.ids.tolist(), split_rows(data.ids, data.table, by="column"), strict=True))
        assert split == {"Test/cdm/3": "test", "train/cdm/4": "train", "train/no/1": "train", "val/no/2": "validation"}

    def test_bands_last_become_bands_first(self, tmp_path):
        image = np.random.default_rng(0).random((8, 8, 3))
        lens(tmp_path / "cdm" / "1.npy", image)
        data = DeepLenseDataset(tmp_path)
        assert len(data.bands) == 3
        np.testing.assert_allclose(data.read(0), image.transpose(2, 0, 1), rtol=1e-6)

    def test_masses_become_a_condition_where_there_are_any(self, tmp_path):
        image = np.ones((8, 8))
        lens(tmp_path / "no_sub" / "1.npy", image)
        for i, mass in enumerate([1e-23, 1e-22]):
            lens(tmp_path / "axion" / f"{i}.npy", with_mass(image, mass))
        data = DeepLenseDataset(tmp_path, allow_object_arrays=True)
        assert data.conditions.masks["log10_mass"].tolist() == [True, True, False]
        assert data.conditions.values["log10_mass"].tolist()[:2] == pytest.approx([-23, -22])
        assert data.conditions.values["log10_mass"].isfinite().all()
        with pytest.raises(DataError, match="object array") as caught:
            DeepLenseDataset(tmp_path)
        assert "allow_object_arrays" in caught.value.remedy
        kept = DeepLenseDataset(tmp_path, on_bad="skip")
        assert [i for i, _ in kept.skipped] == ["axion/0.npy", "axion/1.npy"]
        assert len(kept) == 1

    @pytest.mark.parametrize("shape", [(8,), (2, 3, 4, 5, 6), (7, 8, 8), (2, 2, 8, 8), (1, 8)])
    def test_shapes_that_are_no_image_are_named(self, tmp_path, shape):
        lens(tmp_path / "cdm" / "1.npy", np.ones(shape))
        with pytest.raises(DataError, match="has shape") as caught:
            DeepLenseDataset(tmp_path)
        assert caught.value.where == str(tmp_path / "cdm" / "1.npy")

    def test_an_image_of_other_bands_than_the_first(self, tmp_path):
        lens(tmp_path / "cdm" / "1.npy", np.ones((8, 8)))
        lens(tmp_path / "cdm" / "2.npy", np.ones((3, 8, 8)))
        with pytest.raises(DataError, match="3 bands"):
            DeepLenseDataset(tmp_path).read(1)

    def test_a_folder_of_strangers(self, tmp_path):
        lens(tmp_path / "wdm" / "1.npy", np.ones((8, 8)))
        with pytest.raises(DataError, match="found wdm"):
            DeepLenseDataset(tmp_path)

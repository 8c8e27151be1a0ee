"""What is wrong with a table, or with what is asked of it, in one sentence."""

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from PIL import Image

from galdiff.data import DeepLenseDataset, FITSDataset, GZ2Dataset, HDF5Dataset, IDXDataset, ImageFolderDataset
from galdiff.data.fits_files import read_fits
from galdiff.data.labels import class_column
from galdiff.data.tables import find_table, id_column, read_table
from galdiff.errors import DataError
from galdiff.schema.voteformats import VOTE_FORMATS

IDS = [587_722_952_767_439_450, 587_722_953_303_916_935]
HART16 = VOTE_FORMATS["hart16"]


@pytest.fixture
def folder(tmp_path):
    for i in IDS:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def labeled(folder, text, **more):
    (folder / "t.csv").write_text(text)
    return ImageFolderDataset(folder, table="t.csv", id="OBJID", label="CLASS", **more)


@pytest.mark.parametrize(
    "written", [("5.877e+17", "5.878e+17"), ("5.87722952767439E+17", "6E+17"), ("100008.0", "100023.0")]
)
def test_ids_that_a_spreadsheet_took_for_numbers(folder, written):
    text = "OBJID,CLASS\n" + "".join(f"{i},1\n" for i in written)
    with pytest.raises(DataError, match="column 'OBJID' holds floating-point numbers: 18-digit") as caught:
        labeled(folder, text)
    assert caught.value.remedy == "Store it as text"


@pytest.mark.parametrize("written", [["1e5", "2e5"], ["J1.0", "2.0"], ["4.0.1", "4.0.2"], ["5.8e+17", "a"]])
def test_names_that_are_no_numbers(tmp_path, written):
    path = tmp_path / "t.csv"
    pd.DataFrame({"id": written}).to_csv(path, index=False)
    assert id_column(read_table(path, ids=["id"]), "id", path).tolist() == written


def test_a_column_without_ids_is_no_column_of_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,x\n,1\n,2\n")
    with pytest.raises(DataError, match="row 2: no id in column 'id'"):
        id_column(read_table(path, ids=["id"]), "id", path)


@pytest.mark.parametrize(("separator", "name"), [(";", "';'"), ("\t", "tabs"), ("|", r"'\|'")])
def test_tables_with_other_separators(folder, separator, name):
    rows = [["OBJID", "CLASS"], *([str(i), "1,5"] for i in IDS)]
    with pytest.raises(DataError, match=f"the columns seem to be separated by {name}, not by commas") as caught:
        labeled(folder, "\n".join(separator.join(row) for row in rows) + "\n")
    assert caught.value.where == str(folder / "t.csv")


def test_separators_within_names_are_names(tmp_path):
    (tmp_path / "t.csv").write_text("id,flux [erg|s]\n1,2\n")
    assert read_table(tmp_path / "t.csv", ids=["id"]).columns.tolist() == ["id", "flux [erg|s]"]


class TestColumnsThatShareAName:
    def test_are_refused_where_they_are_used(self, folder):
        text = f"OBJID,CLASS,z,CLASS\n{IDS[0]},1,5,2\n{IDS[1]},2,6,1\n"
        with pytest.raises(DataError, match=r"t\.csv: there are 2 columns 'CLASS'") as caught:
            labeled(folder, text)
        assert caught.value.remedy == "Name one: 'CLASS (column 2)' or 'CLASS (column 4)'"
        dataset = ImageFolderDataset(folder, table="t.csv", id="OBJID", label="CLASS (column 4)")
        assert dataset.conditions.values["morphology"].tolist() == [1, 0]

    def test_are_no_matter_where_they_are_not(self, folder):
        dataset = labeled(folder, f"OBJID,z,CLASS,z,z.1\n{IDS[0]},1,2,3,4\n{IDS[1]},5,1,6,7\n")
        assert dataset.conditions.values["morphology"].tolist() == [1, 0]
        assert dataset.table["z (column 4)"].tolist() == [3, 6]
        assert dataset.table["z.1"].tolist() == [4, 7]

    @pytest.mark.parametrize("column", [HART16.ids[0], HART16.stems[0] + HART16.fractions["debiased"]])
    def test_are_refused_of_ids_and_votes(self, tmp_path, column):
        votes = {stem + HART16.count: [10, 20] for stem in HART16.stems}
        votes |= {stem + HART16.fractions["debiased"]: [0.3, 0.3] for stem in HART16.stems}
        table = pd.DataFrame({HART16.ids[0]: IDS, **votes})
        pd.concat([table, table[[column]]], axis=1).to_csv(tmp_path / "gz2.csv", index=False)
        (tmp_path / "images").mkdir()
        with pytest.raises(DataError, match=f"there are 2 columns '{column}'"):
            GZ2Dataset(tmp_path, table="gz2.csv")

    def test_are_refused_in_parquet(self, tmp_path):
        arrays = [pa.array([1, 2])] * 3
        pq.write_table(pa.Table.from_arrays(arrays, names=["id", "x", "x"]), tmp_path / "t.parquet")
        with pytest.raises(DataError, match="there are two columns 'x'"):
            read_table(tmp_path / "t.parquet", ids=["id"])


def test_a_folder_is_no_table(folder):
    (folder / "t.csv").mkdir()
    with pytest.raises(DataError, match="is a folder, not a table"):
        find_table(folder, "t.csv", ())


class TestGalaxyZoo2:
    @pytest.fixture
    def root(self, tmp_path):
        votes = {stem + HART16.count: [10, 20] for stem in HART16.stems}
        votes |= {stem + HART16.fractions["debiased"]: [0.3, 0.3] for stem in HART16.stems}
        pd.DataFrame({"dr7objid": IDS} | votes).to_csv(tmp_path / "gz2_hart16.csv", index=False)
        (tmp_path / "images").mkdir()
        for i in (1, 2):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / f"{i}.jpg")
        return tmp_path

    def test_the_mapping_that_is_not_there_is_named(self, root):
        with pytest.raises(DataError, match="no row of gz2_hart16") as caught:
            GZ2Dataset(root)
        assert caught.value.remedy.startswith("There is no gz2_filename_mapping.csv here")
        mapping = pd.DataFrame({"objid": IDS, "sample": "original", "asset_id": [3, 4]})
        mapping.to_csv(root / "gz2_filename_mapping.csv", index=False)
        with pytest.raises(DataError, match="no row of gz2_hart16") as caught:
            GZ2Dataset(root)
        assert "gz2_filename_mapping" not in caught.value.remedy

    def test_the_mapping_is_a_folder(self, root):
        (root / "mine").mkdir()
        with pytest.raises(DataError, match="mine: is a folder, not a table"):
            GZ2Dataset(root, mapping="mine")


@pytest.mark.parametrize(("hdu", "has"), [(3, "0 PRIMARY, 1 SCI"), ("ERR", "0 PRIMARY, 1 SCI")])
def test_extensions_that_are_not_there(tmp_path, hdu, has):
    image = fits.ImageHDU(np.zeros((4, 4)), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match=f"there is no extension {hdu!r}. The file has {has}$"):
        read_fits(tmp_path / "a.fits", [hdu])
    with pytest.raises(DataError, match=f"there is no extension {hdu!r}"):
        FITSDataset(tmp_path, hdu=hdu)
    assert read_fits(tmp_path / "a.fits", [-1]).shape == (4, 4)


@pytest.mark.parametrize(
    "loader", [DeepLenseDataset, FITSDataset, GZ2Dataset, HDF5Dataset, IDXDataset, ImageFolderDataset]
)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"on_bad": "foo"}, "on_bad is 'foo'. Known: fail, skip"),
        ({"limit": -1}, "limit is -1. Give a whole number above 0"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 2.5}, "limit is 2.5"),
    ],
)
def test_arguments_that_are_none(tmp_path, loader, arguments, words):
    with pytest.raises(DataError, match=words):
        loader(tmp_path, **arguments)


@pytest.mark.parametrize("mirror", [[["1"]], [["1", "2", "3"]], ["12"], [[]]])
def test_mirrors_that_are_no_pairs(mirror):
    labels = pd.Series(["1", "2", "3"], name="x")
    with pytest.raises(DataError, match=r"mirror: .* is no pair of classes"):
        class_column(labels, "morphology", where="t.csv", ids=range(3), mirror=mirror)


class TestEmptyColumns:
    @pytest.mark.parametrize("classes", [None, {"a": "spiral"}])
    @pytest.mark.parametrize("gap", ["", " "])
    def test_of_a_table(self, folder, classes, gap):
        with pytest.raises(DataError, match="column 'CLASS' is empty") as caught:
            labeled(folder, f"OBJID,CLASS\n{IDS[0]},{gap}\n{IDS[1]},{gap}\n", classes=classes)
        assert caught.value.where == str(folder / "t.csv")

    def test_of_the_rows_that_are_chosen(self, folder):
        text = f"OBJID,CLASS\n{IDS[0]},\n{IDS[1]},7\n"
        assert labeled(folder, text).schema.fields[0].classes == ("7",)
        with pytest.raises(DataError, match="column 'CLASS' is empty"):
            labeled(folder, text, limit=1)

    def test_of_attributes(self, folder):
        (folder / "t.csv").write_text(f"id,ring\n{IDS[0]},\n{IDS[1]},\n")
        with pytest.raises(DataError, match="column 'ring' is empty"):
            ImageFolderDataset(folder, table="t.csv", attributes=["ring"])

    def test_of_stamps(self, tmp_path):
        fits.writeto(tmp_path / "a.fits", np.zeros((4, 4)))
        (tmp_path / "t.csv").write_text("id,kind\na,\n")
        with pytest.raises(DataError, match="column 'kind' is empty"):
            FITSDataset(tmp_path, table="t.csv", label="kind")
        assert FITSDataset(tmp_path).schema.fields == ()  # whose folders are no classes

    def test_of_hdf5(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["images"] = np.zeros((2, 8, 8, 3), np.uint8)
            file["ans"] = np.full(2, np.nan)
        with pytest.raises(DataError, match="column 'ans' is empty"):
            HDF5Dataset(tmp_path)
        assert HDF5Dataset(tmp_path, label=None).schema.fields == ()

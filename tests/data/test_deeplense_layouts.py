"""DeepLense's files from many hands: flat folders, splits, object arrays of any length, and damage."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galdiff.data import DeepLenseDataset
from galdiff.errors import DataError, GaldiffError, parts_of

LENS = np.random.default_rng(1).gamma(2.0, 3.0, (6, 6))


def lens(path, array=LENS):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)


def record(*parts):
    array = np.empty(len(parts), dtype=object)
    array[:] = list(parts)
    return array


class TestLayouts:
    def test_names_say_the_class_where_no_folder_does(self, tmp_path):
        names = {
            "axion_sim_123.npy": "axion",
            "no_sub_sim_326887922960900405427772333545094581012.npy": "no_sub",
            "ml4sci_lucasjose_cdm.npy": "cdm",
            "ml4sci_lucasjose_nosub.npy": "no_sub",
            "vort7.npy": "axion",
            "deep/Sphere-1.5.npy": "cdm",
        }
        for name in names:
            lens(tmp_path / name)
        data = DeepLenseDataset(tmp_path)
        found = dict(zip(data.ids.tolist(), data.table["class"], strict=True))
        assert found == {name.removesuffix(".npy"): label for name, label in names.items()}

    @pytest.mark.parametrize("name", ["Raw.npy", "cdm_or_axion.npy", "nothing.npy", "innosub.npy", "axions.npy"])
    def test_names_that_say_none_or_two_are_listed(self, tmp_path, name):
        lens(tmp_path / "cdm" / "1.npy")
        lens(tmp_path / "pair" / name)
        lens(tmp_path / "pair" / "._axion.npy")
        data = DeepLenseDataset(tmp_path)
        assert data.ids.tolist() == ["cdm/1"]
        assert data.skipped == [(f"pair/{name}", "no class in its folder or name")]

    def test_the_folder_counts_before_the_name(self, tmp_path):
        lens(tmp_path / "sphere" / "no_3.npy")
        assert DeepLenseDataset(tmp_path).table["class"].tolist() == ["cdm"]

    def test_folders_of_splits_are_a_column(self, tmp_path):
        for folder in ("train", "val", "test", "Validation"):
            lens(tmp_path / folder / "no" / "1.npy")
        lens(tmp_path / "no" / "1.npy")
        data = DeepLenseDataset(tmp_path)
        split = dict(zip(data.ids.tolist(), data.table["split"], strict=True))
        assert {k: v for k, v in split.items() if isinstance(v, str)} == {
            "train/no/1": "train",
            "val/no/1": "validation",
            "test/no/1": "test",
            "Validation/no/1": "validation",
        }
        lens(tmp_path / "other" / "no" / "1.npy")
        assert "split" not in DeepLenseDataset(tmp_path / "other").table

    def test_a_limit_is_of_each_class(self, tmp_path):
        for i in range(4):
            lens(tmp_path / "no" / f"{i}.npy")
            lens(tmp_path / "cdm" / f"{i}.npy")
        assert sorted(DeepLenseDataset(tmp_path, limit=3).table["class"]) == ["cdm"] * 3 + ["no_sub"] * 3


class TestObjectArrays:
    def test_further_values_are_columns_and_no_condition(self, tmp_path):
        lens(tmp_path / "axion" / "1.npy", record(LENS, 1e-23, 2, np.float64(3), np.array([4.0])))
        lens(tmp_path / "no" / "1.npy")
        data = DeepLenseDataset(tmp_path, allow_object_arrays=True)
        assert data.table.loc[0, ["value1", "value2", "value3", "value4"]].tolist() == [1e-23, 2, 3, 4]
        assert data.table.loc[1, ["value1", "mass"]].isna().all()
        assert list(data.schema.by_name) == ["substructure"]
        np.testing.assert_allclose(data.read(0)[0], LENS, rtol=1e-6)

    def test_the_mass_is_a_column_and_its_logarithm_a_condition(self, tmp_path):
        for i, mass in enumerate([3e-24, 5e-23, 0.0]):
            lens(tmp_path / "axion" / f"{i}.npy", record(LENS, mass))
        data = DeepLenseDataset(tmp_path, allow_object_arrays=True)
        assert data.table["mass"].tolist() == [3e-24, 5e-23, 0.0]
        assert data.conditions.masks["log10_mass"].tolist() == [True, True, False]
        np.testing.assert_allclose(data.conditions.values["log10_mass"][:2], np.log10([3e-24, 5e-23]), rtol=1e-6)
        assert data.schema.by_name["log10_mass"].unit == "log10 eV"

    def test_two_images_are_no_image_and_mass(self, tmp_path):
        lens(tmp_path / "axion" / "1.npy", record(LENS, LENS))
        with pytest.raises(DataError, match="more arrays"):
            DeepLenseDataset(tmp_path, allow_object_arrays=True)


def test_normalizing_is_asked_for_by_name(tmp_path):
    lens(tmp_path / "no" / "1.npy", np.full((6, 6), 7))
    with pytest.raises(DataError, match="unknown way") as caught:
        DeepLenseDataset(tmp_path, normalize="zscore")
    assert "minmax" in caught.value.remedy
    assert (DeepLenseDataset(tmp_path, normalize="minmax").read(0) == 0).all()  # an even image has no extremes


def saved(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


FILES = [saved(LENS.astype(">i8")[None]), saved(record(LENS, 1e-23)), saved(record(LENS, 1.0, 2, np.float64(3), 4.0))]


@settings(max_examples=200)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=3),
    st.integers(0, 40),
)
def test_flipped_bytes_give_a_lens_or_a_named_error(tmp_path, original, flips, cut):
    data = bytearray(original[: len(original) - cut * (cut > 30)])
    for place, flip in flips:
        data[place % len(data)] ^= flip
    (tmp_path / "axion").mkdir(exist_ok=True)
    (tmp_path / "axion" / "1.npy").write_bytes(data)
    try:
        found = DeepLenseDataset(tmp_path, allow_object_arrays=True)
        image = found.read(0)
    except GaldiffError:
        return
    assert image.ndim == 3
    assert np.isfinite(image).all()


def test_a_bad_array_does_not_hide_columns_that_are_absent(tmp_path):
    lens(tmp_path / "cdm" / "1.npy", record(LENS, 1.0))
    (tmp_path / "lenses.csv").write_text("name,theta_e\n1,1.5\n")
    with pytest.raises(DataError) as caught:
        DeepLenseDataset(tmp_path, scalars=["theta_E", "exposure"])
    first, *columns = map(str, parts_of(caught.value))
    assert "allow_object_arrays" in first
    assert [sum(f"'{name}'" in line for line in columns) for name in ("id", "theta_E", "exposure")] == [1, 1, 1]

"""Loaders on real surveys' files, where they are at hand (GALDIFF_DATA)."""

import numpy as np
import pandas as pd
import pytest
import torch

from galdiff.data import DeepLenseDataset, GZ2Dataset, ImageFolderDataset, split_by_hash
from galdiff.data.tables import id_column, read_table
from galdiff.errors import DataError
from galdiff.schema.trees import GZ2_TREE

CLASSES = {0: "elliptical", 1: "clockwise", 2: "anticlockwise", 3: "edge_on", 4: "unknown", 5: "merger"}


@pytest.fixture(scope="module")
def gz1(real_data):
    return ImageFolderDataset(
        real_data("gz1"),
        table="smallCSV_class.csv",
        id="OBJID",
        label="CLASS",
        images="images",
        classes=CLASSES,
        mirror=[["clockwise", "anticlockwise"]],
        crop=0.5,
        size=64,
    )


class TestGalaxyZoo1:
    def test_ids_and_classes_are_the_tables(self, gz1, real_data):
        table = pd.read_csv(real_data("gz1") / "smallCSV_class.csv", dtype=str)
        assert gz1.ids.dtype == np.int64
        assert [str(i) for i in gz1.ids] == table["OBJID"].tolist()
        assert gz1.conditions.values["morphology"].tolist() == table["CLASS"].astype(int).tolist()
        assert gz1.conditions.masks["morphology"].all()
        assert gz1.schema.fields[0].classes == tuple(CLASSES.values())

    def test_images_are_cropped_resized_and_keep_their_light(self, gz1):
        for i in (0, 1000, len(gz1) - 1):
            stamp = gz1.load(i)
            assert stamp.shape == (3, 423, 423)
            image = gz1.read(i)
            assert image.shape == (3, 64, 64)
            middle = stamp[:, 106:317, 106:317]  # 211 pixels, as odd as the stamp
            np.testing.assert_allclose(image.mean(axis=(1, 2)), middle.mean(axis=(1, 2)) / 255, atol=1e-5)

    def test_reflections_swap_the_winding_and_rotations_do_not(self, gz1):
        value = gz1.conditions.values["morphology"]
        flipped = gz1.schema.mirror(gz1.conditions, torch.ones(len(gz1), dtype=torch.bool)).values["morphology"]
        turned = gz1.schema.mirror(gz1.conditions, torch.zeros(len(gz1), dtype=torch.bool)).values["morphology"]
        assert torch.equal(flipped, torch.tensor([0, 2, 1, 3, 4, 5])[value])
        assert torch.equal(turned, value)

    def test_splits_are_of_the_size_that_was_asked_for(self, gz1):
        split = split_by_hash(gz1.ids)
        for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
            assert abs((split == name).mean() - share) < 0.02

    def test_images_with_votes_of_hart16_join_by_their_object_id(self, gz1, real_data):
        root, table = real_data("gz1"), "gz2_hart16_debiased_for_subset.csv"
        columns = {"smooth": "smooth_prob", "features": "features_prob", "artifact": "artifact_prob"}
        columns |= {"edge_on": "edgeon_prob", "spiral": "spiral_prob", "no_spiral": "nospiral_prob", "odd": "odd_prob"}
        data = GZ2Dataset(root, table=table, images="images", columns=columns, count=40, crop=0.5)
        assert len(data) == 27
        assert sum(why == "no image" for _, why in data.skipped) == 10
        assert set(data.ids.tolist()) <= set(gz1.ids.tolist())
        votes = pd.read_csv(root / table, dtype={"dr7objid": "int64"}).set_index("dr7objid")
        for i, identifier in enumerate(data.ids):
            row = votes.loc[identifier, ["smooth_prob", "features_prob", "artifact_prob"]].to_numpy(float)
            got = data.conditions.values["votes"][i, GZ2_TREE.answer_slice(0)].numpy()
            np.testing.assert_allclose(got, 40 * row / row.sum(), rtol=1e-4, atol=1e-4)
            same = int(np.flatnonzero(gz1.ids == identifier)[0])
            assert np.array_equal(data.read(i), gz1.read(same))


class TestGalaxyZoo2:
    def test_ids_of_the_published_table_survive(self, real_data):
        path = real_data("gz2") / "table5_willett2013_stripe82_coadd.csv.gz"
        ids = id_column(read_table(path, ids=("objid",)), "objid", path)
        assert ids.dtype == np.int64
        assert len(ids) == 19_761
        assert (ids.astype(float).astype(np.int64) != ids).mean() > 0.9  # what a float would have done

    def test_images_by_asset_id_whose_votes_are_not_there_are_an_error(self, real_data):
        root = real_data("gz2")
        with pytest.raises(DataError, match="no row"):
            GZ2Dataset(root, table="table5_head200.csv", images="images_gz2/images")


class TestDeepLense:
    def test_simulated_lenses_with_their_masses(self, real_data):
        root = real_data("deeplense_generated") / "Model_II"
        data = DeepLenseDataset(root, allow_object_arrays=True)
        assert np.bincount(data.conditions.values["substructure"]).tolist() == [40, 40, 40]
        axion = data.conditions.values["substructure"] == 2
        assert torch.equal(data.conditions.masks["log10_mass"], axion)
        masses = data.conditions.values["log10_mass"][axion]
        assert -24 <= masses.min() < masses.max() <= -22
        for i in range(0, len(data), 7):
            image = data.read(i)
            assert image.shape == (1, 64, 64)
            assert image.max() > 1  # the simulator's own units: nothing was scaled

    def test_without_the_switch_it_is_named(self, real_data):
        with pytest.raises(DataError, match="object array") as caught:
            DeepLenseDataset(real_data("deeplense_generated") / "Model_II")
        assert "allow_object_arrays: true" in caught.value.remedy

    @pytest.mark.parametrize(("layout", "side"), [("Model_I", 150), ("GSoC_common_format", 150)])
    def test_other_layouts(self, real_data, layout, side):
        data = DeepLenseDataset(real_data("deeplense_generated") / layout, allow_object_arrays=True)
        assert set(data.conditions.values["substructure"].tolist()) == {0, 1, 2}
        assert data.size == side
        assert np.isfinite(data.read(len(data) - 1)).all()

    def test_arrays_from_other_hands(self, real_data):
        data = DeepLenseDataset(real_data("deeplense"))
        assert [data.read(i).shape for i in range(len(data))] == [(1, 64, 64)] * 4

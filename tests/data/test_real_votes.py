"""Votes and lenses of real files, where they are at hand (GALDIFF_DATA)."""

import json

import numpy as np
import pandas as pd
import pytest

from galdiff.data import DeepLenseDataset, GZ2Dataset
from galdiff.data.tables import id_column, read_table
from galdiff.data.votes import detect_format, outside, read_votes, vote_columns
from galdiff.errors import DataError
from galdiff.schema.trees import GZ2_TREE, GZ_DECALS_TREE


class TestKaggle:
    @pytest.fixture
    def root(self, real_data):
        return real_data("galaxyzoo")

    def test_path_probabilities_are_undone(self, root):
        name = "training_solutions_rev1_subset.csv"
        data = GZ2Dataset(root, table=name, images="images_training_rev1", count=40, crop=0.5)
        table = pd.read_csv(root / name).set_index("GalaxyID")
        assert data.ids.tolist() == table.index.tolist()
        assert data.skipped == [("2095 images", "no votes in the table")]
        values, masks = data.conditions.values["votes"].numpy(), data.conditions.masks["votes"].numpy()
        # What the table says of the whole path is the votes over the volunteers, but for 'odd', which it normalises.
        asked_of_all = GZ2_TREE.answer_slice(5)
        whole = np.delete(table.to_numpy(), np.r_[asked_of_all, GZ2_TREE.answer_slice(7)], axis=1)
        np.testing.assert_allclose(
            np.delete(values, np.r_[asked_of_all, GZ2_TREE.answer_slice(7)], axis=1) / 40, whole, atol=2e-5
        )
        assert masks[:, 0].all()
        assert masks[0].tolist() == [*[True] * 8, False, True, True]  # 100008: nobody saw it edge-on
        assert data[0]["image"].shape == (3, 64, 64)

    def test_a_table_of_the_first_question_with_gaps(self, root):
        data = GZ2Dataset(
            root, table="training_solutions_rev1_class1_partial.csv", images="images_training_rev1", count=40
        )
        assert len(data) == 60
        assert data.conditions.masks["votes"].sum(0).tolist() == [30, *[0] * 10]

    def test_images_without_votes(self, root):
        with pytest.raises(DataError, match="no row"):
            GZ2Dataset(root, table="training_solutions_rev1_subset.csv", images="images_test_rev1", count=40)


class TestDecals:
    @pytest.fixture
    def root(self, real_data):
        return real_data("decals")

    def test_counts_and_names_with_dots(self, root):
        name = "gz_decals_votes_subset.csv"
        data = GZ2Dataset(root, table=name, size=32)
        table = pd.read_csv(root / name)
        assert data.ids.tolist() == table["iau"].tolist()
        assert data.schema.by_name["votes"].tree is GZ_DECALS_TREE
        counts = table[[a.name for a in GZ_DECALS_TREE.questions[0].answers]].to_numpy()
        np.testing.assert_allclose(data.conditions.values["votes"][:, :3], counts, rtol=1e-5)
        assert not data.conditions.masks["votes"][:, 1:].any()
        assert data.read(0).shape == (3, 32, 32)

    def test_the_subset_of_rings_by_id_and_by_a_file_name_of_another_suffix(self, root):
        name = "example_ring_catalog_basic_subset.csv"
        by_id = GZ2Dataset(root, table=name, count=10)
        by_file = GZ2Dataset(root, table=name, count=10, id="file_loc")
        assert by_id.ids.tolist() == by_file.ids.tolist()
        assert len(by_id) == 82
        assert by_id.conditions.masks["votes"].sum(0).tolist() == [0, 82, 82, *[0] * 7]
        assert "ring" in by_id.table

    def test_votes_without_images(self, root):
        name = "gz_decals_votes_500rows_noimages.csv"
        with pytest.raises(DataError, match="is there twice"):
            GZ2Dataset(root, table=name)
        with pytest.raises(DataError, match="no row"):
            GZ2Dataset(root, table=name, id="subject_id")


class TestGalaxyZoo2:
    @pytest.fixture
    def root(self, real_data):
        return real_data("gz2")

    def test_the_published_table_5(self, root):
        path = root / "table5_willett2013_stripe82_coadd.csv.gz"
        table = read_table(path, ids=("objid",))
        layout, key = detect_format(table, path)
        assert (layout.name, key) == ("willett13", "objid")
        assert len(np.unique(id_column(table, key, path))) == 19_761
        found = vote_columns(table, layout, path)
        assert not outside(table, path, found).any()
        conditions, sums = read_votes(table, layout, path, found)
        first = sums["t01_smooth_or_features_sum"]
        assert 0.66 < first.min() < 0.67
        assert 1.45 < first.max() < 1.47
        counts = table[[f"{a.name}_count" for a in layout.tree.questions[0].answers]].sum(axis=1)
        np.testing.assert_allclose(conditions.values["votes"][:, :3].sum(1), counts, rtol=1e-5)
        assert conditions.values["votes"].isfinite().all()

    def test_assets_join_by_the_pairs_and_only_by_them(self, root, tmp_path):
        """Debiased values under short names, which a hackathon published with the pairs of ids."""
        rows = json.loads((root / "labels_master_top_n.json").read_text())
        table = pd.DataFrame([{"dr7objid": row["objid"], **row["metrics"]} for row in rows])
        table.drop_duplicates("dr7objid").to_csv(tmp_path / "votes.csv", index=False)
        for name, source in (("images", root / "images_gz2" / "images"), ("gz2_filename_mapping.csv", None)):
            (tmp_path / name).symlink_to(source or root / "gz2_objid_assetid_pairs_fragment.csv")
        columns = {"smooth": "smooth_prob", "features": "features_prob", "artifact": "artifact_prob"}
        data = GZ2Dataset(tmp_path, table="votes.csv", columns=columns, count=40)
        pairs = pd.read_csv(root / "gz2_objid_assetid_pairs_fragment.csv").set_index("asset_id")["objid"]
        assert sorted(data.ids.tolist()) == sorted(pairs[[143_883, 44_062]])
        assert data.skipped[-1] == ("128 images", "no votes in the table")
        (tmp_path / "gz2_filename_mapping.csv").unlink()
        with pytest.raises(DataError, match="no row"):
            GZ2Dataset(tmp_path, table="votes.csv", columns=columns, count=40)

    def test_the_challenges_images_and_tables_are_refused(self, root, real_data):
        kaggle = real_data("galaxyzoo")
        with pytest.raises(DataError, match="cannot be called by its asset_id"):
            GZ2Dataset(
                kaggle,
                table=str(root / "table5_head200.csv"),
                mapping=str(root / "gz2_objid_assetid_pairs_fragment.csv"),
                images="images_training_rev1",
            )
        with pytest.raises(DataError, match="cannot be called by its GalaxyID"):
            GZ2Dataset(
                root, table=str(kaggle / "training_solutions_rev1_subset.csv"), images="images_gz2/images", count=40
            )


def test_arrays_of_other_hands_that_say_no_class_are_listed(real_data):
    data = DeepLenseDataset(real_data("deeplense"))
    assert sorted(data.table["class"]) == ["axion", "axion", "cdm", "no_sub"]
    assert [name for name, _ in data.skipped] == ["superres_pair/Gold.npy", "superres_pair/Raw.npy"]


def test_masses_are_those_of_the_manifest(real_data):
    root = real_data("deeplense_generated")
    data = DeepLenseDataset(root / "Model_I", allow_object_arrays=True)
    manifest = {row["path"]: row["axion_mass"] for row in json.loads((root / "manifest.json").read_text())}
    for name, mass in zip(data.ids, data.table["mass"], strict=True):
        expected = manifest[f"Model_I/{name}.npy"]
        assert mass == expected if expected is not None else np.isnan(mass)

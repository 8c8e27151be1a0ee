"""Tables of votes: each published format is told by its columns and means the same votes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from galdiff.data import GZ2Dataset
from galdiff.data.votes import detect_format, read_votes, vote_columns
from galdiff.errors import DataError, GaldiffError
from galdiff.schema.trees import GZ2_TREE, GZ_DECALS_TREE, KAGGLE_ANSWERS
from galdiff.schema.voteformats import VOTE_FORMATS

KAGGLE, DECALS, HART = VOTE_FORMATS["kaggle"], VOTE_FORMATS["decals"], VOTE_FORMATS["hart16"]


def images(folder, names):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(folder / "images" / name)


def votes_of(table, tmp_path, **options):
    count = options.pop("count", None)
    layout, _ = detect_format(table, tmp_path, **options)
    conditions, sums = read_votes(
        table, layout, tmp_path, vote_columns(table, layout, tmp_path, count=count), count=count
    )
    return conditions.values["votes"].double().numpy(), conditions.masks["votes"].numpy(), sums


def path_probabilities(shares):
    """Multiply conditional fractions down the tree of Galaxy Zoo 2, as the challenge did: the oracle of its inverse."""
    reach, cumulative = {"t01_smooth_or_features": 1.0}, {}
    waiting = [q.name for q in GZ2_TREE.questions]
    parents = {q.name: GZ2_TREE.parents(i) for i, q in enumerate(GZ2_TREE.questions)}
    while waiting:
        name = next(n for n in waiting if all(GZ2_TREE.answers[a].name in cumulative for a in parents[n]))
        waiting.remove(name)
        if parents[name]:
            reach[name] = sum(cumulative[GZ2_TREE.answers[a].name] for a in parents[name])
        question = next(q for q in GZ2_TREE.questions if q.name == name)
        for answer in question.answers:
            cumulative[answer.name] = reach[name] * shares[answer.name]
    return reach, cumulative


class TestTrees:
    @pytest.mark.parametrize("tree", [GZ2_TREE, GZ_DECALS_TREE])
    def test_every_question_is_reached_and_every_answer_leads_somewhere_known(self, tree):
        names = {q.name for q in tree.questions}
        assert {a.leads_to for a in tree.answers} - {None} == names - {tree.questions[0].name}
        assert len({a.alias for a in tree.answers}) == len(tree.answers)
        for alias in (a.alias for a in tree.answers):
            assert tree.answers[tree.find(alias)[1]].alias == alias

    def test_the_decals_tree_is_the_published_one(self):
        assert len(GZ_DECALS_TREE.questions) == 10
        assert len(GZ_DECALS_TREE.answers) == 34
        of = {
            q.name: [GZ_DECALS_TREE.answers[a].name for a in GZ_DECALS_TREE.parents(i)]
            for i, q in enumerate(GZ_DECALS_TREE.questions)
        }
        assert of["how-rounded"] == ["smooth-or-featured_smooth"]
        assert of["disk-edge-on"] == ["smooth-or-featured_featured-or-disk"]
        assert of["bar"] == ["disk-edge-on_no"]
        assert of["has-spiral-arms"] == ["bar_strong", "bar_weak", "bar_no"]
        assert of["spiral-winding"] == ["has-spiral-arms_yes"]
        assert "smooth-or-featured_artifact" not in of["merging"]
        assert len(of["merging"]) == 5 + 3 + 3

    def test_the_classes_of_the_challenge_are_the_tasks_of_galaxy_zoo_2(self):
        assert len(KAGGLE_ANSWERS) == 37
        for column, answer in {
            "Class1.1": "t01_smooth_or_features_a01_smooth",
            "Class1.3": "t01_smooth_or_features_a03_star_or_artifact",
            "Class4.1": "t04_spiral_a08_spiral",
            "Class6.1": "t06_odd_a14_yes",
            "Class8.7": "t08_odd_feature_a38_dust_lane",
            "Class11.6": "t11_arms_number_a37_cant_tell",
        }.items():
            assert KAGGLE_ANSWERS[column] == answer


class TestDetection:
    @pytest.mark.parametrize("name", VOTE_FORMATS)
    @pytest.mark.parametrize("kind", ["first", "last"])
    def test_every_format_is_told_by_its_columns(self, name, kind, tmp_path):
        layout = VOTE_FORMATS[name]
        suffix = list(layout.fractions.values())[0 if kind == "first" else -1]
        for key in layout.ids:
            table = pd.DataFrame(columns=[key, *(stem + suffix for stem in layout.stems)])
            assert detect_format(table, tmp_path) == (layout, key)
            assert detect_format(table, tmp_path, name=name) == (layout, key)

    def test_what_was_looked_for_is_said_once(self, tmp_path):
        with pytest.raises(DataError, match="no table of votes of a known format") as caught:
            detect_format(pd.DataFrame(columns=["name", "spiral"]), tmp_path)
        for text in ("it has name, spiral", *VOTE_FORMATS, "dr7objid", "GalaxyID", "Class1.1", "iauname"):
            assert text in caught.value.remedy

    def test_a_declared_format_is_not_guessed(self, tmp_path):
        table = pd.DataFrame(columns=["GalaxyID", *KAGGLE.stems])
        with pytest.raises(DataError, match="no decals table"):
            detect_format(table, tmp_path, name="decals")
        with pytest.raises(DataError, match="unknown table_format") as caught:
            detect_format(table, tmp_path, name="kagle")
        assert "kaggle" in caught.value.remedy
        with pytest.raises(DataError, match="no column 'GalaxiID'") as caught:
            detect_format(table, tmp_path, id="GalaxiID")
        assert "GalaxyID" in caught.value.remedy


class TestKaggle:
    @given(st.integers(0, 2**32 - 1))
    def test_path_probabilities_become_conditional_fractions_and_reach(self, tmp_path, seed):
        random = np.random.default_rng(seed)
        rows, expected, reached = [], [], []
        for _ in range(3):
            shares = {}
            for question in GZ2_TREE.questions:
                # Sharp fractions, some of them exactly 0 or 1, so that whole branches are not reached.
                p = np.round(random.dirichlet(np.full(len(question.answers), 0.3)), 1)
                p = p / p.sum() if p.sum() > 0 else np.eye(len(p))[0]
                shares |= {a.name: x for a, x in zip(question.answers, p, strict=True)}
            reach, cumulative = path_probabilities(shares)
            rows.append({column: cumulative[answer] for column, answer in KAGGLE_ANSWERS.items()})
            reached.append([reach[q.name] > 0 for q in GZ2_TREE.questions])
            expected.append([40 * cumulative[a.name] for a in GZ2_TREE.answers])
        table = pd.DataFrame(rows).assign(GalaxyID=np.arange(3))
        values, masks, _ = votes_of(table, tmp_path, count=40)
        assert np.array_equal(masks, reached)
        np.testing.assert_allclose(values, expected, atol=1e-4)

    def test_odd_is_normalised_in_the_table_and_reached_by_all_but_artifacts(self, tmp_path):
        table = pd.DataFrame([dict.fromkeys(KAGGLE.stems, 0.0)] * 2).assign(GalaxyID=[1, 2])
        table["Class1.1"], table["Class1.3"] = [0.5, 0.0], [0.5, 1.0]
        table["Class7.1"] = [0.5, 0.0]
        table["Class6.1"], table["Class6.2"] = 0.25, 0.75
        values, masks, _ = votes_of(table, tmp_path, count=40)
        odd = GZ2_TREE.answer_slice(5)
        np.testing.assert_allclose(values[:, odd], [[5, 15], [0, 0]], atol=1e-5)
        assert masks[:, 5].tolist() == [True, False]

    def test_a_lacking_answer_of_the_first_question_is_the_rest(self, tmp_path):
        table = pd.DataFrame({"GalaxyID": [1, 2], "Class1.1": [0.3, 0.4], "Class1.2": [0.6, np.nan]})
        values, masks, _ = votes_of(table, tmp_path, count=40)
        np.testing.assert_allclose(values[0, :3], [12, 24, 4], atol=1e-5)
        assert masks[:, 0].tolist() == [True, False]
        assert not masks[:, 1:].any()

    def test_volunteers_question_by_question(self, tmp_path):
        table = pd.DataFrame([dict.fromkeys(KAGGLE.stems, 0.5)]).assign(GalaxyID=[1])
        _, masks, _ = votes_of(table, tmp_path, count={"t01_smooth_or_features": 40})
        assert masks.sum() == 1
        with pytest.raises(DataError, match="no question") as caught:
            votes_of(table, tmp_path, count={"t01_smooth_or_feature": 40})
        assert "t01_smooth_or_features" in caught.value.remedy
        with pytest.raises(DataError, match="no counts") as caught:
            votes_of(table, tmp_path)
        assert "volunteers an object" in caught.value.remedy


class TestDecals:
    def rows(self, random, n=4, release=""):
        counts = random.integers(0, 20, (n, len(GZ_DECALS_TREE.answers)))
        layout = VOTE_FORMATS["decals" + release.replace("-", "_")]
        table = pd.DataFrame(counts, columns=list(layout.stems)).assign(id_str=[f"J{i}.5+0" for i in range(n)])
        return layout, counts, table

    @pytest.mark.parametrize("release", ["", "-dr5", "-dr8"])
    def test_counts_are_votes(self, tmp_path, release):
        layout, counts, table = self.rows(np.random.default_rng(0), release=release)
        assert f"bar{release}_strong" in table
        values, masks, _ = votes_of(table, tmp_path)
        np.testing.assert_allclose(values, counts, rtol=1e-6)
        for q in range(len(layout.tree.questions)):
            assert np.array_equal(masks[:, q], counts[:, layout.tree.answer_slice(q)].sum(1) > 0)

    def test_fractions_with_totals_are_the_same_votes(self, tmp_path):
        layout, counts, table = self.rows(np.random.default_rng(1))
        expected, masks, _ = votes_of(table, tmp_path)
        fractions = {"id_str": table["id_str"]}
        for q, question in enumerate(layout.tree.questions):
            span = layout.tree.answer_slice(q)
            total = counts[:, span].sum(1)
            fractions[f"{question.name}_total-votes"] = total
            for a in range(span.start, span.stop):
                with np.errstate(invalid="ignore"):
                    fractions[f"{layout.stems[a]}_fraction"] = counts[:, a] / total
        values, same, _ = votes_of(pd.DataFrame(fractions), tmp_path)
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        assert np.array_equal(masks, same)

    def test_questions_that_the_table_lacks_are_masked(self, tmp_path):
        """The published subset of rings: one answer of three, and one of two questions of two."""
        table = pd.DataFrame(
            {
                "id_str": ["a", "b"],
                "smooth-or-featured_featured-or-disk_fraction": [0.6, 0.7],
                "disk-edge-on_no_fraction": [0.9, 0.8],
                "has-spiral-arms_no_fraction": [0.75, 1.0],
            }
        )
        values, masks, _ = votes_of(table, tmp_path, count={"disk-edge-on": 10, "has-spiral-arms": 8})
        assert masks[0].nonzero()[0].tolist() == [1, 2]
        np.testing.assert_allclose(values[0, [3, 4, 5, 6]], [1, 9, 2, 6], atol=1e-5)


class TestGalaxyZoo2:
    def test_plain_fractions_may_come_from_counts_alone(self, tmp_path):
        counts = np.random.default_rng(0).integers(0, 9, (3, 37))
        table = pd.DataFrame(counts, columns=[f"{stem}_count" for stem in HART.stems]).assign(dr7objid=[1, 2, 3])
        layout, _ = detect_format(table, tmp_path)
        found = vote_columns(table, layout, tmp_path, kind="fraction")
        conditions, _ = read_votes(table, layout, tmp_path, found)
        np.testing.assert_allclose(conditions.values["votes"], counts, rtol=1e-6)
        with pytest.raises(DataError, match="no 'debiased' votes"):
            vote_columns(table, layout, tmp_path, kind="debiased")
        with pytest.raises(DataError, match="has no 'best' votes") as caught:
            vote_columns(table, layout, tmp_path, kind="best")
        assert caught.value.remedy == "Known: debiased, weighted, fraction"

    def test_own_columns_that_leave_answers_out(self, tmp_path):
        table = pd.DataFrame({"dr7objid": [1], "p": [0.5]})
        with pytest.raises(DataError, match="leaves answers of 't01_smooth_or_features' out"):
            vote_columns(table, HART, tmp_path, columns={"smooth": "p"}, count=40)
        with pytest.raises(GaldiffError, match="not an answer"):
            vote_columns(table, HART, tmp_path, columns={"smoth": "p"}, count=40)


class TestDataset:
    @pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "fits"])
    def test_any_kind_of_file_is_the_same_data(self, tmp_path, suffix):
        ids = np.array([587_722_952_767_439_450, 587_722_952_767_439_451])
        table = pd.DataFrame({f"{s}_fraction": [0.25, 0.5] for s in HART.stems})
        table = table.assign(objid=ids, sample=["original", "extra"])
        name = f"votes.{suffix}"
        if suffix == "parquet":
            table.to_parquet(tmp_path / name)
        elif suffix == "fits":
            Table.from_pandas(table).write(tmp_path / name)
        else:
            table.to_csv(tmp_path / name, index=False)
        images(tmp_path, [f"{i}.png" for i in ids])
        data = GZ2Dataset(tmp_path, table=name, votes="fraction", count=10, size=None)
        assert data.ids.dtype == np.int64
        assert data.ids.tolist() == ids.tolist()
        assert data.fingerprint()["format"] == "willett13"
        np.testing.assert_allclose(data.conditions.values["votes"][:, :3], 10 / 3, rtol=1e-6)
        kept = GZ2Dataset(
            tmp_path,
            table=name,
            votes="fraction",
            count=10,
            where="t04_spiral_a08_spiral_fraction > 0.3 and sample == 'extra'",
        )
        assert kept.ids.tolist() == ids[1:].tolist()

    def test_the_mapping_takes_an_objects_first_image_that_is_there(self, tmp_path):
        table = pd.DataFrame({f"{s}_debiased": [0.5] for s in HART.stems}).assign(dr7objid=[7])
        table.to_csv(tmp_path / "gz2_hart16.csv", index=False)
        (tmp_path / "gz2_filename_mapping.csv").write_text("objid,asset_id\n7,1\n7,2\n7,3\n")
        images(tmp_path, ["2.jpg", "3.jpg"])
        data = GZ2Dataset(tmp_path, count=10)
        assert len(data) == 1
        assert data.source(0).name == "2.jpg"
        assert data.skipped == [("1 images", "no votes in the table")]

    def test_a_table_keyed_by_asset_ids_needs_no_mapping(self, tmp_path):
        table = pd.DataFrame({f"{s}_debiased": [0.5] for s in HART.stems}).assign(dr7objid=[7], asset_id=["12.jpg"])
        table.to_csv(tmp_path / "gz2_hart16.csv", index=False)
        images(tmp_path, ["12.jpg"])
        data = GZ2Dataset(tmp_path, count=10, id="asset_id")
        assert data.ids.tolist() == [12]
        assert torch.equal(data.conditions.masks["votes"], torch.ones(1, 11, dtype=torch.bool))
        json.dumps(data.fingerprint())
        images(tmp_path, ["900000.jpg"])
        with pytest.raises(DataError, match=r"'900000\.jpg' .* cannot be called by its asset_id"):
            GZ2Dataset(tmp_path, count=10, id="asset_id")

"""Oddities of real tables, ids, votes and arrays, one test each, by the numbers of the list that the project keeps."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from galdiff.data import DeepLenseDataset, GZ2Dataset, ImageFolderDataset
from galdiff.data.tables import id_column, read_table
from galdiff.errors import DataError
from galdiff.schema.voteformats import VOTE_FORMATS

BIG = 588_017_605_211_390_138  # above 2^53, and not a multiple of the distance of doubles there
IDS = [BIG, BIG + 1, BIG + 3]


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def votes(name, ids, **columns):
    layout = VOTE_FORMATS[name]
    suffix = next(iter(layout.fractions.values()))
    n = len(ids)
    table = {layout.ids[0]: ids}
    for q, question in enumerate(layout.tree.questions):
        span = layout.tree.answer_slice(q)
        for a in range(span.start, span.stop):
            table[layout.stems[a] + suffix] = np.full(n, 1 / len(question.answers))
            if layout.count is not None:
                table[layout.stems[a] + layout.count] = np.full(n, 6)
    return pd.DataFrame(table | columns)


def hart16(folder, ids, mapping=None, **columns):
    votes("hart16", ids, **columns).to_csv(folder / "gz2_hart16.csv", index=False)
    if mapping is not None:
        text = "".join(f"{objid},original,{asset}\n" for objid, asset in mapping.items())
        (folder / "gz2_filename_mapping.csv").write_text("objid,sample,asset_id\n" + text)


def kaggle(folder, ids):
    votes("kaggle", ids).to_csv(folder / "training_solutions_rev1.csv", index=False)


def test_oddity_1_ids_without_votes_and_votes_without_images_are_listed(tmp_path):
    hart16(tmp_path, IDS, {IDS[0]: 1, IDS[1]: 2, IDS[2]: 3})
    image(tmp_path / "images" / "2.jpg")
    image(tmp_path / "images" / "9.jpg")
    data = GZ2Dataset(tmp_path)
    assert data.ids.tolist() == [IDS[1]]
    assert data.skipped == [("1", "no image"), ("3", "no image"), ("1 images", "no votes in the table")]
    assert [problem.partition(":")[0] for problem in data.check()] == ["1", "3", "1 images"]


def test_oddity_1_images_none_of_which_has_votes_are_an_error(tmp_path):
    kaggle(tmp_path, [100_008, 100_023])
    image(tmp_path / "images" / "100018.jpg")
    with pytest.raises(DataError, match="no row of training_solutions_rev1"):
        GZ2Dataset(tmp_path, count=40)


@pytest.mark.parametrize("key", ["dr7objid", "objid"])
def test_oddity_2_objids_beyond_2_to_53_survive(tmp_path, key):
    assert len({float(i) for i in IDS}) == 1  # what a floating-point number makes of them
    votes("hart16", IDS).rename(columns={"dr7objid": key}).to_csv(tmp_path / "gz2_hart16.csv", index=False)
    for i in IDS:
        image(tmp_path / "images" / f"{i}.jpg", i % 7)
    data = GZ2Dataset(tmp_path, size=None)
    assert data.ids.dtype == np.int64
    assert data.ids.tolist() == data.table[key].tolist() == IDS
    assert [data[i]["id"] for i in range(3)] == IDS


def test_oddity_2_objids_that_became_floating_point_numbers_are_refused(tmp_path):
    frame = votes("hart16", np.array(IDS[:1], float))
    frame.to_csv(tmp_path / "gz2_hart16.csv", index=False, float_format="%.6e")
    image(tmp_path / "images" / "1.jpg")
    with pytest.raises(DataError, match="column 'dr7objid' holds floating-point numbers"):
        GZ2Dataset(tmp_path)
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="floating-point"):
        GZ2Dataset(tmp_path, table="a.parquet")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("kaggle", "GalaxyID"),
        ("willett13", "objid"),
        ("hart16", "dr7objid"),
        ("decals", "id_str"),
        ("willett13", "OBJID"),
    ],
)
def test_oddity_3_every_name_of_the_key_is_known(tmp_path, name, key):
    frame = votes(name, [123_456, 123_457]).rename(columns={VOTE_FORMATS[name].ids[0]: key})
    frame.to_csv(tmp_path / "votes.csv", index=False)
    image(tmp_path / "images" / "123457.jpg")
    data = GZ2Dataset(tmp_path, table="votes.csv", count=40)
    assert data.ids.tolist() == [123_457]
    assert data.fingerprint()["id"] == key


def test_oddity_3_an_undeclared_key_is_asked_for(tmp_path):
    frame = votes("kaggle", [123_456]).rename(columns={"GalaxyID": "galaxyID"})
    frame.to_csv(tmp_path / "votes.csv", index=False)
    image(tmp_path / "images" / "123456.jpg")
    with pytest.raises(DataError, match="no table of votes") as caught:
        GZ2Dataset(tmp_path, table="votes.csv", count=40)
    assert "'id'" in caught.value.remedy
    assert GZ2Dataset(tmp_path, table="votes.csv", count=40, id="galaxyID").ids.tolist() == [123_456]


class TestOddity3LookAlikeIds:
    """Both a GalaxyID and an asset_id call a file 100008.jpg; a join across the two is an error, not a wrong label."""

    def test_a_kaggle_table_refuses_a_mapping_beside_it(self, tmp_path):
        kaggle(tmp_path, [100_008])
        image(tmp_path / "images" / "100008.jpg")
        assert GZ2Dataset(tmp_path, count=40).ids.tolist() == [100_008]
        (tmp_path / "gz2_filename_mapping.csv").write_text("objid,sample,asset_id\n1,original,100008\n")
        for mapping in (None, "gz2_filename_mapping.csv"):
            with pytest.raises(DataError, match="the table's ids are GalaxyIDs") as caught:
                GZ2Dataset(tmp_path, count=40, mapping=mapping)
            assert "look alike" in caught.value.remedy

    def test_a_kaggle_table_refuses_the_images_of_galaxy_zoo_2(self, tmp_path):
        kaggle(tmp_path, [100_008, 100_023])
        for name in ("17", "100008", "100023"):
            image(tmp_path / "images" / f"{name}.jpg")
        with pytest.raises(DataError, match=r"'17\.jpg' .* cannot be called by its GalaxyID") as caught:
            GZ2Dataset(tmp_path, count=40)
        assert "look alike" in caught.value.remedy

    def test_another_name_of_the_key_does_not_hide_it(self, tmp_path):
        frame = votes("kaggle", [100_008]).rename(columns={"GalaxyID": "asset_id"})
        frame.to_csv(tmp_path / "votes.csv", index=False)
        image(tmp_path / "images" / "100008.jpg")
        image(tmp_path / "images" / "17.jpg")
        with pytest.raises(DataError, match="cannot be called by its GalaxyID"):
            GZ2Dataset(tmp_path, table="votes.csv", id="asset_id", count=40)

    def test_a_mapping_refuses_the_images_of_the_challenge(self, tmp_path):
        hart16(tmp_path, IDS, dict(zip(IDS, (100_008, 100_023, 3), strict=True)))
        for name in ("100008", "100023", "999948"):
            image(tmp_path / "images" / f"{name}.jpg")
        with pytest.raises(DataError, match=r"'999948\.jpg' .* cannot be called by its asset_id"):
            GZ2Dataset(tmp_path)

    def test_own_mappings_may_have_any_number(self, tmp_path):
        hart16(tmp_path, IDS[:1], {IDS[0]: 4_000_000})
        image(tmp_path / "images" / "4000000.jpg")
        assert GZ2Dataset(tmp_path).ids.tolist() == IDS[:1]

    def test_without_the_mapping_assets_do_not_join(self, tmp_path):
        hart16(tmp_path, IDS)
        image(tmp_path / "images" / "100008.jpg")
        with pytest.raises(DataError, match="no row") as caught:
            GZ2Dataset(tmp_path)
        assert "look alike" in caught.value.remedy


@pytest.mark.parametrize("written", ["100008", "100008.jpg", "images_training_rev1/100008.jpg", " 100008.PNG "])
@pytest.mark.parametrize("file", ["100008.jpg", "100008.jpeg", "100008.png", "100008.JPG"])
def test_oddity_4_suffixes_in_ids_and_of_files_need_not_agree(tmp_path, written, file):
    kaggle(tmp_path, [written])
    image(tmp_path / "images" / file)
    data = GZ2Dataset(tmp_path, count=40)
    assert data.ids.tolist() == [100_008]
    assert data.ids.dtype == np.int64


def test_oddity_4_names_with_dots_are_not_cut(tmp_path):
    names = ["J132200.16+005202.0", "J132200.16-005202.0", "J132200.16+005202.1"]
    frame = votes("decals", names).rename(columns={"iauname": "id_str"})
    frame["file_loc"] = [f"data/example_images/basic/{name}.jpg" for name in names]
    frame.to_csv(tmp_path / "votes.csv", index=False)
    for k, name in enumerate(names):
        image(tmp_path / "images" / f"{name}.png", 50 * k)
    for key in (None, "file_loc"):  # which says .jpg where the files are .png
        data = GZ2Dataset(tmp_path, table="votes.csv", id=key, size=None)
        assert data.ids.tolist() == names
        assert [round(255 * float(data.read(i).max())) for i in range(3)] == [0, 50, 100]
    folder = ImageFolderDataset(tmp_path, table="votes.csv", id="id_str", images="images", size=None)
    assert folder.ids.tolist() == names


def test_oddity_6_debiased_fractions_are_normalised_and_their_sum_kept(tmp_path):
    stems = ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
    debiased = {"a01_smooth": [0.9, 0.3, 0.0], "a02_features_or_disk": [0.5, 0.3, 0.0]}
    debiased["a03_star_or_artifact"] = [0.06, 0.068, 0.0]  # sums 1.46, 0.668, and nobody
    columns = {f"t01_smooth_or_features_{stem}_debiased": debiased[stem] for stem in stems}
    hart16(tmp_path, IDS, **columns)
    for i in IDS:
        image(tmp_path / "images" / f"{i}.jpg")
    data = GZ2Dataset(tmp_path)
    np.testing.assert_allclose(data.table["t01_smooth_or_features_sum"], [1.46, 0.668, 0], atol=1e-12)
    first = data.conditions.values["votes"][:, :3].numpy()
    np.testing.assert_allclose(first.sum(axis=1), [18, 18, 0], rtol=1e-6)
    np.testing.assert_allclose(first[0] / 18, np.array([0.9, 0.5, 0.06]) / 1.46, rtol=1e-6)
    assert data.conditions.masks["votes"][:, 0].tolist() == [True, True, False]


def test_oddity_6_rounded_fractions_are_not_outside(tmp_path):
    hart16(tmp_path, IDS[:1], t02_edgeon_a04_yes_debiased=1.0000004, t02_edgeon_a05_no_debiased=0.0)
    image(tmp_path / "images" / f"{IDS[0]}.jpg")
    data = GZ2Dataset(tmp_path, on_bad="fail")
    np.testing.assert_allclose(data.conditions.values["votes"][0, 3:5], [12, 0], rtol=1e-6)


LENS = np.random.default_rng(0).gamma(2.0, 30.0, (8, 8))


@pytest.mark.parametrize(
    ("array", "bands"),
    [
        (LENS.astype(np.int64), 1),
        (LENS.astype("<f4"), 1),
        (LENS.astype(">f8"), 1),
        (LENS[None], 1),
        (LENS[None, None], 1),
        (LENS[..., None], 1),
        (LENS[:, None], 1),
        (LENS[None, ..., None], 1),
        (np.stack([LENS, 2 * LENS, 3 * LENS]), 3),
        (np.stack([LENS, 2 * LENS, 3 * LENS], axis=-1), 3),
        (np.stack([LENS, 2 * LENS, 3 * LENS], axis=-1)[None], 3),
        (np.stack([LENS, 2 * LENS, 3 * LENS])[:, None], 3),
    ],
)
def test_oddity_8_types_ranks_and_orders_of_arrays(tmp_path, array, bands):
    (tmp_path / "cdm").mkdir()
    np.save(tmp_path / "cdm" / "1.npy", array)
    data = DeepLenseDataset(tmp_path)
    expected = np.floor(LENS) if array.dtype.kind == "i" else LENS
    np.testing.assert_allclose(data.read(0), np.stack([k * expected for k in range(1, bands + 1)]), rtol=1e-6)


def test_oddity_8_nothing_is_scaled_file_by_file_unless_asked(tmp_path):
    (tmp_path / "cdm").mkdir()
    for k in (1, 100):
        np.save(tmp_path / "cdm" / f"{k}.npy", k * LENS)
    data = DeepLenseDataset(tmp_path)
    fluxes = sorted(float(data.read(i).sum()) for i in range(2))
    assert fluxes[1] / fluxes[0] == pytest.approx(100)
    assert data.unit == "count"
    scaled = DeepLenseDataset(tmp_path, normalize="minmax")
    np.testing.assert_allclose(scaled.read(0), scaled.read(1), atol=1e-6)  # the flux is gone
    assert (scaled.read(0).min(), scaled.read(0).max()) == (0, 1)
    assert scaled.unit == "relative"
    assert scaled.fingerprint() != data.fingerprint()


@pytest.mark.parametrize(
    ("spelled", "label"),
    [
        *(("no_sub", "no_sub"), ("nosub", "no_sub"), ("no", "no_sub"), ("NO_SUB", "no_sub")),
        *(("cdm", "cdm"), ("sphere", "cdm"), ("CDM", "cdm")),
        *(("axion", "axion"), ("vort", "axion"), ("vortex", "axion")),
    ],
)
@pytest.mark.parametrize("layout", ["{}/1.npy", "train/{}/1.npy", "a/{}/b/1.npy", "{}_sim_123.npy", "ml4sci_x_{}.npy"])
def test_oddity_9_every_spelling_of_a_class(tmp_path, spelled, label, layout):
    path = tmp_path / layout.format(spelled)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, LENS)
    assert DeepLenseDataset(tmp_path).table["class"].tolist() == [label]


def test_oddity_2_a_table_of_ids_alone(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("objid\n" + "\n".join(map(str, IDS)))
    assert id_column(read_table(path, ids=("objid",)), "objid", path).tolist() == IDS

"""Splits by place and by column, and rows that are there twice."""

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from galdiff.data import ImageFolderDataset, split_rows
from galdiff.data.duplicates import find_duplicates
from galdiff.data.sky import close_pairs, nearest, sky_positions
from galdiff.data.splits import near_held_out, sky_cells, split_by_column
from galdiff.errors import DataError


def scattered(n, seed=0, width=20.0):
    """Return positions around a pole and across the meridian, where flat geometry fails."""
    draw = np.random.default_rng(seed)
    half = n // 2
    polar = np.stack([360 * draw.random(half), 90 - width * np.sqrt(draw.random(half)) / 4], axis=1)
    meridian = np.stack([(width * (draw.random(n - half) - 0.5)) % 360, width * (draw.random(n - half) - 0.5)], axis=1)
    return np.concatenate([polar, meridian])


def separations(a, b):
    one, other = (SkyCoord(*p.T, unit="deg") for p in (a, b))
    return one[:, None].separation(other[None]).to_value(units.arcsec)


class TestNeighbors:
    @pytest.mark.parametrize("limit", [100.0, 3000.0, 40_000.0])
    def test_they_are_those_of_astropy(self, limit):
        a, b = scattered(120), scattered(150, seed=1)
        distances = separations(a, b)
        expected = np.where(distances.min(axis=1) <= limit, distances.argmin(axis=1), -1)
        assert np.array_equal(nearest(a, b, limit), expected)
        among = separations(a, a) + 1e9 * np.eye(len(a))
        expected = {tuple(sorted((i, int(among[i].argmin())))) for i in np.flatnonzero(among.min(axis=1) <= limit)}
        assert {tuple(sorted(pair)) for pair in close_pairs(a, limit).tolist()} == expected

    def test_the_same_place_and_unknown_places(self):
        places = np.array([[10.0, 5.0], [np.nan, np.nan], [10.0, 5.0], [200.0, -5.0], [200.0, -5.0 + 0.9 / 3600]])
        assert close_pairs(places, 1.0).tolist() == [[2, 0], [4, 3]]
        assert nearest(places, places[1:], 1.0).tolist() == [1, -1, 1, 2, 3]
        assert nearest(places, places[1:2], 1.0).tolist() == [-1] * 5
        assert nearest(places[:0], places, 1.0).tolist() == []
        assert close_pairs(places[:0], 1.0).shape == (0, 2)

    def test_a_place_that_stands_for_unknown_costs_nothing(self):
        places = np.zeros((50_000, 2))
        assert np.array_equal(close_pairs(places, 1.0), [[i, 0] for i in range(1, 50_000)])
        assert nearest(places, places, 1.0).max() == 0

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"RA": [1.0], "x": [0.0]}, "no columns 'ra' and 'dec'"),
            ({"RA": [400.0], "DEC": [0.0]}, r"\(400, 0\)"),
            ({"RA": [4.0], "DEC": [-91.0]}, r"\(4, -91\)"),
            ({"RA": ["01:02:03"], "DEC": ["+04:05:06"]}, "do not hold degrees"),
        ],
    )
    def test_columns_that_are_no_positions(self, table, words):
        with pytest.raises(DataError, match=words):
            sky_positions(pd.DataFrame(table))

    def test_columns_in_any_case_or_named(self):
        table = pd.DataFrame({"Ra": [1.0], "DEC": [2.0], "l": [3.0], "b": [4.0]})
        assert sky_positions(table).tolist() == [[1, 2]]
        assert sky_positions(table, "l", "b").tolist() == [[3, 4]]


def by_sky(positions, **more):
    table = pd.DataFrame(positions, columns=["RA", "Dec"])
    return split_rows(
        np.arange(len(table)), table, by="sky", **{"train": 0.5, "validation": 0.25, "test": 0.25, **more}
    )


class TestSkySplit:
    def test_rows_of_a_cell_stay_together_and_ids_do_not_matter(self):
        positions = scattered(2000)
        split, cells = by_sky(positions), sky_cells(positions, 1.0)
        assert pd.DataFrame({"cell": cells, "split": split}).groupby("cell")["split"].nunique().max() == 1
        assert set(split) == {"train", "validation", "test"}

    def test_no_row_moves_when_others_come_or_go(self):
        positions = scattered(400)
        assert np.array_equal(by_sky(positions)[100:300], by_sky(positions[100:300]))

    @pytest.mark.parametrize(("cell", "nside"), [(58.6, 1), (1.0, 64), (0.9, 64), (0.25, 256)])
    def test_cells_are_the_nested_pixels_of_healpix_of_about_the_side(self, cell, nside):
        from astropy_healpix import HEALPix

        positions = scattered(300)
        grid = HEALPix(nside, order="nested")
        expected = grid.lonlat_to_healpix(*(positions.T * units.deg))
        assert np.array_equal(sky_cells(positions, cell), expected)
        assert grid.pixel_resolution.to_value(units.deg) == pytest.approx(cell, rel=0.1)

    @pytest.mark.parametrize("separation", [300.0, 1200.0])
    def test_no_training_row_is_closer_to_a_held_out_one_than_stated(self, separation):
        positions = scattered(1500)
        before, after = by_sky(positions), by_sky(positions, separation=separation)
        held_out = np.isin(before, ["validation", "test"])
        assert np.array_equal(after[held_out], before[held_out])
        close = (separations(positions, positions[held_out]) <= separation).any(axis=1)
        assert np.array_equal(after == "dropped", close & (before == "train"))
        assert (after == "dropped").any()
        assert np.array_equal(near_held_out(positions, before, separation), after == "dropped")

    def test_separation_goes_with_any_split(self):
        positions = scattered(500)
        table = pd.DataFrame(positions, columns=["ra", "dec"])
        split = split_rows(np.arange(500), table, separation=1200.0)
        assert (split == "dropped").any()

    def test_a_row_without_a_place(self):
        with pytest.raises(DataError, match="1 rows have no place on the sky, the first is 1"):
            by_sky(np.array([[1.0, 2.0], [np.nan, 2.0]]))


class TestColumnSplit:
    def test_spellings(self):
        values = pd.Series(["train", " Val", "TEST", "validation", "training"])
        assert split_by_column(np.arange(5), values).tolist() == ["train", "validation", "test", "validation", "train"]

    @pytest.mark.parametrize("value", ["trian", None, 3, float("nan")])
    def test_anything_else_is_named_with_its_object(self, value):
        table = pd.DataFrame({"fold": ["train", value]})
        with pytest.raises(DataError, match=r"object 8: '.*' in column 'fold' is no split"):
            split_rows(np.array([7, 8]), table, by="column", column="fold")

    def test_a_missing_column(self):
        with pytest.raises(DataError, match="no column 'split'"):
            split_rows(np.arange(2), pd.DataFrame({"fold": ["train", "val"]}), by="column")
        with pytest.raises(DataError, match="nothing splits by 'moon'"):
            split_rows(np.arange(2), pd.DataFrame(), by="moon")


@pytest.fixture
def stamps(tmp_path):
    """Twelve images, of which some are the same file, and some at the same place."""
    draw = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png", compress_level=0)
    for copy, original in ((7, 1), (9, 1), (3, 2)):
        (tmp_path / f"{copy}.png").write_bytes((tmp_path / f"{original}.png").read_bytes())
    ra = np.arange(12.0)
    ra[10], ra[11] = ra[0] + 0.5 / 3600, ra[4]
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    pd.DataFrame({"id": np.arange(12), "ra": ra, "dec": 0.0, "split": splits}).to_csv(tmp_path / "t.csv", index=False)
    return ImageFolderDataset(tmp_path, table="t.csv", size=8)


def pairs(found):
    return {(d.by, kind, *map(int, pair)) for d in found for kind in ("leaks", "others") for pair in getattr(d, kind)}


class TestDuplicates:
    def test_leaks_and_harmless_twins_are_told_apart(self, stamps):
        split = split_by_column(stamps.ids, stamps.table["split"])
        found = find_duplicates(stamps, split)
        assert pairs(found) == {
            ("content", "leaks", 7, 1),
            ("content", "leaks", 9, 1),
            ("content", "others", 3, 2),
            ("place on the sky", "leaks", 10, 0),
            ("place on the sky", "leaks", 11, 4),
        }
        content = next(d for d in found if d.by == "content")
        assert content.describe(content.leaks, stamps.ids, split) == "7 (validation) = 1 (train), 9 (test) = 1 (train)"

    def test_rows_that_are_used_nowhere_leak_nothing(self, stamps):
        split = split_by_column(stamps.ids, stamps.table["split"]).astype(object)
        split[[0, 1, 2, 4]] = "dropped"
        assert pairs(find_duplicates(stamps, split.astype(str))) == {("content", "others", 9, 7)}

    def test_rows_without_files_are_compared_by_their_pixels(self, stamps, monkeypatch):
        load = ImageFolderDataset.load
        pixels = [load(stamps, i) for i in range(len(stamps))]
        monkeypatch.setattr(ImageFolderDataset, "load", lambda self, i: pixels[i])
        monkeypatch.setattr(ImageFolderDataset, "source", lambda self, i: None)
        split = np.full(12, "train")
        assert pairs(find_duplicates(stamps, split)) >= {("content", "others", 7, 1), ("content", "others", 3, 2)}

    def test_ids_that_are_there_twice(self, stamps):
        stamps.ids = np.array([5, 5, *range(10, 20)])
        split = np.array(["test", *["train"] * 11])
        assert ("id", "leaks", 0, 1) in pairs(find_duplicates(stamps, split))

    def test_only_what_can_be_equal_is_hashed(self, stamps, monkeypatch):
        hashed = []
        original = ImageFolderDataset.content_hash
        monkeypatch.setattr(ImageFolderDataset, "content_hash", lambda s, i: hashed.append(i) or original(s, i))
        find_duplicates(stamps, np.full(12, "train"))
        assert sorted(hashed) == [1, 2, 3, 7, 9]

    def test_a_file_that_is_gone_is_nobodys_twin(self, stamps):
        stamps.source(7).unlink()
        split = split_by_column(stamps.ids, stamps.table["split"])
        assert ("content", "leaks", 7, 1) not in pairs(find_duplicates(stamps, split))

    @given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9), st.data())
    def test_every_held_out_row_with_a_trained_twin_is_found(self, keys, data):
        split = np.array([data.draw(st.sampled_from(["train", "validation", "test", "dropped"])) for _ in keys])

        class Rows:
            ids, table = np.array(keys), pd.DataFrame()

            def __len__(self):
                return len(keys)

            def source(self, i):
                return None

            def content_hash(self, i):
                return keys[i]

        for found in find_duplicates(Rows(), split):
            trained = {k for k, s in zip(keys, split, strict=True) if s == "train"}
            expected = [i for i, k in enumerate(keys) if split[i] in ("validation", "test") and k in trained]
            assert sorted(found.leaks[:, 0].tolist()) == expected
            assert all(split[a] != "dropped" and split[b] != "dropped" for a, b in found.others)

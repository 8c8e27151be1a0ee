"""Parsed tables in the cache folder: the same table as the file's, or none."""

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galdiff.data import tablecache, tables
from galdiff.data.tablecache import entry, read_parquet
from galdiff.data.tables import read_table, take_rows
from galdiff.errors import DataError

IDS = [588_017_605_211_390_138 + i for i in range(50)]
FRAME = pd.DataFrame(
    {
        "objid": IDS,
        "Class1.1": np.arange(50) / 64,  # short decimals, which every pandas reads to the last bit
        "count": np.arange(50) * 700,
        "sample": ["original", "extra"] * 25,
        "gap": [None, 2.5] * 25,
        "flag": [True, False] * 25,
    }
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tablecache, "_BYTES", 0)
    return tmp_path / "cache" / "galdiff" / "tables"


@pytest.fixture
def table(tmp_path):
    FRAME.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def unparsed(*_):
    raise AssertionError("parsed again")


def same(table, expected=FRAME):
    assert table["objid"].tolist() == [str(i) for i in expected["objid"]]
    rest = expected.drop(columns="objid")
    pd.testing.assert_frame_equal(table.drop(columns="objid"), rest, check_dtype=False, check_exact=True)


class TestEntries:
    def test_a_table_is_parsed_once_and_the_same_again(self, cache, table, monkeypatch):
        first = read_table(table, ids=("objid",))
        same(first)
        assert [p.name for p in cache.iterdir()] == [entry(table, ("objid",)).name]
        monkeypatch.setattr(tables, "_read_csv", unparsed)
        again = read_table(table, ids=("objid",))
        same(again)
        assert (again.dtypes == first.dtypes).all()

    def test_nothing_is_written_beside_the_data_and_small_tables_are_not_kept(self, cache, table, monkeypatch):
        before = sorted(table.parent.iterdir())
        monkeypatch.setattr(tablecache, "_BYTES", 4 << 20)
        same(read_table(table, ids=("objid",)))
        assert sorted(table.parent.iterdir()) == before

    @pytest.mark.parametrize("change", ["touch", "grow", "other ids"])
    def test_a_change_is_parsed_anew(self, cache, table, change):
        read_table(table, ids=("objid",))
        if change == "grow":
            FRAME[:40].to_csv(table, index=False)
            os.utime(table, ns=(0, 0))
        elif change == "touch":
            text = table.read_text().replace("original", "ORIGINAL")
            table.write_text(text)
            os.utime(table, ns=(1, 10**18 + 1))
        ids = ("objid", "count") if change == "other ids" else ("objid",)
        again = read_table(table, ids=ids)
        assert len(list(cache.iterdir())) == 2
        assert len(again) == (40 if change == "grow" else 50)
        assert again["sample"][0] == ("ORIGINAL" if change == "touch" else "original")
        assert again["count"][1] == ("700" if change == "other ids" else 700)

    @pytest.mark.parametrize("damage", [b"", b"PAR1", b"nothing of the kind" * 9, None])
    def test_a_damaged_entry_is_parsed_again(self, cache, table, damage):
        read_table(table, ids=("objid",))
        place = entry(table, ("objid",))
        whole = place.read_bytes()
        place.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
        same(read_table(table, ids=("objid",)))
        assert place.read_bytes() == whole

    def test_a_folder_that_cannot_be_written_is_no_error(self, cache, table):
        cache.parent.parent.mkdir()
        cache.parent.write_text("a file where the folder would be")
        same(read_table(table, ids=("objid",)))

    def test_a_full_disk_is_no_error_and_leaves_nothing(self, cache, table, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        same(read_table(table, ids=("objid",)))
        assert list(cache.iterdir()) == []

    def test_where_entries_are(self, table, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        for root in ("", "relative/folder"):
            monkeypatch.setenv("XDG_CACHE_HOME", root)
            assert entry(table, ()).parent == tmp_path / ".cache" / "galdiff" / "tables"

    def test_what_is_wrong_with_a_table_is_said_each_time(self, cache, table):
        table.write_text("objid\n1,2,3\n")
        for _ in range(2):
            with pytest.raises(DataError, match="more fields than the 1"):
                read_table(table, ids=("objid",))
        table.write_text("objid\n")
        for _ in range(2):
            with pytest.raises(DataError, match="no rows"):
                read_table(table, ids=("objid",))


class TestParquet:
    def test_an_index_becomes_a_column_unless_it_only_counts(self, tmp_path):
        FRAME.set_index("objid").to_parquet(tmp_path / "a.parquet")
        FRAME[::2].to_parquet(tmp_path / "b.parquet")
        assert read_parquet(tmp_path / "a.parquet")["objid"].tolist() == IDS
        assert list(read_parquet(tmp_path / "b.parquet").columns) == list(FRAME.columns)


class TestBlocks:
    @settings(max_examples=60)
    @given(
        st.lists(st.sampled_from(["1", "2.5", "-3", "", "x", "300", "1e3", "True", "70000"]), min_size=1, max_size=12),
        st.integers(1, 5),
    )
    def test_any_size_of_block_gives_the_same_columns(self, tmp_path, cells, rows):
        path = tmp_path / "table.csv"
        path.write_text("objid,x\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
        with pytest.MonkeyPatch.context() as patch:
            whole = read_table(path, ids=("objid",))
            patch.setattr(tables, "_ROWS", rows)
            blocks = read_table(path, ids=("objid",))
        if {"True"} & set(cells) and len(set(cells)) > 1:
            return  # true beside other words is text or an object: pandas itself is not of one mind
        pd.testing.assert_frame_equal(blocks, whole, check_dtype=False)

    def test_rows_are_moved(self):
        frame = FRAME.copy()
        moved = take_rows(frame, np.array([3, 1]))
        pd.testing.assert_frame_equal(moved, FRAME.iloc[[3, 1]].reset_index(drop=True))
        assert frame.empty

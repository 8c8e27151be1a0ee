"""Tables whose 18-digit ids survive, and splits that never move."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from galdiff.data import split_by_hash
from galdiff.data.tables import find_column, find_table, id_column, read_table, select
from galdiff.errors import DataError

IDS = [587_722_952_767_439_450, 588_848_899_365_601_309, 2**53 + 1, 1]


def ids_of(path):
    return id_column(read_table(path, ids=("objid",)), "objid", path)


class TestIds:
    @pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "fits"])
    def test_18_digits_survive(self, tmp_path, suffix):
        path = tmp_path / f"table.{suffix}"
        frame = pd.DataFrame({"objid": np.array(IDS), "value": [0.5, np.nan, 1.0, 2.0]})
        write = {
            "parquet": lambda: frame.to_parquet(path),
            "fits": lambda: Table.from_pandas(frame).write(path),
        }.get(suffix, lambda: frame.to_csv(path, index=False))
        write()
        ids = ids_of(path)
        assert ids.dtype == np.int64
        assert ids.tolist() == IDS

    @given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8, unique=True))
    def test_any_int64_survives_csv(self, tmp_path, ids):
        path = tmp_path / "table.csv"
        path.write_text("objid\n" + "".join(f"{i}\n" for i in ids))
        assert ids_of(path).tolist() == ids

    @pytest.mark.parametrize("text", ["007", "J132200.16+005202.0", "1e5", "9" * 19, "0x10"])
    def test_what_is_not_a_whole_number_of_64_bits_stays_text(self, tmp_path, text):
        path = tmp_path / "table.csv"
        path.write_text(f"objid\n5\n{text}\n")
        assert ids_of(path).tolist() == ["5", text]

    def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(self, tmp_path):
        path = tmp_path / "table.csv"
        path.write_bytes(b"\xef\xbb\xbfobjid,x\r\n587722952767439450,1\r\n")
        assert ids_of(path).tolist() == IDS[:1]

    def test_floating_point_ids_are_refused(self, tmp_path):
        pd.DataFrame({"objid": np.array(IDS, float)}).to_parquet(tmp_path / "table.parquet")
        with pytest.raises(DataError, match="floating-point"):
            ids_of(tmp_path / "table.parquet")

    @pytest.mark.parametrize(
        ("rows", "message"), [("7\n8\n7\n", "row 4: id 7"), ("7\n\n8\n", None), ("a\nb\na\n", "a")]
    )
    def test_an_id_that_is_there_twice_is_named_with_its_row(self, tmp_path, rows, message):
        path = tmp_path / "table.csv"
        path.write_text("objid\n" + rows)
        if message is None:
            assert ids_of(path).tolist() == [7, 8]  # pandas leaves out empty lines
            return
        with pytest.raises(DataError, match=message) as caught:
            ids_of(path)
        assert caught.value.where == str(path)

    def test_a_row_without_an_id_is_named(self, tmp_path):
        (tmp_path / "table.csv").write_text("objid,x\n7,1\n,2\n")
        with pytest.raises(DataError, match="row 3: no id"):
            ids_of(tmp_path / "table.csv")


class TestTables:
    @pytest.mark.parametrize(
        "content", [b"", b"objid\n", b"\xff\xfe\x00\x01", b'objid,x\n1,"2\n', b"objid\n1,2,3\n1,2\n"]
    )
    def test_what_is_no_table_is_a_named_error(self, tmp_path, content):
        path = tmp_path / "table.csv"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            ids_of(path)
        assert caught.value.where == str(path)

    @pytest.mark.parametrize("suffix", ["parquet", "fits", "csv.gz"])
    def test_a_damaged_binary_table_is_a_named_error(self, tmp_path, suffix):
        path = tmp_path / f"table.{suffix}"
        path.write_bytes(b"not at all")
        with pytest.raises(DataError, match="cannot be read as a table"):
            ids_of(path)

    def test_the_nearest_column_is_suggested(self, tmp_path):
        with pytest.raises(DataError, match="no column 'dr7objid'") as caught:
            find_column(pd.DataFrame({"dr7_objid": [1]}), "dr7objid", tmp_path)
        assert "dr7_objid" in caught.value.remedy

    def test_the_table_is_found_or_asked_for(self, tmp_path):
        with pytest.raises(DataError, match="no table like"):
            find_table(tmp_path, None, ("*hart16*.csv",))
        (tmp_path / "my_hart16_a.csv").touch()
        assert find_table(tmp_path, None, ("*hart16*.csv",)).name == "my_hart16_a.csv"
        (tmp_path / "my_hart16_b.csv").touch()
        with pytest.raises(DataError, match="2 tables"):
            find_table(tmp_path, None, ("*hart16*.csv",))
        with pytest.raises(DataError, match="missing") as caught:
            find_table(tmp_path, "my_hart16_c.csv", ())
        assert "my_hart16" in caught.value.remedy
        with pytest.raises(DataError, match="folder is missing"):
            find_table(tmp_path / "gone", None, ())


class TestSelection:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 0.6, 0.7]})

    def test_it_keeps_rows(self, tmp_path):
        assert select(self.frame, "a > 1 and b < 0.65", tmp_path)["a"].tolist() == [2]
        assert select(self.frame, "a in [1, 3] and not (b > 0.6)", tmp_path)["a"].tolist() == [1]
        assert select(self.frame.rename(columns={"a": "a-b"}), "`a-b` == 3", tmp_path)["b"].tolist() == [0.7]
        assert select(self.frame, None, tmp_path) is self.frame

    @pytest.mark.parametrize("query", ["c > 1", "a >", "a > 5", "a.__class__", "@tmp_path", "a"])
    def test_a_wrong_one_is_named(self, tmp_path, query):
        with pytest.raises(DataError):
            select(self.frame, query, tmp_path)

    @pytest.mark.parametrize(
        "query",
        [
            "__import__('os').system('touch {}')",
            "@pd.io.common.os.system('touch {}')",
            "a.to_csv('{}') is None",
            "a.to_pickle('{}') == 1",
        ],
    )
    def test_it_executes_nothing(self, tmp_path, query):
        sentinel = tmp_path / "executed"
        with pytest.raises(DataError):
            select(self.frame, query.format(sentinel), tmp_path)
        assert not sentinel.exists()


class TestSplits:
    def test_it_is_the_hash_of_the_id(self):
        for i, split in zip(IDS, split_by_hash(np.array(IDS)), strict=True):
            u = int(hashlib.sha256(str(i).encode()).hexdigest()[:16], 16) / 16**16
            assert split == ("train" if u < 0.8 else "validation" if u < 0.9 else "test")

    @given(st.lists(st.integers(0, 2**62), unique=True, min_size=2, max_size=60), st.randoms(use_true_random=False))
    def test_no_row_moves_when_others_come_go_or_are_shuffled(self, ids, random):
        before = dict(zip(ids, split_by_hash(np.array(ids)), strict=True))
        others = [*ids[: len(ids) // 2], *range(2**62, 2**62 + 20)]
        random.shuffle(others)
        after = dict(zip(others, split_by_hash(np.array(others)), strict=True))
        assert all(before[i] == after[i] for i in before.keys() & after.keys())

    @pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0), (0.6, 0.0, 0.4)])
    def test_shares_are_met(self, shares):
        n = 20_000
        split = split_by_hash(587_722_952_767_439_450 + np.arange(n), *shares)
        for name, share in zip(("train", "validation", "test"), shares, strict=True):
            assert abs((split == name).sum() - n * share) <= 4 * np.sqrt(n * share * (1 - share))

    def test_growing_the_training_share_moves_rows_into_it_only(self):
        ids = np.arange(5000)
        small, large = split_by_hash(ids, 0.7, 0.1, 0.2), split_by_hash(ids, 0.8, 0.1, 0.1)
        assert (large[small == "train"] == "train").all()

    def test_numbers_and_their_text_are_the_same_id(self):
        assert np.array_equal(split_by_hash(np.array(IDS)), split_by_hash(np.array(list(map(str, IDS)))))

    @pytest.mark.parametrize("shares", [(0.8, 0.1, 0.2), (1.1, -0.05, -0.05), (0.5, 0.2, 0.2)])
    def test_shares_that_are_none_are_refused(self, shares):
        with pytest.raises(DataError, match="shares"):
            split_by_hash(np.arange(3), *shares)

"""Damaged and hostile tables: what comes out is a table or a `GaldiffError`."""

import gzip
import io

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from galdiff.data import GZ2Dataset
from galdiff.data.tables import id_column, read_table, select
from galdiff.errors import DataError, GaldiffError
from galdiff.schema.voteformats import VOTE_FORMATS

KAGGLE = VOTE_FORMATS["kaggle"]
FRAME = pd.DataFrame({stem: [0.5, 0.25] for stem in KAGGLE.stems}).assign(GalaxyID=[100_008, 100_023])[
    ["GalaxyID", *KAGGLE.stems]
]
CSV = FRAME.to_csv(index=False).encode()


def written(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


FILES = {
    "table.csv": CSV,
    "table.csv.gz": gzip.compress(CSV, mtime=0),
    "table.parquet": written(FRAME.to_parquet),
    "table.fits": written(lambda file: Table.from_pandas(FRAME).write(file, format="fits")),
}


def outcome(path):
    problem = None
    try:
        table = read_table(path, ids=("GalaxyID",))
        column = "GalaxyID" if "GalaxyID" in table.columns else table.columns[0]
        ids = id_column(table, column, path)
    except GaldiffError as error:
        problem = error
    if problem is not None:
        assert problem.where == str(path)
        return
    assert len(ids) == len(table) > 0
    assert ids.dtype.kind in "iU"


@settings(max_examples=150)
@given(st.binary(max_size=200), st.sampled_from(sorted(FILES)))
def test_any_bytes(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    outcome(tmp_path / name)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 255)), max_size=4),
    st.integers(0, 2000),
)
def test_flipped_and_cut_files(tmp_path, name, flips, cut):
    data = bytearray(FILES[name])
    del data[len(data) - cut % (len(data) - 1) :]
    for place, flip in flips:
        data[place % len(data)] ^= flip
    (tmp_path / name).write_bytes(data)
    outcome(tmp_path / name)


CELLS = ["", "nan", "-1", "2", "1e400", "0x1", "inf", "x", "100008", "100008.jpg", '"', "0.5,0.5", "\x00", "½", "\r"]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 37), st.sampled_from(CELLS)), min_size=1, max_size=5))
def test_mutated_votes(tmp_path, changes):
    (tmp_path / "images").mkdir(exist_ok=True)
    for i in (100_008, 100_023):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    rows = [line.split(",") for line in CSV.decode().splitlines()]
    for row, column, cell in changes:
        rows[row][column] = cell
    (tmp_path / "votes.csv").write_text("\n".join(",".join(row) for row in rows))
    try:
        data = GZ2Dataset(tmp_path, table="votes.csv", table_format="kaggle", count=40, size=None)
    except GaldiffError:
        return
    values, masks = data.conditions.values["votes"], data.conditions.masks["votes"]
    assert values.isfinite().all()
    assert (values >= 0).all()
    assert (values.sum(1) <= 40 * 11 + 1e-3).all()
    for q in range(len(KAGGLE.tree.questions)):
        reached = values[:, KAGGLE.tree.answer_slice(q)].sum(1) > 0
        assert not (reached & ~masks[:, q]).any()


@given(st.text(max_size=40))
def test_any_selection(tmp_path, where):
    path = tmp_path / "votes.csv"
    path.write_bytes(CSV)
    try:
        kept = select(read_table(path, ids=("GalaxyID",)), where, path)
    except GaldiffError:
        return
    assert 0 < len(kept) <= 2


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert id_column(read_table(tmp_path / name, ids=("GalaxyID",)), "GalaxyID", tmp_path).tolist() == [
        100_008,
        100_023,
    ]


def test_a_folder_and_a_file_that_is_gone(tmp_path):
    for path in (tmp_path, tmp_path / "gone.csv"):
        with pytest.raises(DataError):
            read_table(path, ids=())

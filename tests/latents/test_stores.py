"""Stores: what is written is read, what is damaged is refused, what was interrupted goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from galdiff.errors import GaldiffError, ResourceError, StoreError
from galdiff.latents import CutoutStore, LatentStore
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import GZ2_TREE

ROWS = {"cutouts": 100, "latents": 9000}
SHAPE = {"cutouts": (1, 256, 256), "latents": (2, 3, 2)}  # three shards each
STORES = {"cutouts": CutoutStore, "latents": LatentStore}
SCHEMA = ConditionSchema(
    [Class("morphology", ("spiral", "smooth")), Scalar("redshift", "", 0.1, 0.05), Votes("votes", GZ2_TREE)]
)


def conditions(n):
    random = np.random.default_rng(1)
    values = {
        "morphology": torch.from_numpy(random.integers(0, 2, n)),
        "redshift": torch.from_numpy(random.random(n, dtype=np.float32)),
        "votes": torch.from_numpy(random.integers(0, 40, (n, len(GZ2_TREE.answers))).astype(np.float32)),
    }
    masks = {name: torch.from_numpy(random.random(len(v)) < 0.9) for name, v in values.items()}
    masks["votes"] = torch.from_numpy(random.random((n, len(GZ2_TREE.questions))) < 0.5)
    return Conditions(values, masks)


def create(kind, path, **more):
    n = ROWS[kind]
    arguments = {
        "shape": SHAPE[kind],
        "ids": 587_722_981_742_084_096 + np.arange(n),
        "split": np.array(["train", "train", "test"])[np.arange(n) % 3],
        "conditions": conditions(n),
        "schema": SCHEMA,
    }
    if kind == "cutouts":
        arguments |= {"bands": ("g",), "dtype": "float32"}
    return STORES[kind].create(path, **{**arguments, **more})


def values(store, k):
    """What is written into a shard: a function of its rows alone."""
    rows = store.shard_rows(k)
    names = {"CutoutStore": ("image",), "LatentStore": ("mean", "log_var")}[type(store).__name__]
    shape = (rows.stop - rows.start, *SHAPE[store.KIND])
    random = np.random.default_rng(k)
    return {name: random.normal(size=shape).astype(np.float16).astype(np.float32) for name in names}


def write(store, shards=None):
    for k in list(store.missing_shards())[:shards]:
        store.write_shard(k, **values(store, k))
    return store


@pytest.fixture(scope="module", params=["cutouts", "latents"])
def whole(request, tmp_path_factory):
    """A finished store; tests do not change it, or put back what they change."""
    path = tmp_path_factory.mktemp(request.param) / "store.zarr"
    store = write(create(request.param, path))
    assert store.shards == 3
    store.finish()
    return STORES[request.param].open(path)


@pytest.fixture(params=["cutouts", "latents"])
def kind(request):
    return request.param


def everything(store):
    """All that a store says, as arrays and JSON."""
    batch = store.conditions()
    arrays = {name: store.read(name) for name in store.arrays} | {"id": store.ids, "split": store.split}
    arrays |= {name: v.numpy() for name, v in batch.values.items()}
    arrays |= {f"{name}_mask": v.numpy() for name, v in batch.masks.items()}
    known = ("autoencoder", "bands", "channel_mean", "channel_std", "complete", "kind", "rows", "schema", "skipped")
    attributes = {k: store.attrs.get(k) for k in known}
    layout = {name: store.group[name].metadata.dimension_names for name in arrays}
    return arrays, (json.dumps(attributes, sort_keys=True), layout)


def same(one, other):
    return one[1] == other[1] and all(np.array_equal(one[0][name], other[0][name]) for name in one[0])


class TestRoundTrip:
    def test_values_ids_split_and_conditions(self, whole):
        for k in range(whole.shards):
            for name, written in values(whole, k).items():
                assert np.array_equal(whole.read(name)[whole.shard_rows(k)], written)
        n = len(whole)
        assert whole.ids.dtype == np.int64
        assert np.array_equal(whole.ids, 587_722_981_742_084_096 + np.arange(n))
        assert np.array_equal(whole.rows("test"), np.arange(2, n, 3))
        assert whole.schema == SCHEMA
        read, written = whole.conditions(), conditions(n)
        for name in written.values:
            assert read.values[name].dtype == written.values[name].dtype
            assert torch.equal(read.values[name], written.values[name])
            assert torch.equal(read.masks[name], written.masks[name])
        assert whole.verify() == []

    def test_rows_in_any_order_and_twice(self, whole):
        rows = np.array([len(whole) - 1, 3, 3, 0, whole.shard_rows(1).start])
        for name in whole.arrays:
            assert np.array_equal(whole.read(name, rows), whole.read(name)[rows])
            assert whole.read(name, rows[:0]).shape == (0, *SHAPE[whole.KIND])

    def test_ids_that_are_text(self, kind, tmp_path):
        ids = np.array([f"J{i:05d}.5+00é" for i in range(ROWS[kind])])
        write(create(kind, tmp_path / "a.zarr", ids=ids)).finish()
        assert np.array_equal(STORES[kind].open(tmp_path / "a.zarr").ids, ids)

    def test_xarray_opens_it_with_nothing_else_known(self, whole):
        with xr.open_zarr(whole.path) as data:
            dims = {"image": ("sample", "band", "y", "x")}.get(whole.arrays[0], ("sample", "channel", "y", "x"))
            for name in whole.arrays:
                assert data[name].dims == dims
                assert np.array_equal(data[name].values, whole.read(name))
            assert data["id"].dtype == np.int64
            assert data["votes"].dims == ("sample", "votes_answer")
            assert data["votes_mask"].dims == ("sample", "votes_question")
            assert data["morphology"].dims == data["split"].dims == ("sample",)
            assert set(data.data_vars) >= {"id", "split", "redshift", "redshift_mask", "votes_mask"}
            assert data.attrs["complete"] is True

    def test_nothing_lies_beside_a_finished_store(self, whole):
        assert list(whole.path.parent.iterdir()) == [whole.path]


def test_channel_statistics_are_those_of_sampled_latents(tmp_path):
    store = write(create("latents", tmp_path / "a.zarr"))
    store.finish()
    train = store.rows("train")
    mean, log_var = (store.read(name, train).astype(np.float64) for name in store.arrays)
    expected = mean.var(axis=(0, 2, 3)) + np.exp(log_var).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(store.attrs["channel_mean"], mean.mean(axis=(0, 2, 3)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(store.attrs["channel_std"], np.sqrt(expected), rtol=1e-12)
    noise = np.random.default_rng(0).normal(size=mean.shape)
    sampled = (mean + np.exp(log_var / 2) * noise).std(axis=(0, 2, 3))
    np.testing.assert_allclose(store.attrs["channel_std"], sampled, rtol=0.03)


def test_memory_holds_a_split_whole(tmp_path):
    store = write(create("latents", tmp_path / "a.zarr"))
    store.finish()
    table = store.memory("test")
    rows = store.rows("test")
    assert np.array_equal(table.rows, rows)
    assert table.mean.dtype == torch.float16
    assert np.array_equal(table.mean.numpy(), store.read("mean", rows))
    assert np.array_equal(table.log_var.numpy(), store.read("log_var", rows))
    assert torch.equal(table.conditions.values["votes"], store.conditions().values["votes"][rows])


class TestRefusals:
    def test_an_unfinished_store_is_not_a_finished_one(self, kind, tmp_path):
        store = write(create(kind, tmp_path / "a.zarr"), shards=2)
        for _ in range(2):
            with pytest.raises(StoreError, match="not complete"):
                STORES[kind].open(tmp_path / "a.zarr")
            with pytest.raises(StoreError, match=r"shards? .*2"):
                store.finish()

    def test_the_other_kind_and_no_store_at_all(self, whole, tmp_path):
        other = LatentStore if whole.KIND == "cutouts" else CutoutStore
        with pytest.raises(StoreError, match="not a"):
            other.open(whole.path)
        with pytest.raises(StoreError, match="no store"):
            other.open(tmp_path / "nothing.zarr")

    def test_a_finished_store_is_not_written_again(self, whole):
        before = everything(whole)
        store = create(whole.KIND, whole.path)
        assert store.complete
        assert list(store.missing_shards()) == []
        with pytest.raises(StoreError, match="reading"):
            store.write_shard(0, **values(store, 0))
        with pytest.raises(StoreError, match="other inputs"):
            create(whole.KIND, whole.path, attrs={"autoencoder": {"sha256": "another"}})
        assert same(everything(STORES[whole.KIND].open(whole.path)), before)

    def test_a_store_of_other_rows_is_not_gone_on_with(self, kind, tmp_path):
        write(create(kind, tmp_path / "a.zarr"), shards=1)
        with pytest.raises(StoreError, match="other inputs"):
            create(kind, tmp_path / "a.zarr", ids=np.arange(ROWS[kind]))
        with pytest.raises(StoreError, match="other inputs"):
            create(kind, tmp_path / "a.zarr", attrs={"autoencoder": {"sha256": "another"}})

    def test_a_folder_of_something_else_is_left_alone(self, kind, tmp_path):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "final.tex").write_text("years of work")
        with pytest.raises(StoreError):
            create(kind, tmp_path / "thesis")
        assert (tmp_path / "thesis" / "final.tex").read_text() == "years of work"

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
    def test_values_that_are_not_finite_as_stored(self, kind, tmp_path, bad):
        store = create(kind, tmp_path / "a.zarr")
        arrays = values(store, 0)
        name = next(iter(arrays))
        arrays[name][5, 0, 1, 1] = bad
        if kind == "cutouts" and bad == 1e9:
            store.write_shard(0, **arrays)  # finite in float32
            return
        with np.errstate(over="ignore"), pytest.raises(StoreError, match=str(store.ids[5])):
            store.write_shard(0, **arrays)
        assert 0 in list(store.missing_shards())

    def test_a_shard_of_another_shape(self, kind, tmp_path):
        store = create(kind, tmp_path / "a.zarr")
        with pytest.raises(StoreError, match="shape"):
            store.write_shard(0, **{name: v[1:] for name, v in values(store, 0).items()})

    def test_an_empty_training_split(self, tmp_path):
        store = write(create("latents", tmp_path / "a.zarr", split=np.full(ROWS["latents"], "test")))
        with pytest.raises(StoreError, match="empty"):
            store.finish()

    def test_a_codec_that_is_not_known(self, whole):
        file = whole.path / whole.arrays[0] / "zarr.json"
        text = file.read_text()
        try:
            file.write_text(text.replace('"crc32c"', '"pickle"', 1))
            with pytest.raises(StoreError, match="'pickle' is not allowed"):
                type(whole).open(whole.path)
        finally:
            file.write_text(text)

    def test_zarr_format_2(self, tmp_path):
        zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2).create_array("image", shape=(3,), dtype="f4")
        with pytest.raises(StoreError):
            CutoutStore.open(tmp_path / "a.zarr")


class TestSkippedRows:
    def test_they_leave_their_split(self, tmp_path):
        store = write(create("cutouts", tmp_path / "a.zarr"))
        store.finish(skipped=[0, 7])
        store = CutoutStore.open(tmp_path / "a.zarr")
        assert list(store.rows("skipped")) == [0, 7]
        assert 0 not in store.rows("train")
        assert store.attrs["skipped"] == 2


class TestDamage:
    def test_a_flipped_byte_is_never_a_changed_value(self, whole):
        before = everything(whole)
        random = np.random.default_rng(8)
        files = sorted(p for p in whole.path.rglob("*") if p.is_file())
        seen = {"refused": 0, "harmless": 0}
        for trial in range(200):
            # By turns any file, so that small ones are hit as often as shards.
            file = files[trial % len(files)]
            data = file.read_bytes()
            place, bit = int(random.integers(len(data))), 1 << int(random.integers(8))
            try:
                file.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
                try:
                    after = everything(type(whole).open(whole.path))
                except GaldiffError:
                    seen["refused"] += 1
                else:
                    assert same(before, after), f"silent change: {file.relative_to(whole.path)} at {place} bit {bit}"
                    seen["harmless"] += 1
            finally:
                file.write_bytes(data)
        assert seen["refused"] > 150, seen
        assert same(everything(type(whole).open(whole.path)), before)

    def test_a_flipped_value_is_found_by_verify(self, whole):
        file = sorted((whole.path / whole.arrays[0] / "c").rglob("*"))[-1]
        data = file.read_bytes()
        try:
            file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
            assert type(whole).open(whole.path).verify() == [whole.shards - 1]
        finally:
            file.write_bytes(data)

    @pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.999])
    def test_a_truncated_shard_is_an_error(self, whole, kept):
        file = next(p for p in (whole.path / whole.arrays[-1] / "c" / "1").rglob("*") if p.is_file())
        data = file.read_bytes()
        try:
            file.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
            with pytest.raises(StoreError, match="shard 1"):
                type(whole).open(whole.path).read(whole.arrays[-1])
        finally:
            file.write_bytes(data)

    def test_a_missing_shard_is_an_error(self, whole, tmp_path):
        file = next(p for p in (whole.path / whole.arrays[-1] / "c" / "1").rglob("*") if p.is_file())
        store = type(whole).open(whole.path)
        moved = shutil.move(file, tmp_path / "shard")
        try:
            with pytest.raises(StoreError, match=r"shard 1 .*missing"):
                store.read(whole.arrays[-1])
            with pytest.raises(StoreError, match=r"shard 1 .*missing"):
                type(whole).open(whole.path)
        finally:
            shutil.move(moved, file)

    @pytest.mark.parametrize("column", ["id", "split", "votes", "morphology_mask"])
    def test_a_missing_column_is_an_error(self, whole, tmp_path, column):
        moved = shutil.move(whole.path / column, tmp_path / column)
        try:
            with pytest.raises(StoreError):
                everything(type(whole).open(whole.path))
        finally:
            shutil.move(moved, whole.path / column)


class TestResume:
    def test_a_journal_cut_anywhere(self, kind, tmp_path):
        path = tmp_path / "a.zarr"
        write(create(kind, path))
        entry = tmp_path / "a.zarr.journal" / "1.json"
        text = entry.read_bytes()
        for cut in (0, 1, 30, len(text) - 1):
            entry.write_bytes(text[:cut])
            store = create(kind, path)
            assert list(store.missing_shards()) == [1]
            write(store)
            assert list(store.missing_shards()) == []
        entry.unlink()
        assert list(create(kind, path).missing_shards()) == [1]
        write(create(kind, path)).finish()
        assert STORES[kind].open(path).verify() == []
        assert list(tmp_path.iterdir()) == [path]

    def test_bytes_that_are_no_text_are_named_in_a_line(self, kind, tmp_path):
        write(create(kind, tmp_path / "a.zarr")).finish()
        metadata = tmp_path / "a.zarr" / "zarr.json"
        metadata.write_bytes(metadata.read_bytes()[:-9] + b"\xff")
        with pytest.raises(StoreError, match=r"'zarr\.json' is damaged: UnicodeDecodeError") as caught:
            STORES[kind].open(tmp_path / "a.zarr")
        assert len(str(caught.value)) < 300 + len(str(tmp_path))

    def test_a_shard_that_was_damaged_after_it_was_journaled(self, kind, tmp_path):
        path = tmp_path / "a.zarr"
        store = write(create(kind, path))
        file = next(p for p in (path / store.arrays[0] / "c" / "1").rglob("*") if p.is_file())
        file.write_bytes(file.read_bytes()[:-100])
        store = create(kind, path)
        assert list(store.missing_shards()) == [1]
        write(store).finish()

    def test_a_creation_that_was_cut_off(self, kind, tmp_path):
        path = tmp_path / "a.zarr"
        code = (
            "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
            "import test_stores; from pathlib import Path\n"
            "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
            "test_stores.create(sys.argv[2], Path(sys.argv[3]))"
        )
        here = os.path.dirname(__file__)
        done = subprocess.run([sys.executable, "-c", code, here, kind, str(path)], check=False)
        assert done.returncode == -signal.SIGKILL
        write(create(kind, path)).finish()
        assert STORES[kind].open(path).verify() == []
        assert list(tmp_path.iterdir()) == [path]


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_stores
from galdiff.errors import ResourceError
store = test_stores.write(test_stores.create(sys.argv[2], Path(sys.argv[3])), shards=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    test_stores.write(store)
except ResourceError as error:
    sys.exit(f"named: {error}")
"""


class TestFullDisk:
    def test_it_is_named_and_the_next_run_goes_on(self, kind, tmp_path):
        path = tmp_path / "a.zarr"
        command = [sys.executable, "-c", FULL, os.path.dirname(__file__), kind, str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert f"named: {path}: the disk is full" in done.stderr
        assert done.returncode == 1
        store = create(kind, path)
        assert list(store.missing_shards()) == [1, 2]
        write(store).finish()


class TestLock:
    def test_a_second_writer_is_refused_until_the_first_is_dead(self, kind, tmp_path):
        path = tmp_path / "a.zarr"
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "import test_stores; from pathlib import Path\n"
            "store = test_stores.write(test_stores.create(sys.argv[2], Path(sys.argv[3])), shards=1)\n"
            "print('ready', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, os.path.dirname(__file__), kind, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "ready\n"
            with pytest.raises(ResourceError, match=f"pid {writer.pid}"):
                create(kind, path)
            writer.kill()
        store = create(kind, path)
        assert list(store.missing_shards()) == [1, 2]
        write(store).finish()

    def test_what_a_crash_left_is_taken_over(self, kind, tmp_path):
        (tmp_path / "a.zarr.lock").write_text('{"pi')
        write(create(kind, tmp_path / "a.zarr")).finish()
        assert not (tmp_path / "a.zarr.lock").exists()

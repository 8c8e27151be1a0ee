"""Readers: wherever latents are read from, the same rows; in blocks, every row once an epoch and flat memory."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from galdiff.latents import LatentBlocks, LatentStore, LatentTable, SplitIds
from galdiff.latents.readers import choose_reader
from galdiff.schema.conditions import Conditions, ConditionSchema, Scalar

SHAPE = (2, 2, 2)


def make(path, n, views=1):
    """A store in which row i's mean is i mod 1000, its log-variance its view, and its condition i."""
    rows = np.arange(n)
    split = np.where(rows % 5 == 4, "test", "train")
    value = torch.arange(n, dtype=torch.float32)
    store = LatentStore.create(
        path,
        shape=SHAPE,
        ids=rows + 10**15,
        split=split,
        conditions=Conditions({"z": value}, {"z": value % 2 == 0}),
        schema=ConditionSchema([Scalar("z")]),
        views=views,
    )
    for k in store.missing_shards():
        part = rows[store.shard_rows(k)]
        shape = (len(part), views, *SHAPE) if views > 1 else (len(part), *SHAPE)
        mean = np.broadcast_to((part % 1000).reshape(-1, *[1] * (len(shape) - 1)), shape)
        log_var = np.broadcast_to(np.arange(views).reshape(-1, 1, 1, 1), shape[1:] if views > 1 else (1, *SHAPE))
        store.write_shard(k, mean=mean, log_var=np.broadcast_to(log_var if views > 1 else log_var[0], shape))
    store.finish()
    return LatentStore.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("readers") / "a.zarr", 40_000)


def equal(one, other):
    same = torch.equal(one.mean, other.mean) and torch.equal(one.log_var, other.log_var)
    pairs = (
        (a, b)
        for name in ("values", "masks")
        for a, b in zip(*(getattr(x.conditions, name).values() for x in (one, other)), strict=True)
    )
    return same and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("reader", ["device", "memory", "blocks", "auto", "resident"])
def test_every_reader_gives_the_rows_that_are_asked_for(store, reader):
    table, bare = store.reader("train", "cpu", reader=reader), store.memory("train")
    assert isinstance(table, LatentBlocks if reader == "blocks" else LatentTable)
    assert len(table) == 32_000
    order = table.order(3, 0)
    for rows in (order[0:64], order[31_990:32_000], torch.tensor([5, 31_999, 5, 0, 17_000])):
        assert equal(table.take(rows), bare.take(rows))


def test_ids_of_a_split_are_read_where_they_are_asked_for(store, monkeypatch):
    rows = np.array([5, 31_999, 5, 0, 17_000])
    wanted, column, read = store.ids[store.rows("train")][rows], LatentStore.column, []

    def noted(self, name, part=slice(None)):
        values = column(self, name, part)
        read.append(len(values) if name == "id" else 0)
        return values

    monkeypatch.setattr(LatentStore, "column", noted)
    assert np.array_equal(SplitIds(store, "train")[rows], wanted)
    assert 0 < sum(read) <= 3 * 1024


class TestBlocks:
    def test_an_epoch_is_every_row_once_and_is_shuffled(self, store):
        table = store.reader("train", reader="blocks")
        orders = [torch.cat([table.order(1, e)[s : s + 777] for s in range(0, 32_000, 777)]) for e in (0, 1)]
        for order in orders:
            assert torch.equal(order.sort().values, torch.arange(32_000))
        assert (orders[0] == orders[1]).float().mean() < 0.01
        assert (table.order(2, 0)[0:1000] == orders[0][:1000]).float().mean() < 0.1
        # Each block of consecutive rows comes within one group of blocks, and the batches mix its blocks.
        blocks = np.searchsorted(table._starts, orders[0][:512].numpy(), side="right")
        assert len(np.unique(blocks)) == table.group

    def test_any_slice_is_a_piece_of_the_same_order(self, store):
        whole = store.reader("train", reader="blocks").order(1, 7)[0:32_000]
        other = store.reader("train", reader="blocks").order(1, 7)
        for start, stop in ((20_000, 20_100), (0, 3), (31_999, 40_000), (5, 5)):
            assert torch.equal(other[start:stop], whole[start:stop])

    def test_batches_that_span_groups_and_epochs(self, store):
        table, bare = store.reader("train", reader="blocks"), store.memory("train")
        for spans in ([(0, 20_000)], [(31_950, 32_000), (0, 50)]):
            rows = torch.cat([table.order(1, e)[start:stop] for e, (start, stop) in enumerate(spans)])
            assert equal(table.take(rows), bare.take(rows))
        assert len(table._coming) <= 5

    def test_a_damaged_shard_is_an_error_in_the_batch_that_needs_it(self, tmp_path):
        table = make(tmp_path / "a.zarr", 9000).reader("train", reader="blocks")
        (tmp_path / "a.zarr/mean/c/1/0/0/0").unlink()
        with pytest.raises(Exception, match="shard 1 of 'mean' is missing"):
            table.take(table.order(0, 0)[0 : len(table)])

    def test_it_may_be_pickled_while_it_reads(self, store):
        table = store.reader("train", reader="blocks")
        rows = table.order(1, 0)[0:50]
        assert equal(pickle.loads(pickle.dumps(table)).take(rows), table.take(rows))


def test_views_are_picked_by_row(tmp_path):
    store = make(tmp_path / "a.zarr", 3000, views=8)
    assert store.views == 8
    assert store.array("mean").metadata.dimension_names == ("sample", "view", "channel", "y", "x")
    rows, view = torch.tensor([0, 2100, 7]), torch.tensor([3, 0, 7])
    for reader in ("memory", "blocks"):
        table = store.reader("train", reader=reader)
        assert table.views == 8
        batch = table.take(rows, view)
        assert batch.mean.shape == (3, *SHAPE)
        assert torch.equal(batch.log_var[:, 0, 0, 0].long(), view)
        assert torch.equal(table.take(rows).log_var, torch.zeros(3, *SHAPE).half())


def test_the_reader_is_chosen_by_size():
    assert choose_reader(1000, torch.device("cpu")) == "memory"
    assert choose_reader(10**15, torch.device("cpu")) == "blocks"


PROCESSES = """
import multiprocessing, os, sys
import torch
from galdiff.latents import LatentStore

def sums(table, rows, queue):
    torch.set_num_threads(1)  # as in every DataLoader's worker: OpenMP's threads do not survive a fork
    order = table.order(1, 0)
    batches = [table.take(order[s:s + 500]) for s in range(0, 3000, 500)]
    queue.put([float(table.take(rows).mean.sum()), *(float(b.mean.float().sum()) for b in batches)])

if __name__ == "__main__":
    table = LatentStore.open(sys.argv[1]).reader("train", reader="blocks")
    rows = table.order(1, 0)[0:100]
    here = multiprocessing.SimpleQueue()
    sums(table, rows, here)
    expected = here.get()
    for kind in ("fork", "spawn"):
        context = multiprocessing.get_context(kind)
        queue = context.SimpleQueue()
        process = context.Process(target=sums, args=(table, rows, queue))
        process.start()
        process.join(100)
        assert process.exitcode == 0, kind
        assert queue.get() == expected, kind
"""


def test_fork_and_spawn(store, tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, script, store.path], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr


MEMORY = """
import resource, sys
from galdiff.latents import LatentStore
table = LatentStore.open(sys.argv[1]).reader("train", reader="blocks")
order, n = table.order(1, 0), 0
for start in range(0, len(table), 5000):
    n += len(table.take(order[start:start + 100]).mean)
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads its peak memory from Linux")
def test_memory_is_flat(tmp_path):
    peaks = []
    for n in (10_000, 100_000):
        path = make(tmp_path / f"{n}.zarr", n).path
        done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 25, peaks

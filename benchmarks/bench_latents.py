"""Rows of a latent store: resident beside a bare gather, in blocks beside reading sample by sample; peak memory."""

import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

from galdiff.latents import LatentStore
from galdiff.schema.conditions import Class, Conditions, ConditionSchema

from .clock import best

ROWS, SHAPE, BATCH = 40_960, (4, 16, 16), 256
FEW, MANY, SMALL = 10_000, 1_000_000, (4, 4, 4)


def make(path, rows, shape):
    rng = np.random.default_rng(0)
    label, known = torch.from_numpy(rng.integers(0, 3, rows)), torch.ones(rows, dtype=torch.bool)
    store = LatentStore.create(
        path,
        shape=shape,
        ids=np.arange(rows),
        split=np.full(rows, "train"),
        conditions=Conditions({"kind": label}, {"kind": known}),
        schema=ConditionSchema([Class("kind", ("a", "b", "c"))]),
        attrs={"autoencoder": {"sha256": "0" * 64}},
    )
    for k in store.missing_shards():
        part = store.shard_rows(k)
        mean, log_var = (rng.normal(size=(part.stop - part.start, *shape)).astype(np.float16) for _ in range(2))
        store.write_shard(k, mean=mean, log_var=log_var)
    store.finish()
    return LatentStore.open(path)


def epoch(table):
    """Read an epoch in batches; return the rows read."""
    order = table.order(0, 0)
    for start in range(0, len(table), BATCH):
        table.take(order[start : start + BATCH])
    return len(table)


class Readers:
    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        self.store = make(Path(self.folder.name, "latents.zarr"), ROWS, SHAPE)
        self.table = self.store.reader("train", reader="device")
        self.rows = torch.from_numpy(np.random.default_rng(1).permutation(ROWS)[:BATCH])

    def teardown(self):
        self.folder.cleanup()

    def bare(self):
        table = self.table
        known = {
            name: (v[self.rows], table.conditions.masks[name][self.rows]) for name, v in table.conditions.values.items()
        }
        return table.mean[self.rows], table.log_var[self.rows], known

    def track_resident_rate_over_bare(self):
        # The bare gather and the reader's in turn, so that whatever disturbs one disturbs the other.
        pairs = [(best(self.bare, calls=100), best(lambda: self.table.take(self.rows), calls=100)) for _ in range(5)]
        return max(a / b for a, b in pairs)

    track_resident_rate_over_bare.unit = "ratio"

    def seconds_a_row_in_blocks(self):
        return best(lambda: epoch(self.store.reader("train", reader="blocks")), rounds=3) / ROWS

    def track_blocks_over_hdf5_samples(self):
        path = Path(self.folder.name, "latents.h5")
        with h5py.File(path, "w") as file:
            for name in self.store.ARRAYS:
                file.create_dataset(name, data=self.store.read(name), chunks=(64, *SHAPE))
        with h5py.File(path) as file:
            samples = best(lambda: [(file["mean"][i], file["log_var"][i]) for i in self.rows.tolist()]) / BATCH
        return samples / self.seconds_a_row_in_blocks()

    track_blocks_over_hdf5_samples.unit = "ratio"

    def track_blocks_over_zarr_samples(self):
        mean, log_var = (self.store.array(name) for name in self.store.ARRAYS)
        samples = best(lambda: [(mean[i], log_var[i]) for i in self.rows[:32].tolist()]) / 32
        return samples / self.seconds_a_row_in_blocks()

    track_blocks_over_zarr_samples.unit = "ratio"

    def time_load_split(self):
        self.store.memory("train")


_PEAK = """
from galdiff.latents import LatentStore
import sys
table = LatentStore.open(sys.argv[1]).reader("train", reader="blocks")
order = table.order(0, 0)
for start in range(0, len(table), 512):
    table.take(order[start : start + 512])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Memory:
    timeout = 600

    def track_growth_in_blocks(self):
        with tempfile.TemporaryDirectory() as folder:
            peaks = []
            for rows in (FEW, MANY):
                path = make(Path(folder, f"{rows}.zarr"), rows, SMALL).path
                done = subprocess.run([sys.executable, "-c", _PEAK, path], capture_output=True, text=True, check=True)
                peaks.append(int(done.stdout) / 1000)
        return peaks[1] - peaks[0]

    track_growth_in_blocks.unit = "MB"

"""Rows of a latent store, beside a bare gather from tensors."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from galdiff.latents import LatentStore
from galdiff.schema.conditions import Class, Conditions, ConditionSchema

from .clock import best

ROWS, SHAPE, BATCH = 4096, (8, 8, 8), 256


class Gather:
    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        rng = np.random.default_rng(0)
        label, known = torch.from_numpy(rng.integers(0, 3, ROWS)), torch.ones(ROWS, dtype=torch.bool)
        self.store = LatentStore.create(
            Path(self.folder.name, "latents.zarr"),
            shape=SHAPE,
            ids=np.arange(ROWS),
            split=np.full(ROWS, "train"),
            conditions=Conditions({"kind": label}, {"kind": known}),
            schema=ConditionSchema([Class("kind", ("a", "b", "c"))]),
            attrs={"autoencoder": {"sha256": "0" * 64}},
        )
        for k in self.store.missing_shards():
            part = self.store.shard_rows(k)
            shape = (part.stop - part.start, *SHAPE)
            mean, log_var = (rng.normal(size=shape).astype(np.float16) for _ in range(2))
            self.store.write_shard(k, mean=mean, log_var=log_var)
        self.store.finish()
        self.table = self.store.memory("train")
        self.rows = torch.from_numpy(rng.permutation(ROWS)[:BATCH])

    def teardown(self):
        self.folder.cleanup()

    def bare(self):
        return self.table.mean[self.rows], self.table.log_var[self.rows]

    def with_conditions(self):
        return *self.bare(), self.table.conditions[self.rows]

    def track_memory_over_bare(self):
        return best(self.with_conditions, calls=20) / best(self.bare, calls=20)

    track_memory_over_bare.unit = "ratio"

    def track_store_over_bare(self):
        rows = np.sort(self.rows.numpy())
        return best(lambda: self.store.read("mean", rows)) / best(lambda: self.table.mean[self.rows], calls=20)

    track_store_over_bare.unit = "ratio"

    def time_load_split(self):
        self.store.memory("train")

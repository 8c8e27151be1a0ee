"""Memorisation of a run: planted copies are found and shown, and what is none is not."""

import numpy as np
import pytest
import torch

from galdiff.latents import CutoutStore
from galdiff.metrics.neighbours import pose
from galdiff.pipeline.copies import copies
from galdiff.schema.conditions import Conditions, ConditionSchema


def blobs(n, seed, size=24):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images = 0.05 * rng.normal(size=(n, 2, size, size))
    for _ in range(4):
        at, width = rng.normal((size - 1) / 2, size / 8, (2, n, 1, 1)), rng.uniform(1.5, size / 10, (n, 1, 1))
        blob = np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / width**2)
        images += blob[:, None] * rng.uniform(0.3, 1, (n, 2, 1, 1))
    return images.astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    images = blobs(300, 0)
    split = np.where(np.arange(300) < 250, "train", "test")
    store = CutoutStore.create(
        tmp_path_factory.mktemp("cutouts") / "cutouts.zarr",
        shape=images.shape[1:],
        bands=("g", "r"),
        dtype="float32",
        ids=np.arange(300),
        split=split,
        conditions=Conditions({}, {}),
        schema=ConditionSchema(),
        attrs={},
    )
    for shard in store.missing_shards():
        store.write_shard(shard, images[store.shard_rows(shard)])
    store.finish()
    return store


def test_copies_are_found_and_shown_as_they_fit(store):
    generated, held_out = blobs(80, 1), blobs(100, 2)
    rows = [3, 70, 200]
    for i, row in enumerate(rows):
        generated[i] = pose(store.images(np.array([row])), 5, (1, -2))[0].numpy()
    found = copies(generated, held_out, store, stretch=np.asarray)
    rate = {f.name: f for f in found.figures}["memorisation_replication_rate"]
    assert rate.value >= 3 / 80
    assert rate.n == 80
    shown = found.curves
    assert (shown["pair_distance"][:3] < 0.5 * shown["pair_held_out_distance"][0]).all()
    inner = slice(3, -3)
    difference = (shown["pair_generated"] - shown["pair_training"])[:3, :, inner, inner]
    assert np.abs(difference).max() < 1e-6
    pictures = {tuple(image.ravel()) for image in shown["pair_training"][:3].to_numpy()}
    assert pictures == {tuple(image.ravel()) for image in store.images(np.array(rows))}


def test_images_of_one_population_are_at_the_floor(store):
    found = copies(blobs(100, 3), blobs(100, 4), store, stretch=np.asarray)
    assert [f.verdict(4.0) for f in found.figures] == ["pass"] * 3
    assert found.curves["pair_held_out_distance"].shape == (100,)  # of all held-out images


def test_few_images_have_no_figures(store):
    found = copies(blobs(20, 3), blobs(20, 4), store, stretch=torch.sqrt)
    assert {f.status for f in found.figures} == {"too few"}
    assert not found.curves

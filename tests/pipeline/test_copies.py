"""Memorisation of a run: planted copies are found and shown, and what is none is not."""

import numpy as np
import pytest
import torch
import xarray as xr

from galdiff.latents import CutoutStore
from galdiff.metrics import authentic_share
from galdiff.metrics.features import PhysicalFeatures
from galdiff.metrics.neighbours import pose
from galdiff.pipeline.copies import copies, copies_in_features
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


def test_arrays_and_stores_are_the_same_training_images(store):
    generated, held_out = blobs(60, 3), blobs(60, 4)
    a = copies(generated, held_out, store, stretch=np.arcsinh)
    b = copies(generated, held_out, store.images(store.rows("train")), stretch=np.arcsinh)
    assert a.figures == b.figures
    assert {f.freedom for f in a.figures} == {199}
    xr.testing.assert_equal(a.curves, b.curves)


def test_small_stamps_are_shifted_less():
    sets = [blobs(60, seed)[..., 8:16, 8:16] for seed in (1, 2, 3)]
    found = copies(*sets, stretch=np.arcsinh)
    assert {f.status for f in found.figures} == {"ok"}
    assert all("shifts up to 1 pixels" in f.protocol for f in found.figures)


def test_few_images_have_no_figures(store):
    found = copies(blobs(20, 3), blobs(20, 4), store, stretch=torch.sqrt)
    assert {f.status for f in found.figures} == {"too few"}
    assert not found.curves


@pytest.fixture(scope="module")
def space(store):
    space = PhysicalFeatures()
    space.fit(store.images(store.rows("train")), "display")
    return space


class TestFeatures:
    def found(self, store, space, generated, held_out, **options):
        return copies_in_features(generated, held_out, store, space, rows=store.rows("train"), **options)

    def test_turned_copies_are_nearer_than_held_out_images(self, store, space):
        """Physical features do not change in a quarter turn, so that copies are at no distance at all."""
        generated, rows = blobs(80, 1), [3, 70, 200]
        generated[:3] = np.rot90(store.images(np.array(rows)), axes=(2, 3))
        found = self.found(store, space, generated, blobs(100, 2))
        rate = {f.name: f for f in found.figures}["memorisation_replication_rate[physical-10]"]
        assert 3 / 80 <= rate.value < 8 / 80
        assert "all 250 training images" in rate.protocol
        shown = found.curves
        assert (shown["feature_pair_distance"][:3] < 0.1 * shown["feature_pair_held_out_distance"][0]).all()
        pictures = {tuple(image.ravel()) for image in shown["feature_pair_training"][:3].to_numpy()}
        assert pictures == {tuple(image.ravel()) for image in store.images(np.array(rows))}

    def test_images_of_one_population_are_at_the_floor(self, store, space):
        found = self.found(store, space, blobs(100, 3), blobs(100, 4))
        assert [f.verdict(4.0) for f in found.figures] == ["pass"] * 4

    def test_copies_are_not_authentic(self, store, space):
        generated, held_out = blobs(80, 1), blobs(100, 2)
        known = store.images(store.rows("train"))
        generated[:78] = known[:78] + 1e-4
        figure = self.found(store, space, generated, held_out).figures[-1]
        assert figure.name == "authentic_share[physical-10]"
        assert figure.value == authentic_share(space(known), space(generated)) <= 2 / 80
        held = held_out[np.random.default_rng(0).permutation(100)[:80]]
        assert figure.floor == authentic_share(space(known), space(held)) > 0.5
        assert figure.error == pytest.approx((figure.value * (1 - figure.value) / 80) ** 0.5)
        assert figure.verdict(4.0) != "pass"

    def test_arrays_and_stores_are_the_same_training_images(self, store, space):
        generated, held_out, rows = blobs(60, 3), blobs(60, 4), store.rows("train")
        a = self.found(store, space, generated, held_out)
        b = copies_in_features(generated, held_out, store.images(rows), space)
        assert [f.value for f in a.figures] == [f.value for f in b.figures]
        few = self.found(store, space, generated, held_out, limit=100)
        assert "100 of 250 training images" in few.figures[0].protocol
        assert (few.curves["feature_pair_held_out_distance"] >= a.curves["feature_pair_held_out_distance"]).all()

    def test_few_images_have_no_figures(self, store, space):
        found = self.found(store, space, blobs(80, 3), blobs(80, 4), limit=20)
        assert {f.status for f in found.figures} == {"too few"}
        assert found.figures[-1].name == "authentic_share[physical-10]"
        assert len(found.figures) == 4

"""The search against brute force, planted copies, and figures with known answers."""

import numpy as np
import pytest
import torch
import zarr

from galdiff.errors import DataError
from galdiff.latents import CutoutStore
from galdiff.metrics import memorisation, nearest_neighbours
from galdiff.metrics.blocks import Blocks
from galdiff.metrics.neighbours import pose
from galdiff.nn.dihedral import dihedral
from galdiff.schema.conditions import Conditions, ConditionSchema, Scalar


def blobs(n, size=32, bands=2, seed=0):
    """Images of a few blobs at random places, on noise: alike in kind, none like another."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images = 0.05 * rng.normal(size=(n, bands, size, size))
    for _ in range(4):
        at, width = rng.normal((size - 1) / 2, size / 8, (2, n, 1, 1)), rng.uniform(1.5, size / 10, (n, 1, 1))
        blob = np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / width**2)
        images += blob[:, None] * rng.uniform(0.3, 1, (n, bands, 1, 1))
    return images.astype(np.float32)


def planted(training, n, *, shift=2, noise=0.05, seed=1):
    """Turned, flipped and shifted copies with noise: what was moved in is another image's edge."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(training), n, replace=False)
    turns, shifts = rng.integers(0, 8, n), rng.integers(-shift, shift + 1, (n, 2))
    copies = [
        np.roll(pose(training[[r]], t).numpy()[0], s, (1, 2)) for r, t, s in zip(rows, turns, shifts, strict=True)
    ]
    return rows, np.stack(copies) + noise * rng.normal(size=(n, *training.shape[1:])).astype(np.float32)


def brute(generated, training, shift):
    """Every pose of every pair, one at a time, in float64."""
    size, best = generated.shape[-1], {}
    inner = slice(shift, size - shift)
    for i, j in np.ndindex(len(generated), len(training)):
        t = training[j][:, inner, inner].astype(float)
        for turn in range(8):
            g = pose(generated[[i]], turn).numpy()[0].astype(float)
            for dy in range(-shift, shift + 1):
                for dx in range(-shift, shift + 1):
                    window = g[:, shift - dy : size - shift - dy, shift - dx : size - shift - dx]
                    d = np.sqrt(((t - window) ** 2).mean())
                    if d < best.get((i, j), (np.inf,))[0]:
                        best[i, j] = (d, turn, (dy, dx))
    return best


@pytest.mark.parametrize("size", [16, 17])
def test_search_is_brute_force(size):
    generated, training = blobs(4, size=size, seed=1), blobs(12, size=size)
    oracle = brute(generated, training, 1)
    found = nearest_neighbours(generated, training, k=12, shift=1)
    for i in range(4):
        assert sorted(found["index"][i].to_numpy()) == list(range(12))
        assert (np.diff(found["distance"][i]) >= 0).all()
        for j in range(12):
            distance, turn, shift = oracle[i, int(found["index"][i, j])]
            assert found["distance"][i, j].item() == pytest.approx(distance, rel=1e-6)
            assert found["transform"][i, j].item() == turn
            assert tuple(found["shift"][i, j].to_numpy()) == shift


def test_the_coarse_pass_alone_finds_copies_between_its_windows():
    training = blobs(3000)
    rows = np.arange(0, 3000, 20)
    between = np.roll(training[rows], (1, -1), (2, 3))
    found = nearest_neighbours(between, training, candidates=1)["index"].to_numpy()[:, 0]
    assert (found == rows).mean() >= 0.99


def test_planted_copies_are_found_and_their_pose_is_the_answer():
    training = blobs(3000)
    rows, copies = planted(training, 200)
    found = nearest_neighbours(copies, training).isel(neighbor=0)
    assert (found["index"] == rows).mean() >= 0.99
    inner = slice(2, -2)
    for i in range(10):
        like = pose(copies[[i]], found["transform"][i].item(), tuple(found["shift"][i].to_numpy().tolist()))
        difference = like.numpy()[0, :, inner, inner].astype(float) - training[rows[i]][:, inner, inner]
        assert np.sqrt((difference**2).mean()) == pytest.approx(found["distance"][i].item(), rel=1e-6)
        assert found["distance"][i] == pytest.approx(0.05, rel=0.1)


def test_a_copy_has_no_distance_and_the_transform_is_that_of_the_network_s_symmetries():
    training = blobs(20, size=16, bands=1)
    for transform in range(8):
        copy = dihedral(torch.from_numpy(training[3:4]), torch.tensor([transform]))
        torch.testing.assert_close(pose(training[3:4], transform), copy)
        found = nearest_neighbours(copy, training).isel(sample=0, neighbor=0)
        assert found["index"] == 3
        assert found["distance"] == 0
        torch.testing.assert_close(pose(copy, found["transform"].item())[0], torch.from_numpy(training[3]))


def test_without_turns_a_turned_copy_is_far():
    training = blobs(20, size=16, bands=1)
    copy = training[3:4, :, ::-1].copy()
    assert nearest_neighbours(copy, training)["distance"].item() == 0
    assert nearest_neighbours(copy, training, turns=False)["distance"].item() > 0.05
    assert nearest_neighbours(training[3:4], training, turns=False, shift=0)["distance"].item() == 0


class Store:
    """A store that gives rows in the type they are kept in, and remembers how many at once."""

    def __init__(self, images):
        self._images, self.most = images.astype(np.float16), 0

    def __len__(self):
        return len(self._images)

    def images(self, rows):
        self.most = max(self.most, len(rows))
        return self._images[rows]


def test_arrays_zarr_and_stores_are_the_same_training_set():
    training, generated = blobs(2500, size=16, bands=1).astype(np.float16), blobs(5, size=16, bands=1, seed=3)
    kept = zarr.create_array(store={}, shape=training.shape, chunks=(300, 1, 16, 16), dtype="float16")
    kept[:] = training
    store = Store(training)
    plain = nearest_neighbours(generated, training, k=3)
    for source in (kept, store, torch.from_numpy(training)):
        assert plain.identical(nearest_neighbours(generated, source, k=3))
    assert store.most <= 1024


def test_the_training_split_of_a_run_s_cutouts(tmp_path):
    images = blobs(200, size=16, bands=1).astype(np.float16)
    z = torch.arange(200.0)
    store = CutoutStore.create(
        tmp_path / "cutouts.zarr",
        shape=(1, 16, 16),
        bands=("g",),
        dtype="float16",
        ids=np.arange(200),
        split=np.array(["train", "test"])[np.arange(200) % 2],
        conditions=Conditions({"z": z}, {"z": z >= 0}),
        schema=ConditionSchema([Scalar("z")]),
    )
    for k in store.missing_shards():
        store.write_shard(k, images[store.shard_rows(k)])
    store.finish()
    found = nearest_neighbours(images[:6], store, rows=store.rows("train"))
    np.testing.assert_array_equal(found["distance"][:, 0] == 0, [True, False] * 3)
    assert (found["index"] % 2 == 0).all()


def test_only_the_rows_that_are_asked_for():
    training = blobs(2500, size=16, bands=1)
    rows = np.arange(1, 2500, 7)
    for source in (training, Store(training)):
        found = nearest_neighbours(training[[8, 9]].astype(np.float16), source, rows=rows)["index"].to_numpy()
        assert found[0] == 8
        assert found[1] != 9
        assert np.isin(found, rows).all()


def test_samples_do_not_know_of_each_other():
    training, generated = blobs(300, size=16), blobs(40, size=16, seed=5)
    whole = nearest_neighbours(generated, training, k=2)
    part = nearest_neighbours(generated[7:20], training, k=2)
    np.testing.assert_array_equal(part["index"], whole["index"][7:20])
    np.testing.assert_allclose(part["distance"], whole["distance"][7:20], rtol=1e-10)


class TestFeatures:
    def test_neighbors_are_those_of_scipy(self):
        spatial = pytest.importorskip("scipy.spatial")
        a, b = np.random.default_rng(0).normal(size=(2, 1500, 6))
        found = nearest_neighbours(a[:100], b, k=3)
        distance, index = spatial.cKDTree(b).query(a[:100], k=3)
        np.testing.assert_array_equal(found["index"], index)
        np.testing.assert_allclose(found["distance"], distance, rtol=1e-12)
        assert "transform" not in found

    def test_a_copy_far_from_the_origin_has_no_distance(self):
        b = np.random.default_rng(0).normal(size=(50, 4)) + 1e6
        np.testing.assert_array_equal(nearest_neighbours(b[:5], b)["distance"], 0)

    def test_bad_features(self):
        a = np.ones((3, 2))
        for values, message in [(np.ones((3, 4)), r"not \(n, 2\)"), (np.full((3, 2), np.nan), "not finite")]:
            with pytest.raises(DataError, match=message):
                nearest_neighbours(a, values)


class TestFigures:
    def test_of_the_same_distribution_are_one(self):
        rng = np.random.default_rng(0)
        training, held_out, generated = (rng.normal(size=(n, 4)) for n in (3000, 3000, 3000))
        found = memorisation(generated, held_out, training)
        ratios, errors = found["value"][:2].to_numpy(), found["error"][:2].to_numpy()
        assert (np.abs(ratios - 1) < 5 * errors).all()
        assert (np.abs(found["floor"][:2] - 1) < 8 * errors).all()
        assert found["value"].sel(figure="replication_rate") < 0.004

    def test_copies_are_counted_and_named(self):
        training, held_out, generated = blobs(300), blobs(60, seed=1), blobs(50, seed=2)
        rows, generated[10:15] = planted(training, 5)
        found = memorisation(generated, held_out, training, pairs=5)
        assert found["value"].sel(figure="replication_rate") in (0.1, 0.12)
        assert found["value"].sel(figure="first_percentile_ratio") < 0.8
        assert found["floor"].sel(figure="replication_rate") <= 0.1
        named = dict(zip(found["pair_sample"].to_numpy(), found["pair_index"].to_numpy(), strict=True))
        assert named == dict(zip(range(10, 15), rows, strict=True))
        assert found["pair_shift"].dims == ("pair", "axis")
        assert "60 held-out" in found.attrs["note"]

    def test_all_of_it_copied(self):
        training = np.random.default_rng(0).normal(size=(100, 3))
        found = memorisation(training[:50], training[50:] + 0.1, training)
        np.testing.assert_array_equal(found["value"], [0, 0, 1])
        assert np.isnan(memorisation(training[:50], training[50:], training)["value"][:2]).all()

    def test_the_draws_can_be_repeated(self):
        a, b, c = np.random.default_rng(0).normal(size=(3, 200, 3))
        assert memorisation(a, b, c, seed=3).identical(memorisation(a, b, c, seed=3))

    def test_one_image_is_too_few(self):
        with pytest.raises(DataError, match="cannot be compared"):
            memorisation(np.ones((1, 2)), np.ones((9, 2)), np.ones((9, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "0 neighbors"),
        ({"k": 6}, "6 neighbors are asked for among 5"),
        ({"shift": 4}, "a quarter of 16"),
        ({"rows": [5]}, "rows 5 to 5 are asked for of 5"),
        ({"rows": []}, "among 0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(DataError, match=message):
        nearest_neighbours(blobs(2, size=16), blobs(5, size=16), **options)


def test_training_images_that_do_not_fit():
    generated, training = blobs(2, size=16), blobs(5, size=16)
    spoiled = np.where(np.arange(5)[:, None, None, None] == 3, np.nan, training)
    for bad, message in [
        (training[:, :1], "samples"),
        (training[..., :8, :8], "samples"),
        (spoiled, "training rows 0 to 4: 512 pixel values"),
        (np.zeros((0, 2, 16, 16)), "among 0"),
    ]:
        with pytest.raises(DataError, match=message):
            nearest_neighbours(generated, bad)


def test_blocks_of_a_subset():
    values = np.arange(10)[:, None]
    blocks = Blocks(values, [9, 1, 2, 8], size=4)
    assert [rows.tolist() for rows, _ in blocks] == [[1, 2], [8, 9]]
    assert all((got[:, 0] == rows).all() for rows, got in blocks)
    assert len(list(blocks.sample(1))) == 1


def test_constant_images_are_no_exception():
    found = nearest_neighbours(np.ones((1, 1, 8, 8)), np.zeros((3, 1, 8, 8)), shift=1)
    assert found["distance"].item() == 1

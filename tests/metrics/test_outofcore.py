"""Features and moments over Dask: the numbers of what is in memory, a few blocks at a time."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from galdiff.errors import DataError
from galdiff.metrics import Moments, features_of, frechet_distance, moments_of, physical_features
from galdiff.simulate import simulate_galaxies


def extract(images):
    """Return some features of every image by itself: sums in an order that no batch changes."""
    x = images.astype(np.float64)
    return np.stack([x.mean((1, 2, 3)), x.max((1, 2, 3)), np.square(x).sum((1, 2, 3))], axis=1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(530, 2, 6, 6)).astype(np.float32)


@pytest.fixture
def stored(images, tmp_path):
    array = zarr.create_array(tmp_path / "images.zarr", shape=images.shape, chunks=(50, 2, 6, 6), dtype="float32")
    array[:] = images
    return array


@pytest.mark.parametrize("rows", [1, 64, 10_000])
def test_the_same_from_a_store_a_dask_array_and_memory(stored, images, rows):
    expected = extract(images)
    kinds = (stored, da.from_zarr(stored), xr.DataArray(images), xr.DataArray(da.from_zarr(stored)))
    for source in kinds:
        features = features_of(source, extract, batch=32, rows=rows)
        assert features.shape == (530, 3)
        np.testing.assert_allclose(features, expected, rtol=1e-10)
        mean, covariance = moments_of(features).compute()
        np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-10)
        np.testing.assert_allclose(covariance, np.cov(expected, rowvar=False), rtol=1e-10)
    half = features[:200], features[200:]
    distance = frechet_distance(*(moments_of(part) for part in half))
    assert distance == pytest.approx(frechet_distance(expected[:200], expected[200:]), rel=1e-10)


def test_physical_features_in_the_same_batches_are_the_same_bits():
    galaxies, _ = simulate_galaxies(40, seed=0, size=32)
    galaxies = np.asarray(galaxies)
    in_memory = np.concatenate([physical_features(galaxies[i : i + 16]) for i in range(0, 40, 16)])
    np.testing.assert_array_equal(features_of(galaxies, physical_features, batch=16, rows=16), in_memory)


def test_few_images_are_in_memory_at_a_time(images):
    """Of 530 images no more than the blocks of the workers are ever alive."""
    alive, most = [0], [0]

    class Source:
        shape, dtype, ndim = (5300, 2, 6, 6), np.dtype("float32"), 4

        def __getitem__(self, index):
            block = np.ones(self.shape, "float32")[index]
            alive[0] += len(block)
            most[0] = max(most[0], alive[0])
            return block

    def counted(batch):
        alive[0] -= len(batch)
        return extract(batch)

    with dask.config.set(scheduler="threads", num_workers=2):
        found = moments_of(features_of(Source(), counted, batch=10, rows=100))
    assert found.count == 5300
    # The first image, by which the width was found, came with its block.
    assert most[0] <= 4 * 100


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_bit(stored, workers):
    with dask.config.set(scheduler="threads", num_workers=workers):
        found = moments_of(features_of(stored, extract, batch=8, rows=8))
    with dask.config.set(scheduler="synchronous"):
        expected = moments_of(features_of(stored, extract, batch=8, rows=8))
    assert (found.scatter == expected.scatter).all()
    assert isinstance(found, Moments)


def test_bad_images_and_extractors(images):
    with pytest.raises(DataError, match="shape"):
        features_of(images[:0], extract)
    with pytest.raises(DataError, match="shape"):
        features_of([1, 2], extract)
    with pytest.raises(DataError, match="batches of 0"):
        features_of(images, extract, batch=0)
    with pytest.raises(DataError, match="1 rows of features for 2 images"):
        features_of(images[:3], lambda x: extract(x)[:1], batch=2, rows=2).compute()
    with pytest.raises(DataError, match="not finite"):
        features_of(images, lambda x: extract(x) * np.nan)
    with pytest.raises(DataError, match="not \\(sample, feature\\)"):
        moments_of(da.ones((3, 2, 2)))

"""Encoding into the latent store: neither workers, nor a cluster, nor an interruption change a bit."""

import numpy as np
import pytest
import torch

from galdiff.autoencoder import KLAutoencoder
from galdiff.data.stretch import Linear
from galdiff.errors import ResourceError
from galdiff.imageformat import ImageFormat
from galdiff.latents import CutoutStore, LatentStore
from galdiff.nn import dihedral
from galdiff.pipeline import write_latents
from galdiff.schema.conditions import Conditions, ConditionSchema, Scalar

N = 4400  # two shards


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoding")
    z = torch.arange(float(N))
    cutouts = CutoutStore.create(
        folder / "cutouts.zarr",
        shape=(1, 8, 8),
        bands=("g",),
        dtype="float16",
        ids=np.arange(N),
        split=np.full(N, "train"),
        conditions=Conditions({"z": z}, {"z": z >= 0}),
        schema=ConditionSchema([Scalar("z")]),
    )
    for k in cutouts.missing_shards():
        part = cutouts.shard_rows(k)
        cutouts.write_shard(k, np.random.default_rng(k).random((part.stop - part.start, 1, 8, 8)))
    cutouts.finish()
    torch.manual_seed(0)
    autoencoder = KLAutoencoder(1, factor=4, channels=2, width=8, blocks=1).eval()
    form = ImageFormat(("g",), 8, "display", Linear().fit(np.array([[[[0.0, 1.0]]]])))

    def run(name, **options):
        path = folder / name
        given = {"image_format": form, "device": torch.device("cpu"), "autoencoder_hash": "0", **options}
        return write_latents(CutoutStore.open(folder / "cutouts.zarr"), autoencoder, path, **given)

    run.cutouts, run.autoencoder, run.form, run.folder = cutouts, autoencoder, form, folder
    return run


@pytest.fixture(scope="module")
def alone(encode):
    return encode("alone.zarr")


def same(one, other):
    return one.attrs == other.attrs and all(np.array_equal(one.read(n), other.read(n)) for n in one.arrays)


def test_two_workers(encode, alone):
    assert alone.shards == 2
    assert same(encode("two.zarr", workers=2), alone)


def test_an_interruption(encode, alone, monkeypatch):
    write = LatentStore.write_shard

    def once(self, k, **arrays):
        if k == 1:
            raise KeyboardInterrupt
        write(self, k, **arrays)

    monkeypatch.setattr(LatentStore, "write_shard", once)
    with pytest.raises(KeyboardInterrupt):
        encode("cut.zarr")
    monkeypatch.undo()
    assert same(encode("cut.zarr"), alone)


def test_a_cluster(encode, alone):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(protocol="tcp://", **options) as cluster:
        assert same(encode("cluster.zarr", scheduler=cluster.scheduler_address), alone)


def test_a_cluster_that_is_not_there(encode):
    pytest.importorskip("distributed")
    with pytest.raises(ResourceError, match="cannot be reached"):
        encode("none.zarr", scheduler="gopher://127.0.0.1:1")


def test_views_are_latents_of_turned_images(encode):
    store = encode("views.zarr", views=8)
    pixels = torch.from_numpy(encode.cutouts.images(np.arange(256))).float()
    with torch.no_grad():
        for e in (0, 3, 6):
            posterior = encode.autoencoder.encode(encode.form.stretch(dihedral(pixels, torch.full((256,), e))))
            assert np.array_equal(store.read("mean", np.arange(256))[:, e], posterior.mean.half().numpy())

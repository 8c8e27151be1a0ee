"""Stores in places of every kind, what xarray shows of them, and metadata that were tampered with."""

import contextlib
import json

import numpy as np
import pytest
import test_stores as one
import torch
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore, WrapperStore

from galdiff.errors import GaldiffError, StoreError
from galdiff.latents import CutoutStore, LatentStore
from galdiff.latents.inspect import describe, find_damage, open_store
from galdiff.latents.metadata import DIGEST, metadata_digest
from galdiff.latents.place import LocalPlace, Place, place_of


def obstore_memory(_):
    obstore = pytest.importorskip("obstore")
    return zarr.storage.ObjectStore(obstore.store.MemoryStore())


def obstore_local(folder):
    obstore = pytest.importorskip("obstore")
    return zarr.storage.ObjectStore(obstore.store.LocalStore(folder / "o.zarr", mkdir=True))


PLACES = {
    "path": lambda folder: folder / "p.zarr",
    "text": lambda folder: str(folder / "t.zarr"),
    "file-url": lambda folder: f"file://{folder}/a%20file.zarr",
    "local-store": lambda folder: zarr.storage.LocalStore(folder / "l.zarr"),
    "memory": lambda _: MemoryStore(),
    "fsspec": lambda folder: f"memory://{folder.name}/store.zarr",
    "obstore-memory": obstore_memory,
    "obstore-local": obstore_local,
}


@pytest.fixture(params=PLACES)
def target(request, tmp_path):
    return PLACES[request.param](tmp_path)


class TestAnywhere:
    def test_written_in_two_sittings_and_read(self, target):
        store = one.write(one.create("latents", target), shards=2)
        with pytest.raises(StoreError, match="not complete"):
            LatentStore.open(target)
        store.place.unlock()
        again = one.create("latents", target)
        assert list(again.missing_shards()) == [2]
        one.write(again).finish()
        store = LatentStore.open(target)
        for k in range(store.shards):
            for name, written in one.values(store, k).items():
                assert np.array_equal(store.read(name)[store.shard_rows(k)], written)
        assert np.array_equal(store.rows("test"), np.arange(2, len(store), 3))
        assert torch.equal(store.conditions().values["votes"], one.conditions(len(store)).values["votes"])
        assert not store.place.exists(".journal/begun.json")
        finished = one.create("latents", target)
        assert finished.complete
        assert not list(finished.missing_shards())

    def test_a_lost_shard_and_a_flipped_byte(self, target):
        one.write(one.create("latents", target)).finish()
        store = LatentStore.open(target)
        key = "mean/c/1/0/0/0"
        data = store.place.get(key)
        store.place.put(key, data[:99] + bytes([data[99] ^ 4]) + data[100:])
        assert store.verify() == [1]
        with pytest.raises(StoreError, match="shard 1 of 'mean' is damaged"):
            store.read("mean")
        store.place.delete(key)
        with pytest.raises(StoreError, match="shard 1 of 'mean' is missing"):
            store.read("mean")

    def test_a_creation_that_was_cut_off(self, monkeypatch):
        target = MemoryStore()
        with monkeypatch.context() as cut:
            cut.setattr(Place, "put", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                one.create("latents", target)
        one.write(one.create("latents", target)).finish()
        assert LatentStore.open(target).verify() == []

    def test_the_group_of_someone_else_is_left_alone(self):
        target = MemoryStore()
        zarr.open_group(target, attributes={"thesis": "years of work"})
        with pytest.raises(StoreError):
            one.create("latents", target)
        assert zarr.open_group(target, mode="r").attrs["thesis"] == "years of work"


class Refused(WrapperStore):
    """A store whose credentials are refused, for writing or for everything."""

    def __init__(self, store, only=("get", "set", "exists", "delete")):
        super().__init__(store)
        self.only = only

    def _with_store(self, store):
        return type(self)(store, self.only)

    def _refuse(self, what):
        if what in self.only:
            raise RuntimeError("403 Forbidden\n\nDebug source: RetryErrorImpl { … }")

    async def get(self, *args, **kwargs):
        self._refuse("get")
        return await super().get(*args, **kwargs)

    async def set(self, *args, **kwargs):
        self._refuse("set")
        return await super().set(*args, **kwargs)

    async def exists(self, *args):
        self._refuse("exists")
        return await super().exists(*args)

    async def delete(self, *args):
        self._refuse("delete")
        return await super().delete(*args)


class TestRefusals:
    @pytest.mark.parametrize("reach", [LatentStore.open, open_store, lambda s: one.create("latents", s)])
    def test_of_credentials_are_one_error(self, reach):
        with pytest.raises(StoreError, match=r"cannot be reached: RuntimeError: 403 Forbidden\. See that") as caught:
            reach(Refused(MemoryStore()))
        assert "Debug" not in str(caught.value)

    def test_of_writing_are_one_error_and_lose_nothing(self):
        memory = MemoryStore()
        with pytest.raises(StoreError, match="cannot be reached: RuntimeError: 403"):
            one.create("latents", Refused(memory, only=("set", "delete")))
        one.write(one.create("latents", memory), shards=2)
        readable = one.create("latents", Refused(memory, only=("set", "delete")))
        with pytest.raises(StoreError, match="cannot be reached: RuntimeError: 403"):
            one.write(readable)
        one.write(one.create("latents", memory)).finish()
        assert LatentStore.open(memory).verify() == []


def test_what_a_url_names(tmp_path):
    assert isinstance(place_of(tmp_path), LocalPlace)
    assert place_of("file:///data/a%20b").path.as_posix() == "/data/a b"
    with pytest.raises(StoreError, match="nothing can open"):
        place_of("gopher9://x/y")


class TestXarray:
    def test_it_shows_a_catalog_without_a_warning(self, tmp_path):
        one.write(one.create("latents", tmp_path / "a.zarr")).finish()
        with xr.open_zarr(tmp_path / "a.zarr") as data:  # warnings are errors
            assert data["redshift"].attrs["units"] == "1"
            assert data["morphology"].attrs["flag_meanings"] == "spiral smooth"
            assert {"votes_answer", "votes_question"} <= set(data.coords)
            spiral = "t04_spiral_a08_spiral"
            votes = one.conditions(len(data["id"])).values["votes"]
            column = one.GZ2_TREE.find(spiral)[1]
            assert np.array_equal(data["votes"].sel(votes_answer=spiral).values, votes[:, column].numpy())
            assert all("description" in data[name].attrs for name in data.variables if name not in ("mean", "log_var"))


class TestMasks:
    def test_round_trip_and_a_lost_shard(self, tmp_path):
        store = one.create("cutouts", tmp_path / "a.zarr", masks=True)
        known = {}
        for k in store.missing_shards():
            image = one.values(store, k)["image"]
            known[k] = None if k == 0 else np.random.default_rng(k).random(image.shape) < (0.5 if k == 1 else 0)
            store.write_shard(k, image, known[k])
        store.finish()
        store = CutoutStore.open(tmp_path / "a.zarr")
        assert store.masks()[store.shard_rows(0)].all()
        for k in (1, 2):
            assert np.array_equal(store.masks()[store.shard_rows(k)], known[k])
        (tmp_path / "a.zarr/mask/c/2/0/0/0").unlink()
        with pytest.raises(StoreError, match="missing"):
            store.masks()

    def test_a_store_without(self, tmp_path):
        store = one.create("cutouts", tmp_path / "a.zarr")
        assert store.masks(np.arange(2)).all()
        with pytest.raises(StoreError, match="no masks"):
            store.write_shard(0, one.values(store, 0)["image"], np.ones((1,), bool))


class TestInspect:
    def test_damage_is_named_and_only_it_is_written_again(self, tmp_path):
        path = tmp_path / "a.zarr"
        one.write(one.create("latents", path)).finish()
        before = LatentStore.open(path)
        assert find_damage(before) == []
        text = "\n".join(describe(before))
        assert "9,000 in 3 shards (test 3,000, train 6,000)" in text
        file = path / "mean/c/1/0/0/0"
        data = file.read_bytes()
        row = 300  # in the second chunk of 256
        place = row * len(data) // 4096
        file.write_bytes(data[:place] + bytes([data[place] ^ 8]) + data[place + 1 :])
        (found,) = find_damage(open_store(path))
        assert (found.shard, found.name, found.rows) == (1, "mean", slice(4096 + 256, 4096 + 512))
        assert found.ids[0] == str(before.ids[4096 + 256])
        open_store(path).reopen([1])
        store = one.create("latents", path)
        assert list(store.missing_shards()) == [1]
        one.write(store).finish()
        assert LatentStore.open(path).attrs == before.attrs

    def test_a_missing_shard_and_a_damaged_column(self, tmp_path):
        path = tmp_path / "a.zarr"
        one.write(one.create("latents", path)).finish()
        (path / "log_var/c/2/0/0/0").unlink()
        column = next(p for p in (path / "redshift" / "c").rglob("*") if p.is_file())
        column.write_bytes(column.read_bytes()[:-50])
        found = find_damage(open_store(path))
        assert {(part.shard, part.name) for part in found} == {(None, "redshift"), (2, "log_var")}
        assert all("missing" in part.why for part in found if part.shard == 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9999) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def metadata():
    """A finished store in memory, and its keys of metadata."""
    target = MemoryStore()
    split = np.array(["train"] * 40)
    ids, fields = np.arange(40), one.conditions(40)
    store = LatentStore.create(target, shape=(1, 2, 2), ids=ids, split=split, conditions=fields, schema=one.SCHEMA)
    store.write_shard(0, mean=np.ones((40, 1, 2, 2)), log_var=np.zeros((40, 1, 2, 2)))
    store.finish()
    keys = ["zarr.json", *(f"{name}/zarr.json" for name in store.attrs["arrays"])]
    return place_of(target), {key: store.place.get(key) for key in keys}


def paths(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths(value[key], (*path, key))


class TestFuzz:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_mutated_metadata_are_refused_or_harmless(self, metadata, data):
        place, originals = metadata
        key = data.draw(
            st.sampled_from(["zarr.json", "zarr.json", "mean/zarr.json", "id/zarr.json", "split/zarr.json"])
        )
        meta = json.loads(originals[key])
        path = data.draw(st.sampled_from(list(paths(meta))))
        new = data.draw(JSON)
        if not path:
            meta = new
        else:
            here = meta
            for step in path[:-1]:
                here = here[step]
            here[path[-1]] = new
        try:
            place.put(key, json.dumps(meta).encode())
            if data.draw(st.booleans()):  # as one who knows how it is hashed would
                with contextlib.suppress(GaldiffError, TypeError, KeyError, AttributeError, ValueError):
                    root = json.loads(place.get("zarr.json"))
                    root["attributes"][DIGEST] = metadata_digest(place, root["attributes"])
                    place.put("zarr.json", json.dumps(root).encode())
            with contextlib.suppress(GaldiffError):
                store = LatentStore.open(place)
                store.memory("train")
                store.verify()
        finally:
            for name, raw in originals.items():
                place.put(name, raw)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=60), st.integers(0, 2000))
    def test_bytes_in_the_place_of_metadata(self, metadata, raw, at):
        place, originals = metadata
        whole = originals["zarr.json"]
        try:
            place.put("zarr.json", whole[:at] + raw + whole[at + len(raw) :])
            with contextlib.suppress(GaldiffError):
                LatentStore.open(place).memory("train")
        finally:
            place.put("zarr.json", whole)

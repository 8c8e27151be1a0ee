"""Images in HDF5 files, in the layouts of Galaxy10 and in others."""

import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from galdiff import HDF5Dataset
from galdiff.data.hdf5 import GALAXY10_DECALS, GALAXY10_SDSS
from galdiff.errors import DataError, parts_of

N, SIDE = 40, 24
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
ANS = (np.arange(N) % 10).astype(np.uint8)


def galaxy10(path, **more):
    """A file as Leung and Bovy's: the same names, types and axes."""
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=IMAGES, **more)
        file["ans"] = ANS
        file["ra"] = np.linspace(0, 359, N)
        file["dec"] = np.linspace(-10, 60, N)
        file["redshift"] = np.where(np.arange(N) % 4, np.linspace(0.01, 0.2, N), np.nan)
        file["pxscale"] = np.full(N, 0.262)
    return path


@pytest.fixture
def path(tmp_path):
    return galaxy10(tmp_path / "Galaxy10_DECals.h5")


class TestGalaxy10:
    def test_images_labels_and_table(self, path):
        data = HDF5Dataset(path.parent, size=None, classes="galaxy10_decals", scalars={"redshift": ""})
        assert len(data) == N
        assert data.ids.tolist() == list(range(N))
        for i in (0, 7, N - 1):
            assert np.array_equal(data.read(i), IMAGES[i].transpose(2, 0, 1) / np.float32(255))
        assert data.schema.by_name["morphology"].classes == tuple(GALAXY10_DECALS.values())
        assert data.conditions.values["morphology"].tolist() == ANS.tolist()
        assert {"ra", "dec", "redshift", "pxscale", "ans"} <= set(data.table.columns)
        assert data.unit == "display"

    def test_a_redshift_that_is_not_known_is_masked(self, path):
        data = HDF5Dataset(path, scalars=["redshift"])
        field, mask = data.schema.by_name["redshift"], data.conditions.masks["redshift"].numpy()
        assert np.array_equal(mask, np.arange(N) % 4 != 0)
        known = data.conditions.values["redshift"].numpy()[mask].astype(float)
        np.testing.assert_allclose([field.mean, field.std], [known.mean(), known.std()], rtol=1e-5)
        assert torch.isfinite(data.conditions.values["redshift"]).all()

    def test_the_older_one_has_its_own_classes(self, path):
        data = HDF5Dataset(path, classes="galaxy10_sdss")
        assert data.schema.by_name["morphology"].classes == tuple(GALAXY10_SDSS.values())
        with pytest.raises(DataError, match="unknown classes 'galaxy11'"):
            HDF5Dataset(path, classes="galaxy11")

    def test_numbers_of_the_other_byte_order_are_the_same_numbers(self, tmp_path):
        deep = IMAGES.astype(">u2") * 257
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file.update({"images": deep, "ans": ANS.astype(">i4"), "objid": np.arange(N, dtype=">i8") + 10**17})
            file["redshift"] = np.linspace(0.01, 0.2, N).astype(">f4")
        data = HDF5Dataset(tmp_path, size=None, id="objid", scalars=["redshift"], where="redshift > 0.1")
        rows = np.flatnonzero(np.linspace(0.01, 0.2, N) > 0.1)
        assert data.ids.tolist() == (rows + 10**17).tolist()
        assert data.conditions.values["morphology"].tolist() == ANS[rows].tolist()
        np.testing.assert_allclose(data.read(3), IMAGES[rows[3]].transpose(2, 0, 1) / 255, atol=1e-6)

    def test_selected_rows_are_their_own_images(self, path):
        data = HDF5Dataset(path, size=None, where="ans == 3 and redshift > 0.05", limit=2)
        expected = [i for i in range(N) if ANS[i] == 3 and i % 4 and np.linspace(0.01, 0.2, N)[i] > 0.05][:2]
        assert data.ids.tolist() == expected
        for i, row in enumerate(expected):
            assert np.array_equal(data.read(i), IMAGES[row].transpose(2, 0, 1) / np.float32(255))


class TestLayouts:
    def file(self, tmp_path, **datasets):
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            for name, values in datasets.items():
                file[name.replace("__", "/")] = values
        return tmp_path

    def test_bands_first_other_names_and_text_ids(self, tmp_path):
        ids = [f"J{i}" for i in range(N)]
        root = self.file(tmp_path, set__stamps=IMAGES.transpose(0, 3, 1, 2), set__kind=ANS, set__name=ids)
        names = {"images": "set/stamps", "label": "set/kind", "id": "set/name"}
        data = HDF5Dataset(root, **names, size=None, bands=["i", "r", "g"])
        assert data.ids.tolist() == ids
        assert data.bands == ("i", "r", "g")
        assert np.array_equal(data.read(3), IMAGES[3].transpose(2, 0, 1) / np.float32(255))

    def test_one_band_of_floats_under_a_unit(self, tmp_path):
        flux = RANDOM.normal(0, 1e-9, (6, 10, 10)).astype(">f8")
        root = self.file(tmp_path, images=flux)
        with pytest.raises(DataError, match="no display range"):
            HDF5Dataset(root, label=None)
        data = HDF5Dataset(root, label=None, unit="nanomaggy", size=None, stretch="asinh")
        assert np.array_equal(data.read(2)[0], flux[2].astype(np.float32))
        assert (data.bands, data.storage_dtype, data.schema.fields) == (("grey",), "float32", ())

    def test_16_bits_keep_them(self, tmp_path):
        deep = RANDOM.integers(0, 65_536, (4, 8, 8), dtype=np.uint16)
        data = HDF5Dataset(self.file(tmp_path, images=deep), label=None, size=None)
        assert np.array_equal(np.round(data.read(1)[0] * np.float32(65_535)), deep[1])
        assert data.storage_dtype == "float32"

    def test_a_shape_that_is_not_clear_asks_for_the_layout(self, tmp_path):
        cube = RANDOM.integers(0, 256, (2, 5, 5, 5), dtype=np.uint8)
        root = self.file(tmp_path, images=cube)
        with pytest.raises(DataError, match="does not say where the bands are"):
            HDF5Dataset(root, label=None)
        first = HDF5Dataset(root, label=None, layout="bands_first", size=None).read(0)
        last = HDF5Dataset(root, label=None, layout="bands_last", size=None).read(0)
        assert np.array_equal(first, cube[0] / np.float32(255))
        assert np.array_equal(last, cube[0].transpose(2, 0, 1) / np.float32(255))


class TestChunks:
    @pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what Linux says was read")
    def test_reading_in_order_decodes_every_chunk_once(self, tmp_path):
        noise = np.random.default_rng(1).integers(0, 256, (256, 128, 128, 3), dtype=np.uint8)  # does not compress
        path = tmp_path / "chunks.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=noise, chunks=(256, 64, 64, 3), compression="gzip", compression_opts=1)
        data = HDF5Dataset(path, label=None, size=None)

        def read():
            return int(Path("/proc/self/io").read_text().split()[1])

        data.load(0)
        before = read()
        for i in range(len(data)):
            data.load(i)
        assert read() - before < 1.1 * path.stat().st_size


def child(data, queue):
    queue.put((os.getpid(), float(data.read(5).sum()), float(data.read(30).sum())))


class TestProcesses:
    @pytest.fixture
    def data(self, tmp_path):
        galaxy10(tmp_path / "a.h5", chunks=(7, 8, 8, 3), compression="gzip")
        return HDF5Dataset(tmp_path, size=None)

    @pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_children_read_the_same_whether_the_parent_has_read_or_not(self, data, method):
        context = multiprocessing.get_context(method)
        expected = [float(data.read(i).sum()) for i in (5, 30)]
        queue = context.Queue()
        children = [context.Process(target=child, args=(data, queue)) for _ in range(2 if method == "fork" else 1)]
        for process in children:
            process.start()
        got = [queue.get(timeout=300) for _ in children]
        for process in children:
            process.join()
        assert len({os.getpid(), *(pid for pid, *_ in got)}) == len(children) + 1
        assert all(list(sums) == expected for _, *sums in got)
        assert float(data.read(5).sum()) == expected[0]  # and the parent's file is still open

    def test_pickles_hold_no_handle(self, data):
        data.read(0)
        again = pickle.loads(pickle.dumps(data))
        assert np.array_equal(again.read(9), data.read(9))

    def test_threads(self, data):
        expected = IMAGES.transpose(0, 3, 1, 2) / np.float32(255)
        wrong = []

        def work(rows):
            wrong.extend(i for i in rows if not np.array_equal(data.read(i), expected[i]))

        threads = [threading.Thread(target=work, args=(range(k, N, 4),)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestRefusals:
    def test_links_to_other_files(self, path, tmp_path):
        with h5py.File(tmp_path / "link.h5", "w") as file:
            file["images"] = h5py.ExternalLink(path.name, "images")
            file["group"] = h5py.ExternalLink(path.name, "/")
            file["soft"] = h5py.SoftLink("/group/images")
            layout = h5py.VirtualLayout(shape=IMAGES.shape, dtype=np.uint8)
            layout[:] = h5py.VirtualSource(str(path), "images", shape=IMAGES.shape)
            file.create_virtual_dataset("virtual", layout)
            file.create_dataset("raw", (N, 8, 8), np.uint8, external=[(str(path), 0, N * 64)])
        for name in ("images", "group/images", "soft", "virtual", "raw"):
            with pytest.raises(DataError, match="another file"):
                HDF5Dataset(tmp_path / "link.h5", images=name, label=None)

    def test_links_beside_the_images_are_not_followed(self, path, tmp_path):
        with h5py.File(path, "a") as file:
            file["elsewhere"] = h5py.ExternalLink("gone.h5", "x")
        assert "elsewhere" not in HDF5Dataset(path).table.columns

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"images": "pictures"}, "there is no dataset 'pictures'"),
            ({"label": "label"}, "there is no dataset 'label'"),
            ({"label": "images"}, "not one number or text for 40 images"),
            ({"id": "redshift"}, "floating-point"),
            ({"id": "ans"}, "is there twice"),
            ({"bands": ["g", "r"]}, "2 names for 3 bands"),
            ({"layout": "bands"}, "unknown layout"),
            ({"where": "anz > 3"}, "anz"),
            ({"file": "Galaxy10.h5"}, "missing"),
        ],
    )
    def test_mistakes_are_said(self, path, arguments, message):
        with pytest.raises(DataError, match=message):
            HDF5Dataset(path.parent, **arguments)

    @pytest.mark.parametrize(
        ("arguments", "messages"),
        [
            ({"images": "pictures", "label": "kind", "id": "name"}, ["'pictures'", "'kind'", "'name'"]),
            ({"images": "pictures", "scalars": ["z"], "classes": "galaxy11"}, ["'pictures'", "'z'", "galaxy11"]),
            ({"label": "images", "id": "one", "bands": "ab"}, ["'images' has shape", "'one' has", "2 names"]),
            ({"images": "flux", "bands": "ab", "label": "one"}, ["no display range", "2 names", "'one' has"]),
            ({"scalars": ["name", "nothing"], "label": None}, ["'name' does not hold", "'nothing' holds not one"]),
        ],
    )
    def test_mistakes_that_are_apart_are_told_together(self, path, arguments, messages):
        with h5py.File(path, "a") as file:
            more = {"flux": np.ones((N, 8, 8, 3), np.float32), "nothing": np.full(N, np.nan)}
            file.update({"one": np.zeros(1), **more})
            if "scalars" in arguments and "nothing" in arguments["scalars"]:
                file["name"] = [f"J{i}" for i in range(N)]
        with pytest.raises(DataError) as caught:
            HDF5Dataset(path, **arguments)
        lines = [str(part) for part in parts_of(caught.value)]
        assert len(lines) == len(messages)
        assert all(sum(message in line for line in lines) == 1 for message in messages)

    @pytest.mark.parametrize("keep", [0, 8, 600, 5000])
    def test_a_file_that_was_cut(self, path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match="cannot be read as HDF5"):
            HDF5Dataset(path)

    def test_a_chunk_that_was_changed_is_named_when_it_is_read(self, tmp_path):
        path = galaxy10(tmp_path / "a.h5", chunks=IMAGES.shape, compression="gzip", fletcher32=True)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot be read as HDF5"):
            HDF5Dataset(path).read(0)


def test_the_fingerprint_sees_every_change(path):
    def prints(**more):
        return str(HDF5Dataset(path, **more).fingerprint())

    changes = ({"size": 32}, {"limit": 3}, {"where": "ans > 3"}, {"label": None}, {"unit": "adu"}, {"bands": "abc"})
    assert len({prints(), *(prints(**more) for more in changes)}) == len(changes) + 1
    assert prints() == prints()

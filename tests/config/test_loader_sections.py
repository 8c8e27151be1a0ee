"""Sections of the catalog file that read files of other kinds build the loader they describe."""

import struct

import h5py
import numpy as np
import pytest
from PIL import Image

from galdiff.config.build import build_dataset
from galdiff.config.load import load
from galdiff.data import HDF5Dataset, IDXDataset, ImageFolderDataset

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 16, 16), dtype=np.uint8)


@pytest.fixture
def build(tmp_path):
    """Write a catalog file with these lines in its data section, and build it."""

    def of(*lines):
        text = "\n".join(["name: x", "data:", "  root: files", *(f"  {line}" for line in lines)])
        (tmp_path / "x.yaml").write_text(text + "\n")
        return build_dataset(load(tmp_path / "x.yaml"), tmp_path / "run")

    (tmp_path / "files").mkdir()
    return of


def test_idx(build, tmp_path):
    values = struct.pack(">BBBB3I", 0, 0, 8, 3, *IMAGES.shape) + IMAGES.tobytes()
    (tmp_path / "files" / "t10k-images-idx3-ubyte").write_bytes(values)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 20) + bytes(i % 2 for i in range(20))
    (tmp_path / "files" / "t10k-labels-idx1-ubyte").write_bytes(labels)
    data = build("kind: idx", "classes: {0: even, 1: odd}", "name: parity", "limit: 7")
    assert isinstance(data, IDXDataset)
    assert (len(data), data.size, data.schema.fields[0].classes) == (7, 32, ("even", "odd"))


def test_hdf5(build, tmp_path):
    with h5py.File(tmp_path / "files" / "Galaxy10.h5", "w") as file:
        file["images"] = np.stack([IMAGES] * 3, axis=-1)
        file["ans"] = (np.arange(20) % 10).astype(np.uint8)
        file["redshift"] = np.linspace(0, 1, 20)
    data = build("kind: hdf5", "classes: galaxy10_sdss", "scalars: {redshift: z}", "size: 16")
    assert isinstance(data, HDF5Dataset)
    assert [f.name for f in data.schema.fields] == ["morphology", "redshift"]
    assert np.array_equal(data.read(2)[0], IMAGES[2] / np.float32(255))
    assert build("kind: hdf5", "label: null").schema.fields == ()


def test_image_folder(build, tmp_path):
    for i, level in enumerate((10, 20)):
        path = tmp_path / "files" / f"0000{i}" / f"{i}.png"
        path.parent.mkdir()
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(path)
    (tmp_path / "files" / "t.csv").write_text("path,kind,bar,mass\n00001/1.png,a,x,10.5\n00000/0.png,b,y,\n")
    data = build(
        *("kind: image_folder", "table: t.csv", "file: path", "label: kind"), "attributes: [bar]", "scalars: [mass]"
    )
    assert isinstance(data, ImageFolderDataset)
    assert [f.name for f in data.schema.fields] == ["morphology", "bar", "mass"]
    assert data.conditions.masks["mass"].tolist() == [True, False]
    assert build("kind: image_folder", "folders: ignore").schema.fields == ()

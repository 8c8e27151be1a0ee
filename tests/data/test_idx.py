"""MNIST's files: read as they come, and refused in one sentence where they are not what they say."""

import gzip
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galdiff import IDXDataset
from galdiff.data.idx import read_idx
from galdiff.errors import DataError, parts_of

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 9, 9), dtype=np.uint8)
LABELS = np.array([3, 1, 0, 2, 3, 1, 0, 2, 3, 1, 0, 2], dtype=np.uint8)


def idx(values):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(path, data):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(params=["", ".gz"])
def folder(tmp_path, request):
    write(tmp_path / f"t10k-images-idx3-ubyte{request.param}", idx(IMAGES))
    write(tmp_path / f"t10k-labels-idx1-ubyte{request.param}", idx(LABELS))
    return tmp_path


def test_images_and_labels_are_those_of_the_files(folder):
    data = IDXDataset(folder, size=None)
    assert data.ids.tolist() == list(range(12))
    assert data.bands == ("grey",)
    assert data.schema.fields[0].classes == ("0", "1", "2", "3")
    assert data.conditions.values["digit"].tolist() == LABELS.tolist()
    for i in range(12):
        assert np.array_equal(data.read(i), IMAGES[i][None] / np.float32(255))
    assert data.storage_dtype == "float16"


def test_names_selections_and_limits(folder):
    names = {0: "zero", 1: "one", 2: "two", 3: "three"}
    data = IDXDataset(folder, size=None, classes=names, name="figure", where="label != 3", limit=4)
    assert data.ids.tolist() == [1, 2, 3, 5]
    assert data.schema.ask(1, figure="two").values["figure"].item() == 2
    assert data.conditions.values["figure"].tolist() == [1, 0, 2, 1]
    assert np.array_equal(data.read(3)[0], IMAGES[5] / np.float32(255))
    assert data.fingerprint() != IDXDataset(folder, size=None).fingerprint()


def test_images_without_labels_are_unconditional(tmp_path):
    write(tmp_path / "my-images.idx3", idx(IMAGES))
    assert IDXDataset(tmp_path, images="my-images.idx3").schema.fields == ()


def test_counts_that_differ_are_both_said(folder):
    write(folder / "few", idx(LABELS[:5]))
    with pytest.raises(DataError, match="12 images and 5 labels"):
        IDXDataset(folder, labels="few")


@pytest.mark.parametrize("images", ["t10k-images-idx3-ubyte", "absent", None])
@pytest.mark.parametrize("labels", ["absent-labels", None])
def test_images_and_labels_are_judged_together(tmp_path, images, labels):
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        write(tmp_path / name, b"GIF89a")
    with pytest.raises(DataError) as caught:
        IDXDataset(tmp_path, images=images, labels=labels)
    places = [part.where for part in parts_of(caught.value)]
    named = images or "t10k-images-idx3-ubyte"
    beside = [] if images == "absent" else ["t10k-labels-idx1-ubyte"]  # nothing is called as what is not there
    assert places == [str(tmp_path / name) for name in (named, *([labels] if labels else beside))]


def test_two_sets_are_not_guessed_at(folder):
    write(folder / "train-images-idx3-ubyte", idx(IMAGES))
    with pytest.raises(DataError, match=r"there are 2 files of images: t10k-images.*train-images"):
        IDXDataset(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "two zeros"),
        (b"\x89PNG\r\n\x1a\n", "two zeros"),
        (idx(LABELS), "1 axes, not unsigned bytes"),
        (b"\0\0\x0d\3" + bytes(12), "type 0x0d"),
        (b"\0\0\x08\3\0\0", "ends inside its header"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "4294967295 x 4294967295"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 9, 9), "0 x 9 x 9"),
        (idx(IMAGES)[:-1], "header says"),
        (idx(IMAGES) + b"\0", "the file has more"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_not_idx_is_refused(tmp_path, data, message, suffix):
    path = write(tmp_path / f"images{suffix}", data)
    with pytest.raises(DataError, match=message):
        read_idx(path, rank=3)


def test_a_gzip_that_was_cut_or_changed(tmp_path):
    path = write(tmp_path / "images.gz", idx(IMAGES))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path, rank=3)
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])  # its checksum
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path, rank=3)


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_an_array_or_a_named_error(tmp_path, data, header):
    path = tmp_path / "fuzzed"
    path.write_bytes(b"\0\0\x08\1" + data if header else data)
    with suppress(DataError):
        assert read_idx(path, rank=1).dtype == np.uint8


@pytest.mark.parametrize("suffix", ["", ".gz"])
@given(st.integers(0, 2**20), st.integers(1, 255))
def test_a_flipped_byte_is_an_array_or_a_named_error(tmp_path, suffix, place, flip):
    path = write(tmp_path / f"fuzzed{suffix}", idx(IMAGES))
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= flip
    path.write_bytes(data)
    with suppress(DataError):
        read_idx(path, rank=3)


class TestRealFiles:
    def test_the_ten_thousand(self, real_data):
        data = IDXDataset(real_data("mnist"))
        assert len(data) == 10_000
        assert np.bincount(data.conditions.values["digit"]).tolist() == [
            *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
        ]
        assert data.load(0).shape == (1, 28, 28)
        assert data.read(9_999).shape == (1, 32, 32)
        # Zeros are round and dark in the middle, ones are not.
        digit = data.conditions.values["digit"].numpy()
        middle = np.array([data.load(i)[0, 12:16, 12:16].mean() for i in range(500)])
        assert middle[digit[:500] == 0].mean() < 0.1 < 0.5 < middle[digit[:500] == 1].mean()

"""The one reader that meets pickles: nothing in a file executes, and every refusal names the file."""

import io
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galdiff.data.npy import read_npy
from galdiff.errors import DataError, GaldiffError


def save(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def pair(image=None, mass=1.5e-23):
    image = np.arange(12.0).reshape(3, 4) if image is None else image
    array = np.empty(2, dtype=object)
    array[0], array[1] = image, mass
    return array


def npy(header, data=b""):
    header = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def object_npy(payload):
    return npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", payload)


class TestPlainArrays:
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<i8", ">i2", "u1", "?", "<f2", "<u4"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_numbers_of_any_type_and_order(self, tmp_path, dtype, order):
        values = np.asarray(np.arange(24).reshape(2, 3, 4) % 2, dtype=dtype, order=order)
        (read,) = read_npy(save(tmp_path / "a.npy", values))
        assert read.dtype.isnative
        assert read.dtype in (np.float32, np.float64)
        np.testing.assert_array_equal(read, values.astype(float))

    def test_large_counts_are_exact(self, tmp_path):
        values = np.array([2**40 + 1, 3])
        np.testing.assert_array_equal(read_npy(save(tmp_path / "a.npy", values))[0], values)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x93NUMPY",
            b"\x93NUMPY\x09\x00\x00\x00",
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (300000000,), }"),
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1180591620717411303424,), }"),
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }", bytes(8)),
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 3), }"),
            npy("{'descr': ('|u1',), 'fortran_order': False, 'shape': (1,), }", b"a"),
            npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
            npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
            npy("{'descr': '|S4', 'fortran_order': False, 'shape': (1,), }", bytes(4)),
            npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", bytes(8)),
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", bytes(15)),
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", bytes(17)),
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", struct.pack("<d", np.nan)),
            npy("__import__('os').system('true')"),
            npy("(" * 100),
            b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{",
        ],
    )
    @pytest.mark.parametrize("allow", [False, True])
    def test_hostile_and_damaged_files_are_named_errors(self, tmp_path, content, allow):
        path = tmp_path / "bad.npy"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_npy(path, allow_object_arrays=allow)
        assert caught.value.where == str(path)

    def test_a_missing_file_and_a_folder(self, tmp_path):
        with pytest.raises(DataError, match="missing"):
            read_npy(tmp_path / "gone.npy")
        with pytest.raises(DataError):
            read_npy(tmp_path)


class TestObjectArrays:
    @pytest.mark.parametrize("mass", [1.5e-23, np.float64(1.5e-23), np.array(1.5e-23)])
    def test_image_and_mass(self, tmp_path, mass):
        image, read = read_npy(save(tmp_path / "a.npy", pair(mass=mass)), allow_object_arrays=True)
        np.testing.assert_array_equal(image, np.arange(12.0).reshape(3, 4))
        assert read.shape == ()
        assert float(read) == 1.5e-23

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_every_protocol_that_numpy_wrote(self, tmp_path, protocol):
        payload = pickle.dumps(pair(), protocol=protocol)
        (tmp_path / "a.npy").write_bytes(object_npy(payload))
        (tmp_path / "old.npy").write_bytes(object_npy(payload.replace(b"numpy._core.", b"numpy.core.")))
        if protocol < 4:  # from 4 on, the length of the name is written before it
            np.testing.assert_array_equal(read_npy(tmp_path / "old.npy", allow_object_arrays=True)[0], pair()[0])
        if protocol < 5:
            np.testing.assert_array_equal(read_npy(tmp_path / "a.npy", allow_object_arrays=True)[0], pair()[0])

    def test_without_leave_they_are_refused_with_the_switch_named(self, tmp_path):
        with pytest.raises(DataError, match="object array") as caught:
            read_npy(save(tmp_path / "a.npy", pair()))
        assert "allow_object_arrays" in caught.value.remedy

    @pytest.mark.parametrize(
        "value",
        [
            pair(mass="text"),
            pair(mass=None),
            pair(mass=[1, 2]),
            pair(image=np.array(["a", "b"])),
            pair(image=np.array([1.0, np.nan])),
            pair(image=pair()),
            pair(image=np.zeros(0)),
            np.array([[1, 2], [3, None]], dtype=object),
            np.array([1] * 17, dtype=object),
        ],
    )
    def test_parts_that_are_not_numbers_are_refused(self, tmp_path, value):
        with pytest.raises(DataError):
            read_npy(save(tmp_path / "a.npy", value), allow_object_arrays=True)

    def test_an_array_that_claims_more_than_the_file_holds(self, tmp_path):
        class Claim:
            def __reduce__(self):
                return np.ndarray, ((2**33,), "u1")

        (tmp_path / "a.npy").write_bytes(object_npy(pickle.dumps(pair(image=Claim()))))
        with pytest.raises(DataError, match="not a number"):
            read_npy(tmp_path / "a.npy", allow_object_arrays=True)


@pytest.mark.parametrize("index", [2**16, 2**26, 2**31 - 1])
def test_a_memo_of_any_size_is_not_reserved(tmp_path, index):
    (tmp_path / "a.npy").write_bytes(object_npy(b"\x80\x02Nr" + struct.pack("<I", index) + b"."))
    with pytest.raises(DataError, match=r"not .image"):
        read_npy(tmp_path / "a.npy", allow_object_arrays=True)


def calling(function, *arguments):
    class Payload:
        def __reduce__(self):
            return function, arguments

    return Payload()


def payloads(sentinel):
    """Pickles that would make a file if they were believed."""
    command = f"open({str(sentinel)!r}, 'w').close()"
    touch = f"touch {sentinel}"
    yield from (pickle.dumps(calling(exec, command), protocol=p) for p in range(pickle.HIGHEST_PROTOCOL + 1))
    yield pickle.dumps(calling(eval, command))
    yield pickle.dumps(calling(os.system, touch))
    yield pickle.dumps(calling(os.mknod, str(sentinel)))
    yield pickle.dumps(calling(np.save, str(sentinel), 1))
    yield pickle.dumps(calling(np.memmap, str(sentinel), "u1", "w+", 0, (4,)))
    yield pickle.dumps(calling(subprocess.check_output, ["touch", str(sentinel)]))
    yield pickle.dumps(pair(mass=calling(os.system, touch)))
    yield pickle.dumps(pair(image=np.array([calling(os.system, touch), 1], dtype=object)))
    yield b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR."
    yield b"(S'" + touch.encode() + b"'\nios\nsystem\n."
    yield b"cposix\nsystem\n(S'" + touch.encode() + b"'\ntR."
    yield b"cbuiltins\neval\n(S'" + command.encode().replace(b"'", b'"') + b"'\ntR."
    yield b"cnumpy\nf2py.os.system\n(S'" + touch.encode() + b"'\ntR."
    yield b"\x80\x04\x8c\x05numpy\x8c\x1bndarray.__class__.__mro__.x\x93."
    yield b"cnumpy.core.multiarray\n__builtins__\n."
    yield b"cnumpy._core.multiarray\n_reconstruct\n(cos\nsystem\n(I0\ntS'b'\ntR."
    yield b"P" + touch.encode() + b"\n."
    yield b"\x82\x01."  # the extension registry


def test_no_payload_executes(tmp_path):
    sentinel, path = tmp_path / "executed", tmp_path / "a.npy"
    tried = 0
    for payload in payloads(sentinel):
        path.write_bytes(object_npy(payload))
        for allow in (False, True):
            with pytest.raises(DataError) as caught:
                read_npy(path, allow_object_arrays=allow)
            assert caught.value.where == str(path)
        assert not sentinel.exists(), payload
        tried += 1
    assert tried >= 20


def test_the_payloads_would_work_without_the_guard(tmp_path):
    sentinel, worked = tmp_path / "executed", 0
    for payload in payloads(sentinel):
        try:
            pickle.loads(payload)
        except Exception:
            continue
        worked += sentinel.exists()
        sentinel.unlink(missing_ok=True)
    assert worked >= 10


PLAIN, OBJECTS = io.BytesIO(), io.BytesIO()
np.save(PLAIN, np.arange(6.0).reshape(2, 3))
np.save(OBJECTS, pair(), allow_pickle=True)


@settings(max_examples=400)
@given(
    st.sampled_from([PLAIN.getvalue(), OBJECTS.getvalue()]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4),
    st.integers(0, 60),
)
def test_flipped_bytes_give_numbers_or_a_named_error(tmp_path, original, flips, cut):
    data = bytearray(original[: len(original) - cut * (cut > 40)])
    for place, flip in flips:
        data[place % len(data)] ^= flip
    path = tmp_path / "fuzzed.npy"
    path.write_bytes(data)
    try:
        parts = read_npy(path, allow_object_arrays=True)
    except GaldiffError:
        return
    assert all(part.dtype.kind == "f" and np.isfinite(part).all() for part in parts)

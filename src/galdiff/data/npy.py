"""Reading ``.npy`` and ``.npz`` files: the one place where their bytes become arrays, and nothing in them can execute.

Plain arrays: the header is parsed within a size limit, the type must be a plain number, and the file's length must be
exactly what the header says, before anything is allocated. Object arrays, which DeepLense's simulator writes as
``[image, mass]``, are pickles: with leave they are read by an unpickler that knows the five names of which NumPy makes
an array, and makes of them records that do nothing; the numbers are taken from the records by the same rules.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from galdiff.errors import DataError

__all__ = ["open_array", "read_npy"]

_HEADER = 10_000
_BYTES = 1 << 30
_ARCHIVE = 1 << 35
_PARTS = 16
_STEPS = 2000


class _Record:
    """What a pickle says of an object, which is not made."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments: tuple[Any, ...] = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """State: version, shape, type, whether in Fortran's order, data."""


class _Scalar(_Record):
    """Arguments: type, data."""


class _Type(_Record):
    """Arguments: code such as "f8", and more; state: version, byte order, and more."""


class _Encoded(_Record):
    """Arguments: text, encoding; how old protocols write bytes."""


_NAMES: dict[tuple[str, str], type[_Record]] = {
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy", "ndarray"): _Record,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encoded,
}


class _Records(pickle.Unpickler):
    """Unpickles records; any other name in the file is refused and never looked up."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.", 1)  # as NumPy 1 wrote it
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def read_npy(path: Path, *, allow_object_arrays: bool = False) -> list[np.ndarray]:
    """Read an array file.

    Parameters
    ----------
    path : Path
        The file.
    allow_object_arrays : bool
        Read object arrays of numbers and numeric arrays too, by the restricted reader.

    Returns
    -------
    list of numpy.ndarray
        One float64 or float32 array for a plain file; the parts of an object array, in order.

    Raises
    ------
    DataError
        For anything else than a whole array of finite numbers.
    """
    try:
        return _read(path, allow_object_arrays)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError("the array is missing", where=path) from error
    except MemoryError as error:
        raise DataError("the array is too large", where=path) from error
    except Exception as error:  # a hostile header or pickle can raise anything at all
        raise DataError(f"cannot be read as an array: {error}", where=path) from error


def open_array(path: Path) -> np.ndarray:
    """Open a plain array of any size in its own type, without reading it where that can be.

    Parameters
    ----------
    path : Path
        An ``.npy`` file, which is mapped into memory, or an ``.npz`` archive of one array.

    Raises
    ------
    DataError
        For anything else than a whole array of numbers.
    """
    try:
        if path.suffix.lower() == ".npz":
            return _archived(path)
        with open(path, "rb") as file:
            shape, fortran, dtype = _header(file, path)
            _check_plain(shape, dtype, path.stat().st_size - file.tell(), path)
            return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError("the array is missing", where=path) from error
    except Exception as error:  # as above
        raise DataError(f"cannot be read as an array: {error}", where=path) from error


def _archived(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) != 1:
            names = ", ".join(m.filename.removesuffix(".npy") for m in members[:10])
            raise DataError(f"holds {len(members)} arrays: {names}", where=path, remedy="Save the images alone")
        if members[0].file_size > _ARCHIVE:
            raise DataError(f"the array has {members[0].file_size} bytes, over {_ARCHIVE}", where=path)
        with archive.open(members[0]) as file:
            shape, fortran, dtype = _header(file, path)
            _check_plain(shape, dtype, members[0].file_size - file.tell(), path)
            return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran else "C")


def _read(path: Path, allow_object_arrays: bool) -> list[np.ndarray]:
    size = path.stat().st_size
    if size > _BYTES:
        raise DataError(f"the file has {size} bytes, over {_BYTES}", where=path)
    with open(path, "rb") as file:
        shape, fortran, dtype = _header(file, path)
        if dtype.hasobject:
            if not allow_object_arrays:
                remedy = "Set allow_object_arrays: true to read its numbers by the restricted reader"
                raise DataError("is an object array (a pickle)", where=path, remedy=remedy)
            return [_finite(_numbers(part), path) for part in _parts(_unpickle(file.read()))]
        _check_plain(shape, dtype, size - file.tell(), path)
        values = np.frombuffer(file.read(), dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return [_finite(values, path)]


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, order and type, which are whatever a file says."""
    version = np.lib.format.read_magic(file)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise DataError(f"version {version} of the format is not known", where=path)
    return reader(file, max_header_size=_HEADER)


def _check_plain(shape: tuple[int, ...], dtype: np.dtype, size: int, path: Path) -> None:
    """Refuse what is not numbers, and a header that declares another number of bytes than there are."""
    if dtype.hasobject or dtype.kind not in "iufb" or dtype.names or dtype.itemsize > 8:
        raise DataError(f"holds {dtype}, not numbers", where=path)
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or declared != size:
        raise DataError(f"its header says {declared} bytes of data, it has {size}", where=path)


def _finite(values: np.ndarray, path: Path) -> np.ndarray:
    if values.size == 0:
        raise DataError("the array is empty", where=path)
    kind = (
        np.float32 if values.dtype in (np.dtype("f2"), np.dtype("f4"), np.dtype("u1"), np.dtype("b1")) else np.float64
    )
    values = values.astype(kind)  # native byte order, and counts to floating point
    if not np.isfinite(values).all():
        raise DataError(f"{int((~np.isfinite(values)).sum())} values are NaN or infinite", where=path)
    return values


def _unpickle(data: bytes) -> Any:
    """Unpickle records, from no more steps than they need: the memo's size is whatever number a file gives."""
    for step, (code, argument, _) in enumerate(pickletools.genops(data)):
        if step > _STEPS or ("PUT" in code.name and (argument or 0) > _STEPS):
            raise ValueError("the object array is not [image, value, …]")
    return _Records(io.BytesIO(data)).load()


def _parts(loaded: Any) -> list[Any]:
    """Take an object array apart."""
    if isinstance(loaded, _Array):
        _, shape, kind, _, parts = loaded.state
        if kind.arguments[0] == "O8" and isinstance(parts, list) and len(shape) == 1 and 1 <= len(parts) <= _PARTS:
            return parts
    raise ValueError("the object array is not [image, value, …]")


def _numbers(part: Any) -> np.ndarray:
    """Make a part of an object array, which must be a number or an array of numbers."""
    if isinstance(part, _Array):
        _, shape, kind, fortran, data = part.state
        return np.frombuffer(_bytes(data), _dtype(kind)).reshape(shape, order="F" if fortran else "C")
    if isinstance(part, _Scalar):
        kind, data = part.arguments
        return np.frombuffer(_bytes(data), _dtype(kind)).reshape(())
    if isinstance(part, int | float):
        return np.asarray(part, dtype=np.float64)
    raise ValueError("a part of the object array is not a number or an array of numbers")


def _dtype(kind: Any) -> np.dtype:
    code = f"{kind.state[1]}{kind.arguments[0]}"
    if not re.fullmatch(r"[<>|=][iufb][1248]", code):
        raise ValueError(f"a part of the object array holds '{code}', not numbers")
    return np.dtype(code)


def _bytes(data: Any) -> bytes:
    if isinstance(data, _Encoded) and data.arguments[1:] == ("latin1",):
        data = data.arguments[0].encode("latin1")
    if not isinstance(data, bytes):
        raise ValueError("a part of the object array has no data")
    return data

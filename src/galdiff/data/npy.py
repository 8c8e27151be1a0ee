"""Reading ``.npy`` files: the one place where a file's bytes become arrays, and nothing in them can execute.

Plain arrays: the header is parsed within a size limit, the type must be a plain number, and the file's length must be
exactly what the header says, before anything is allocated. Object arrays, which DeepLense's simulator writes as
``[image, mass]``, are pickles: with leave they are read by an unpickler that knows the four names that rebuild a NumPy
array and no other.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from galdiff.errors import DataError

__all__ = ["read_npy"]

_HEADER = 10_000
_BYTES = 1 << 30
_REBUILDERS = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds NumPy arrays of numbers; any other name in the file is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.", 1)  # as NumPy 1 wrote it
        if (module, name) not in _REBUILDERS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)

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


def _read(path: Path, allow_object_arrays: bool) -> list[np.ndarray]:
    size = path.stat().st_size
    if size > _BYTES:
        raise DataError(f"the file has {size} bytes, over {_BYTES}", where=path)
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if reader is None:
            raise DataError(f"version {version} of the format is not known", where=path)
        shape, fortran, dtype = reader(file, max_header_size=_HEADER)
        if dtype.hasobject:
            if not allow_object_arrays:
                remedy = "Set allow_object_arrays: true to read its numbers by the restricted reader"
                raise DataError("is an object array (a pickle)", where=path, remedy=remedy)
            data = file.read()
            return _numbers(_ArraysOnly(io.BytesIO(data)).load(), len(data), path)
        if dtype.kind not in "iufb" or dtype.names or dtype.itemsize > 8:
            raise DataError(f"holds {dtype}, not numbers", where=path)
        declared = math.prod(shape) * dtype.itemsize
        if min(shape, default=1) < 0 or file.tell() + declared != size:
            raise DataError(f"its header says {declared} bytes of data, it has {size - file.tell()}", where=path)
        values = np.frombuffer(file.read(), dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return [_finite(values, path)]


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


def _numbers(loaded: Any, size: int, path: Path) -> list[np.ndarray]:
    """Take the parts of an object array apart; each must be a number or an array of numbers that the file holds."""
    if not isinstance(loaded, np.ndarray) or loaded.dtype != object or loaded.ndim != 1 or not 1 <= len(loaded) <= 16:
        raise DataError("the object array is not [image, value, …]", where=path)
    parts = []
    for part in loaded:
        array = np.asarray(part) if isinstance(part, np.ndarray | int | float | np.number) else None
        if array is None or array.dtype.kind not in "iufb":
            raise DataError(f"a part of the object array is {type(part).__name__}, not a number", where=path)
        if array.nbytes > size + 8:
            raise DataError(f"a part of the object array claims {array.nbytes} bytes of {size}", where=path)
        parts.append(_finite(array, path))
    return parts

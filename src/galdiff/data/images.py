"""Reading image files, and nothing else that a file might hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from galdiff.errors import DataError

__all__ = ["SUFFIXES", "decode_image", "read_image"]

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Suffixes of the image files that are read."""
_FORMATS = ("JPEG", "PNG")
_PIXELS = 64_000_000
_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError)


def read_image(path: Path, *, mode: str = "RGB") -> np.ndarray:
    """Read a JPEG or PNG file.

    Parameters
    ----------
    path, mode
        As in `decode_image`.

    Returns
    -------
    numpy.ndarray
        Display units, float32 ``(band, y, x)``.

    Raises
    ------
    DataError
        As `decode_image`.
    """
    values = decode_image(path, mode=mode)
    return np.ascontiguousarray(values) if values.dtype == np.float32 else np.divide(values, 255, dtype=np.float32)


def decode_image(path: Path, *, mode: str = "RGB") -> np.ndarray:
    """Decode a JPEG or PNG file, and leave its 8 bits as they are.

    Parameters
    ----------
    path : Path
        The file.
    mode : {"RGB", "L"}
        Three bands or one.

    Returns
    -------
    numpy.ndarray
        uint8 ``(band, y, x)``, a view whose bands lie side by side; of 16-bit grey images value / 65535, float32.
        Upright as EXIF says; transparency is ignored.

    Raises
    ------
    DataError
        Where the file is absent, truncated, no image, or larger than 64 megapixels.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _PIXELS:
                raise DataError(f"the image has {image.width} x {image.height} pixels, over 64 million", where=path)
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # Pillow would clip the 16 bits to 8
                deep = np.asarray(image, dtype=np.float32) / 65_535
                return np.repeat(deep[None], len(mode), axis=0)
            upright = image if image.mode == mode else image.convert(mode)
            # Converting by NumPy costs as much as decoding, since it asks for the bytes piece by piece.
            values = np.frombuffer(upright.tobytes(), np.uint8).reshape(upright.height, upright.width, len(mode))
    except FileNotFoundError as error:
        raise DataError("the image is missing", where=path) from error
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"cannot be read as an image: {error}", where=path) from error
    return values.transpose(2, 0, 1)

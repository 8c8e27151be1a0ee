"""Reading image files, and nothing else that a file might hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from galdiff.errors import DataError

__all__ = ["SUFFIXES", "read_image"]

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Suffixes of the image files that are read."""
_FORMATS = ("JPEG", "PNG")
_PIXELS = 64_000_000
_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError)


def read_image(path: Path, *, mode: str = "RGB") -> np.ndarray:
    """Read a JPEG or PNG file.

    Parameters
    ----------
    path : Path
        The file.
    mode : {"RGB", "L"}
        Three bands or one.

    Returns
    -------
    numpy.ndarray
        Display units, value / 255 (of 16-bit grey images / 65535), float32 ``(band, y, x)``, upright as EXIF says.
        Transparency is ignored.

    Raises
    ------
    DataError
        Where the file is absent, truncated, no image, or larger than 64 megapixels.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _PIXELS:
                raise DataError(f"the image has {image.width} x {image.height} pixels, over 64 million", where=path)
            upright = ImageOps.exif_transpose(image)
            deep = upright.mode.startswith("I")  # Pillow would clip the 16 bits to 8
            values = np.asarray(upright if deep else upright.convert(mode), dtype=np.float32)
    except FileNotFoundError as error:
        raise DataError("the image is missing", where=path) from error
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"cannot be read as an image: {error}", where=path) from error
    values /= 65_535 if deep else 255
    if values.ndim == 2:
        return np.repeat(values[None], len(mode), axis=0)
    return np.ascontiguousarray(values.transpose(2, 0, 1))

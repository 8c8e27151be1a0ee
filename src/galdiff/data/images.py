"""Reading image files, every bit of them, and nothing else that a file might hold.

Pillow reads 16-bit color as its upper 8 bits. The lower 8 bits come from decoding once more with the two bytes of a
sample exchanged; it has decoders for either order, of PNG and of every compression of TIFF.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from galdiff.errors import DataError

__all__ = ["SUFFIXES", "decode_image", "image_type", "read_image"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes of the image files that are read."""
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
_PIXELS = 64_000_000
_BITS, _PLANES = 258, 284  # TIFF's BitsPerSample and PlanarConfiguration
_DEPTHS = (1, 2, 4, 8, 16, 32)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as for 8 bits
_EXCHANGEABLE = ("RGB", "RGBA", "RGBX")
_EXCHANGED = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


def read_image(path: Path, *, mode: str = "RGB", unit: str = "display") -> np.ndarray:
    """Read a JPEG, PNG, TIFF or WebP file.

    Parameters
    ----------
    path, mode, unit
        As in `decode_image`.

    Returns
    -------
    numpy.ndarray
        float32 ``(band, y, x)``.

    Raises
    ------
    DataError
        As `decode_image`.
    """
    values = decode_image(path, mode=mode, unit=unit)
    return np.ascontiguousarray(values) if values.dtype == np.float32 else np.divide(values, 255, dtype=np.float32)


def decode_image(path: Path, *, mode: str = "RGB", unit: str = "display") -> np.ndarray:
    """Decode a JPEG, PNG, TIFF or WebP file, and leave 8 bits of display units as they are.

    Parameters
    ----------
    path : Path
        The file.
    mode : {"RGB", "L"}
        Three bands or one. Grey images fill three bands; of color images the luma (ITU-R BT.601) is one.
    unit : str
        "display": integers stand for value / 255, or 65535 where they have 16 bits, and floating-point numbers are
        refused since nobody knows their range. Any other unit: the file's own numbers.

    Returns
    -------
    numpy.ndarray
        ``(band, y, x)``: of 8 bits in display units uint8, a view whose bands lie side by side; else float32. Upright
        as EXIF says. Transparency is dropped, not composited: the pixel keeps the color it was given. Palettes and
        CMYK become RGB.

    Raises
    ------
    DataError
        Where the file is absent, truncated, no image, larger than 64 megapixels, a stack of several images, or of a
        type whose bits would be lost.
    """
    pixels, top = _decode(path, mode)
    if pixels.dtype == np.uint8 and unit != "display":
        pixels = pixels.astype(np.float32)
    if unit == "display":
        if top is None:
            remedy = "Say which unit they have, such as unit: adu"
            raise DataError("the pixel values have no display range: 32-bit numbers", where=path, remedy=remedy)
        if pixels.dtype != np.uint8:
            pixels /= top
    if pixels.ndim == 2:
        return np.repeat(pixels[None], len(mode), axis=0)
    if mode == "L":
        return (pixels @ _LUMA)[None]
    return pixels.transpose(2, 0, 1)


def image_type(path: Path) -> str:
    """Return "uint8", "uint16" or "float32": what keeps every bit of the file's samples, by its header.

    Raises
    ------
    DataError
        Where the file cannot be opened.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.mode in ("I", "F"):
                return "float32"
            return "uint16" if image.mode.startswith("I;16") or _deep(image) else "uint8"
    except Exception as error:
        raise DataError(f"cannot be read as an image: {error}", where=path) from error


def _decode(path: Path, mode: str) -> tuple[np.ndarray, float | None]:
    """Return ``(y, x)`` or ``(y, x, 3)`` in the file's numbers, uint8 or float32, and which of them is white."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _refuse(image, path)
            deep = _deep(image)
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I", "F"):
                return np.asarray(upright, dtype=np.float32), None
            if upright.mode.startswith("I;16"):
                return np.asarray(upright).astype(np.float32), 65_535.0
            if upright.mode == "P" and "transparency" in upright.info:
                upright = upright.convert("RGBA")
            if not deep:
                plain = upright if upright.mode == mode else upright.convert(mode)
                # Converting by NumPy costs as much as decoding, since it asks for the bytes piece by piece.
                values = np.frombuffer(plain.tobytes(), np.uint8)
                return values.reshape(plain.height, plain.width, *([3] if mode == "RGB" else [])), 255.0
            upper = np.asarray(upright.convert("RGB"), dtype=np.float32)
        with Image.open(path, formats=_FORMATS) as image:
            image.tile = [_exchange(tile) for tile in image.tile]  # type: ignore[attr-defined]
            lower = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.float32)
        return upper * 256 + lower, 65_535.0
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError("the image is missing", where=path) from error
    except Exception as error:  # decoders meet damaged files with errors of every kind
        raise DataError(f"cannot be read as an image: {error}", where=path) from error


def _refuse(image: Image.Image, path: Path) -> None:
    """Refuse what would be read in part, wrongly, or not at all; nothing is decoded yet."""
    if image.width * image.height > _PIXELS:
        raise DataError(f"the image has {image.width} x {image.height} pixels, over 64 million", where=path)
    # Photographs of some telephones (MPO) carry a second view, which is no stack.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise DataError(f"the file holds {image.n_frames} images", where=path, remedy="One file an image")  # type: ignore[attr-defined]
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS) or (8,))
    planes = bits > 8 and tags.get(_PLANES) == 2  # of which Pillow would make something else
    strange = _deep(image) and any(_raw(tile)[:-4] not in _EXCHANGEABLE for tile in _tiles(image))
    if planes or strange or bits not in _DEPTHS:
        what = "in separate planes" if planes else f"of kind {image.mode}"
        remedy = "Save it as plain RGB or grey, pixel by pixel"
        raise DataError(
            f"{bits if bits > 8 else 16}-bit samples {what} cannot be read without loss", where=path, remedy=remedy
        )


def _deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits a sample of which Pillow would keep 8."""
    return image.mode in ("RGB", "RGBA", "RGBX", "LA", "CMYK") and any(";16" in _raw(t) for t in _tiles(image))


def _tiles(image: Image.Image) -> list[ImageFile._Tile]:
    return list(getattr(image, "tile", []))


def _raw(tile: ImageFile._Tile) -> str:
    """Return the layout of a tile's samples, such as "RGB;16B"."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _exchange(tile: ImageFile._Tile) -> ImageFile._Tile:
    raw = _raw(tile)
    exchanged = raw[:-4] + _EXCHANGED[raw[-4:]]
    return tile._replace(args=(exchanged, *tile.args[1:]) if isinstance(tile.args, tuple) else exchanged)

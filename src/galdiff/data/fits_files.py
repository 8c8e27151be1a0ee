"""FITS images, whole or in part, as native float32 with NaN where a pixel is not valid, and what their headers say.

astropy undoes BSCALE, BZERO and BLANK, gzip and tile compression. Nothing stays open: a file is opened for one read,
so that threads and forked or spawned processes never share a handle, and of a mosaic only the rows of the window are
read.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.nddata.utils import NoOverlapError, overlap_slices
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from galdiff.errors import DataError, GaldiffError

__all__ = [
    "COMPRESSED",
    "SUFFIXES",
    "FitsImage",
    "StampHeader",
    "fits_stem",
    "image_wcs",
    "pixel_scale",
    "read_fits",
    "resampled",
]

SUFFIXES = (".fits", ".fit", ".fts")
"""Suffixes of FITS files."""
COMPRESSED = (".gz", ".fz")
"""Suffixes that may follow."""
KEYS = {
    "zero_point": ("MAGZERO", "MAGZPT", "ZEROPNT", "ZEROPT", "PHOTZP", "MAGZP", "ZPT", "ZP"),
    "psf_fwhm": ("PSFFWHM", "PSF_FWHM", "SEEING", "FWHM"),
    "pixel_scale": ("PIXSCALE", "PIXSCAL", "SECPIX"),
    "band": ("BAND", "FILTER", "FILTNAM"),
}
"""Header keywords of each quantity; the first that is there counts, with the plane's number before without."""
_PIXELS = 400_000_000
# The warning filters are the process's: astropy's remarks on odd headers are silenced for one thread at a time.
_HEADERS = threading.Lock()

Extension = int | str
Window = tuple[float, float, int]


@dataclass(frozen=True)
class StampHeader:
    """What the files know of one object's stamp, as `FITSDataset.read` returns it.

    Attributes
    ----------
    wcs : astropy.wcs.WCS or None
        The sky under the stamp's pixels.
    unit : str
        Of the pixel values; "" where the file does not say.
    zero_point : tuple of float or None
        Magnitude of a pixel value of 1, band by band.
    psf_fwhm : tuple of float or None
        Full width at half maximum of the point-spread function [arcsec], band by band.
    pixel_scale : float or None
        Side of a pixel [arcsec].
    """

    wcs: WCS | None
    unit: str
    zero_point: tuple[float | None, ...]
    psf_fwhm: tuple[float | None, ...]
    pixel_scale: float | None


@dataclass(frozen=True)
class FitsImage:
    """Planes of one or more extensions of a file.

    Attributes
    ----------
    pixels : numpy.ndarray
        float32 ``(plane, y, x)``, NaN where invalid.
    headers : tuple of (astropy.io.fits.Header, int)
        Of every plane: the header, and the plane's number in its extension.
    shape : tuple of int
        ``(y, x)`` of the whole image, of which a window may have been read.
    """

    pixels: np.ndarray
    headers: tuple[tuple[fits.Header, int], ...]
    shape: tuple[int, int]

    def number(self, quantity: str, plane: int) -> float | None:
        """Return a finite number that a header gives, by any of its `KEYS`."""
        value = self._value(quantity, plane)
        try:
            number = float(value)  # some write numbers as text
        except (TypeError, ValueError):
            return None
        return number if np.isfinite(number) else None

    def text(self, quantity: str, plane: int) -> str:
        """Return a text that a header gives, or nothing."""
        value = self._value(quantity, plane)
        return value.strip() if isinstance(value, str) else ""

    def unit(self, plane: int) -> str:
        """Return ``BUNIT``, or nothing."""
        value = _get(self.headers[plane][0], "BUNIT")
        return value.strip() if isinstance(value, str) else ""

    def _value(self, quantity: str, plane: int) -> Any:
        header, number = self.headers[plane]
        for key in KEYS[quantity]:
            for name in (f"{key}{number}", key):
                if name in header:
                    return _get(header, name)
        return None


def fits_stem(name: str) -> str:
    """Return a file name without ``.fits``, ``.fits.gz`` and their like; other names as they are."""
    for suffix in COMPRESSED:
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def read_fits(
    path: Path, extensions: Sequence[Extension] = (), *, window: Window | None = None, pixels: bool = True
) -> FitsImage:
    """Read an image.

    Parameters
    ----------
    path : Path
        The file.
    extensions : sequence of int or str
        Numbers or names of the extensions, whose planes follow one another; by default the first that is an image.
    window : (float, float, int), optional
        Center x, y (from 0) and side: read so much, with NaN outside the image.
    pixels : bool
        Read them; else only headers, and ``pixels`` has no rows.

    Returns
    -------
    FitsImage
        Pixel values with BSCALE and BZERO applied; blank and infinite ones are NaN.

    Raises
    ------
    DataError
        Where the file is absent, damaged or no image, or the window lies outside it.
    """
    try:
        with _opened(path, extensions) as images:
            sides = {image.shape[-2:] for image in images}
            if len(sides) > 1:
                raise DataError(f"the extensions differ in size: {sorted(sides)}", where=path)
            parts = [_pixels(image, window, path) for image in images] if pixels else []
            headers = [(image.header, k) for image in images for k in range(int(np.prod(image.shape[:-2])))]
    except GaldiffError:
        raise
    except FileNotFoundError as error:
        raise DataError("the image is missing", where=path) from error
    except Exception as error:  # of a damaged file astropy raises nearly anything
        raise DataError(f"cannot be read as FITS: {type(error).__name__}: {error}", where=path) from error
    values = np.concatenate(parts) if pixels else np.empty((0, 0, 0), np.float32)
    return FitsImage(values, tuple(headers), sides.pop())


@contextmanager
def _opened(path: Path, extensions: Sequence[Extension]) -> Iterator[list[Any]]:
    with open(path, "rb") as file:  # astropy leaves files open that it cannot read
        with _quietly():
            opened = fits.open(file, memmap=False, uint=False)
        with opened:
            with _quietly():
                images = [_extension(opened, e, path) for e in extensions] or [_first(opened, path)]
                for image in images:
                    _check(image, path)
            yield images


@contextmanager
def _quietly() -> Iterator[None]:
    with _HEADERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first(opened: fits.HDUList, path: Path) -> Any:
    for hdu in opened:
        if getattr(hdu, "is_image", False) and len(hdu.shape) >= 2:
            return hdu
    raise DataError("there is no image in the file", where=path)


def _extension(opened: fits.HDUList, wanted: Extension, path: Path) -> Any:
    try:
        return opened[wanted]
    except (IndexError, KeyError) as error:
        has = ", ".join(f"{k} {hdu.name}".rstrip() for k, hdu in enumerate(opened))
        raise DataError(f"there is no extension {wanted!r}", where=path, remedy=f"The file has {has}") from error


def _check(image: Any, path: Path) -> None:
    shape = tuple(getattr(image, "shape", ()) or ()) if getattr(image, "is_image", False) else ()
    whole = all(isinstance(side, int) and side > 0 for side in shape)  # of a damaged header they may be anything
    if not whole or len(shape) < 2 or any(side != 1 for side in shape[:-3]):
        name = image.name or "the first extension"
        raise DataError(f"{name} is no image of (y, x) or (band, y, x): its shape is {shape}", where=path)
    image.header.tostring()  # now, while odd cards may be remarked on
    plain = path.suffix.lower() not in COMPRESSED and not isinstance(image, fits.CompImageHDU)
    if plain and image.fileinfo()["datLoc"] + image.size > path.stat().st_size:
        raise DataError("the file is truncated", where=path)


def _pixels(image: Any, window: Window | None, path: Path) -> np.ndarray:
    shape = image.shape
    if window is None:
        if np.prod(shape, dtype=float) > _PIXELS:
            raise DataError(f"the image has the shape {shape}, over {_PIXELS // 1_000_000} million pixels", where=path)
        return _native(image.section[...]).reshape(-1, *shape[-2:])
    x, y, side = window
    try:
        there, here = overlap_slices(shape[-2:], (side, side), (y, x), mode="partial")
    except NoOverlapError as error:
        raise DataError(f"the cutout at x = {x:.1f}, y = {y:.1f} lies outside the image", where=path) from error
    out = np.full((int(np.prod(shape[:-2])), side, side), np.nan, np.float32)
    found = _native(image.section[(..., *there)])
    out[(slice(None), *here)] = found.reshape(len(out), *found.shape[-2:])
    return out


def _native(data: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array(data, dtype=np.float32)
    values[np.isinf(values)] = np.nan
    return values


def _get(header: fits.Header, key: str) -> Any:
    try:
        return header.get(key)
    except (ValueError, fits.VerifyError):  # a card that cannot be parsed says nothing
        return None


def image_wcs(header: fits.Header) -> WCS | None:
    """Return the two-dimensional world coordinates of an image; None where a header has no angles."""
    try:
        with _quietly():
            wcs = WCS(header, naxis=2, fix=False)
            wcs.wcs.set()
    except Exception:  # what cannot be parsed says nothing
        return None
    return wcs if pixel_scale(wcs) is not None else None


def resampled(wcs: WCS, shift: Sequence[float] | np.ndarray, factor: float = 1) -> WCS | None:
    """Bring world coordinates onto other pixels of the same sky.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        The coordinates, which are changed.
    shift : pair of float
        By how much a place's pixel x, y is larger then [new pixel].
    factor : float
        Side of a new pixel [old pixel].

    Returns
    -------
    astropy.wcs.WCS or None
        None of coordinates with distortion terms, where pixels are of another size: they have terms of their own.
    """
    if wcs.sip is not None and factor != 1:
        return None
    wcs.wcs.crpix = wcs.wcs.crpix / factor + shift
    if wcs.sip is not None:
        wcs.sip = type(wcs.sip)(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, wcs.sip.crpix + shift)
    if wcs.wcs.has_cd():
        wcs.wcs.cd = wcs.wcs.cd * factor
    else:
        wcs.wcs.cdelt = wcs.wcs.cdelt * factor
    wcs.wcs.set()
    return wcs


def pixel_scale(wcs: WCS) -> float | None:
    """Return the side of a pixel [arcsec]; None where the axes are no angles."""
    if any(str(unit) not in ("deg", "arcsec") for unit in wcs.wcs.cunit):
        return None
    seconds = [3600.0 if str(unit) == "deg" else 1.0 for unit in wcs.wcs.cunit]
    scale = float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs) * seconds)))
    return scale if np.isfinite(scale) and scale > 0 else None

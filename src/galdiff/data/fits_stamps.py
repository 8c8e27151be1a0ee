"""One object's stamp from its file or files: pixel values band by band, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from galdiff.data.fits_files import Extension, FitsImage, Window, image_wcs, pixel_scale, read_fits, resampled
from galdiff.data.fits_index import Place
from galdiff.errors import DataError

__all__ = ["PerBand", "Stamp", "StampReader"]

PerBand = float | Mapping[str, float]
"""One number for all bands, or one a band."""


@dataclass(frozen=True)
class Stamp:
    """What the files hold of one object, before cropping and resizing.

    Attributes
    ----------
    path : Path
        The first file.
    pixels : numpy.ndarray
        float32 ``(band, y, x)``, NaN where invalid.
    shape : tuple of int
        ``(y, x)`` of the stamp.
    bands : tuple of str
        Names of the bands.
    unit : str
        Unit of the pixel values, "" where nobody says.
    zero_point, psf_fwhm : tuple of float or None
        Band by band.
    """

    path: Path
    pixels: np.ndarray
    shape: tuple[int, int]
    bands: tuple[str, ...]
    unit: str
    zero_point: tuple[float | None, ...]
    psf_fwhm: tuple[float | None, ...]
    _header: fits.Header
    _corner: tuple[int, int]
    _scale: float | None

    def wcs(self) -> WCS | None:
        """Return the world coordinates of the stamp's pixels."""
        wcs = image_wcs(self._header)
        return None if wcs is None else resampled(wcs, -np.array(self._corner))

    def pixel_scale(self) -> float | None:
        """Return the side of a pixel [arcsec]: the one given, the header's number, or that of the coordinates."""
        if self._scale is not None:
            return self._scale
        wcs = image_wcs(self._header)
        return None if wcs is None else pixel_scale(wcs)


class StampReader:
    """Reads the stamps of objects; what is given here wins over the headers.

    Parameters
    ----------
    places : sequence of Place
        Where the objects are.
    extensions : sequence of int or str
        Extensions of every file, whose planes follow one another; by default the first that is an image.
    mask : int or str, optional
        Extension whose values other than 0 mark invalid pixels, for all planes or plane by plane.
    side : int, optional
        Of the windows, where places have centers.
    bands : sequence of str
        Names, for those in the headers.
    unit : str, optional
        Unit of the pixel values.
    zero_point, psf_fwhm : float or mapping, optional
        For all bands or band by band.
    scale : float, optional
        Side of a pixel [arcsec].
    """

    def __init__(
        self,
        places: Sequence[Place],
        *,
        extensions: Sequence[Extension] = (),
        mask: Extension | None = None,
        side: int | None = None,
        bands: Sequence[str] = (),
        unit: str | None = None,
        zero_point: PerBand | None = None,
        psf_fwhm: PerBand | None = None,
        scale: float | None = None,
    ) -> None:
        self.places, self.extensions, self.mask, self.side = places, tuple(extensions), mask, side
        self.bands, self.unit, self.scale = tuple(bands), unit, scale
        self.given = {"zero_point": zero_point, "psf_fwhm": psf_fwhm}

    def read(self, i: int, *, pixels: bool = True) -> Stamp:
        """Read the stamp of object ``i``, or without ``pixels`` what the headers say of it.

        Raises
        ------
        DataError
            For a damaged file, and where bands differ in size or unit.
        """
        place = self.places[i]
        windows = [self._window(place, k) for k in range(len(place.paths))]
        images = [
            read_fits(path, self.extensions, window=window, pixels=pixels)
            for path, window in zip(place.paths, windows, strict=True)
        ]
        path, planes = place.paths[0], [(image, k) for image in images for k in range(len(image.headers))]
        bands = self.bands or self._names(planes)
        if len(bands) != len(planes):
            raise DataError(f"has {len(planes)} bands, not {len(bands)}: {', '.join(bands)}", where=path)
        shapes = {image.shape if self.side is None else (self.side, self.side) for image in images}
        if len(shapes) > 1:
            raise DataError(f"the bands differ in size: {sorted(shapes)}", where=path)
        units = [image.unit(k) for image, k in planes] if self.unit is None else [self.unit]
        if len(set(units)) > 1:
            raise DataError(f"the bands differ in unit: {', '.join(map(repr, units))}", where=path, remedy="Set unit")
        scale = self.scale or images[0].number("pixel_scale", 0)
        return Stamp(
            path,
            self._masked(place, windows, images) if pixels else images[0].pixels,
            shapes.pop(),
            bands,
            units[0],
            self._numbers("zero_point", planes, bands),
            self._numbers("psf_fwhm", planes, bands),
            images[0].headers[0][0],
            _corner(windows[0]),
            scale if scale and scale > 0 else None,
        )

    def _window(self, place: Place, k: int) -> Window | None:
        return (*place.centers[k], self.side) if place.centers and self.side is not None else None

    def _masked(self, place: Place, windows: Sequence[Window | None], images: Sequence[FitsImage]) -> np.ndarray:
        parts = []
        for path, window, image in zip(place.paths, windows, images, strict=True):
            part = image.pixels
            if self.mask is not None:
                flags = read_fits(path, (self.mask,), window=window).pixels
                if flags.shape[1:] != part.shape[1:] or len(flags) not in (1, len(part)):
                    raise DataError(f"the mask is {flags.shape}, the image {part.shape}", where=path)
                part = np.where(flags != 0, np.float32(np.nan), part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _names(self, planes: Sequence[tuple[FitsImage, int]]) -> tuple[str, ...]:
        """Names that headers give, else of named extensions, else numbers."""
        names = [image.text("band", k) for image, k in planes]
        if not all(names) or len(set(names)) < len(names):
            names = [e for e in self.extensions if isinstance(e, str)]
        if len(names) != len(planes):
            names = ["flux"] if len(planes) == 1 else [f"band{k}" for k in range(len(planes))]
        return tuple(names)

    def _numbers(
        self, quantity: str, planes: Sequence[tuple[FitsImage, int]], bands: Sequence[str]
    ) -> tuple[float | None, ...]:
        given = self.given[quantity]
        if isinstance(given, Mapping):
            strangers = set(given) - set(bands)
            if strangers:
                message = f"{quantity} is given for {', '.join(sorted(strangers))}, which is no band"
                raise DataError(message, remedy=f"The bands are {', '.join(bands)}")
            return tuple(None if band not in given else float(given[band]) for band in bands)
        if given is not None:
            return (float(given),) * len(bands)
        return tuple(image.number(quantity, k) for image, k in planes)


def _corner(window: Window | None) -> tuple[int, int]:
    """Return the pixel x, y of the mosaic that is the window's first, as `astropy.nddata.utils.overlap_slices`."""
    if window is None:
        return 0, 0
    x, y, side = window
    return int(np.ceil(x - side / 2)), int(np.ceil(y - side / 2))

"""Samples as FITS: a stamp a sample with its unit, zero point, pixel scale and conditions, and a catalog beside them.

``folder/images/<id>.fits`` holds ``(band, y, x)`` float32, ``folder/catalog.fits`` a row a stamp. `FITSDataset` reads
both back: ``FITSDataset(folder, table="catalog.fits", images="images")``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.table import Table

from galdiff.atomic import resource_errors
from galdiff.errors import GaldiffError, ResourceError

__all__ = ["GaldiffAccessor", "write_fits"]

_PER_BAND = {"zero_point": ("MAGZERO", "magnitude of a pixel value of 1"), "psf_fwhm": ("PSFFWHM", "[arcsec]")}
_CALIBRATION = ("units", "pixel_scale", *_PER_BAND)


def write_fits(images: xr.DataArray, folder: str | Path) -> Path:
    """Write images as FITS stamps with a catalog.

    Parameters
    ----------
    images : xarray.DataArray
        ``(sample, band, y, x)``, as `LatentDiffusion.sample` returns it: the attributes ``units``, ``zero_point``,
        ``psf_fwhm`` and ``pixel_scale`` and the coordinates along ``sample`` are written where they are there.
    folder : path-like
        A folder that does not exist yet; it appears when all is written.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    GaldiffError
        Where the array is no batch of images.
    ResourceError
        Where the folder is there already or cannot be written.

    Notes
    -----
    Header keywords: ``BUNIT``, ``BAND0`` …, ``MAGZERO`` and ``PSFFWHM`` (``MAGZERO0`` … where bands differ), a linear
    world coordinate system in arcsec about the center, and ``HIERARCH GALDIFF <NAME>`` for seed, conditions and
    sampler.
    """
    folder = Path(folder)
    if images.dims != ("sample", "band", "y", "x"):
        raise GaldiffError(f"the axes are {images.dims}, not sample, band, y, x")
    if folder.exists():
        raise ResourceError("is there already", where=folder, remedy="Remove it, or write elsewhere")
    columns = {str(k): c.to_numpy() for k, c in images.coords.items() if c.dims == ("sample",)}
    numbers = columns.get("seed", np.arange(len(images)))
    if len(np.unique(numbers)) < len(numbers):
        numbers = np.arange(len(images))
    ids = [f"sample-{number}" for number in numbers]
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with resource_errors(folder):
            _write_all(unfinished, images, ids, columns)
            unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def _write_all(folder: Path, images: xr.DataArray, ids: list[str], columns: dict[str, np.ndarray]) -> None:
    common = fits.Header(_cards(images))
    (folder / "images").mkdir(parents=True)
    for i, (name, pixels) in enumerate(zip(ids, images.to_numpy(), strict=True)):
        header = common.copy()
        header.update(_own(row={key: values[i] for key, values in columns.items()}))
        fits.writeto(folder / "images" / f"{name}.fits", pixels.astype(np.float32), header, checksum=True)
    table = Table({"id": ids, "file": [f"images/{name}.fits" for name in ids], **_writable(columns)})
    table.meta.update({"BUNIT": common["BUNIT"]} if "BUNIT" in common else {})
    table.write(folder / "catalog.fits", format="fits")


@xr.register_dataarray_accessor("galdiff")
class GaldiffAccessor:
    """``images.galdiff``: what galdiff can do with an array of images.

    Parameters
    ----------
    images : xarray.DataArray
        The array.
    """

    def __init__(self, images: xr.DataArray) -> None:
        self._images = images

    def to_fits(self, folder: str | Path) -> Path:
        """Write FITS stamps and their catalog; see `write_fits`."""
        return write_fits(self._images, folder)


def _cards(images: xr.DataArray) -> Iterator[tuple[str, Any, str]]:
    """Cards that all stamps have."""
    attrs, (bands, ny, nx) = images.attrs, images.shape[1:]
    unit = attrs.get("units", "")
    if unit:
        note = {"display": "8-bit picture / 255, no flux", "stretched": "what the network sees"}.get(unit, "")
        yield "BUNIT", _ascii(unit), note
    for k, band in enumerate(images["band"].to_numpy() if "band" in images.coords else range(bands)):
        yield f"BAND{k}", _ascii(str(band)), ""
    for name, (key, note) in _PER_BAND.items():
        values = [float(v) for v in attrs.get(name, ())]
        if len(set(values)) == 1:
            yield key, values[0], note
        else:
            yield from ((f"{key}{k}", value, note) for k, value in enumerate(values))
    scale = attrs.get("pixel_scale")
    if scale is not None:
        yield "WCSAXES", 2, ""
        for axis, side in ((1, nx), (2, ny)):
            yield f"CTYPE{axis}", "LINEAR", ""
            yield f"CUNIT{axis}", "arcsec", ""
            yield f"CRPIX{axis}", (side + 1) / 2, "center"
            yield f"CRVAL{axis}", 0.0, ""
            yield f"CDELT{axis}", float(scale), "side of a pixel"
    for name, value in attrs.items():
        if name not in _CALIBRATION and isinstance(value, int | float | str):
            yield _keyword(str(name)), _value(value), ""


def _own(row: dict[str, Any]) -> fits.Header:
    """Seed and conditions of a sample; what is open is left out."""
    header = fits.Header()
    for name, value in row.items():
        value = _value(value)
        if value != "" and not (isinstance(value, float) and not np.isfinite(value)):
            header[_keyword(name)] = value
    return header


def _keyword(name: str) -> str:
    return f"HIERARCH GALDIFF {_ascii(name).upper()}"


def _value(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return _ascii(plain) if isinstance(plain, str) else plain


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _writable(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of names and types that FITS has."""
    text = {k: np.array([_ascii(str(v)) for v in values]) for k, values in columns.items() if values.dtype.kind in "OU"}
    names = {k: re.sub(r"\W", "_", k, flags=re.ASCII) for k in columns}
    return {name: text.get(k, columns[k]) for k, name in names.items() if name not in ("id", "file")}

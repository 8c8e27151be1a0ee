"""FITS stamps, cubes and mosaics with their masks, units and world coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from galdiff.atomic import sha256_file, sha256_json
from galdiff.data.dataset import CutoutDataset, check_arguments, file_sizes
from galdiff.data.fits_files import Extension, StampHeader, resampled
from galdiff.data.fits_objects import objects_in_mosaics, objects_with_stamps, without_bad
from galdiff.data.fits_stamps import PerBand, Stamp, StampReader
from galdiff.data.geometry import Crop, resize
from galdiff.data.labels import class_column, join_columns, label_column, scalar_columns
from galdiff.data.stretch import Stretch
from galdiff.data.tables import find_column
from galdiff.errors import DataError

__all__ = ["FITSDataset"]

_CHECKED = 50
_INVALID = 1e-6  # share of invalid light from which a resized pixel is invalid: above rounding


class FITSDataset(CutoutDataset):
    """Stamps of a folder, or cutouts from mosaics by a table of positions, with any number of bands.

    Pixel values are the files' own, in their unit: nothing is scaled or clipped. Pixels that are NaN, infinite, blank
    or masked become ``fill`` before resizing and are False in `mask`, as is every resized pixel they contribute to.
    Items carry ``mask`` beside ``image``.

    Parameters
    ----------
    root : path-like
        The folder.
    table : str, optional
        File name of a table with one row an object; without it every object of the folder is used.
    id : str
        The table's column of ids: int64 or text, what ``{id}`` stands for.
    label : str, optional
        The table's column of labels, a class condition; without a table the folders are the classes.
    scalars : sequence of str or mapping of str to str
        The table's columns of numbers that become scalar conditions, or from such columns to units.
    classes, mirror, name, where, limit
        As in `ImageFolderDataset`.
    images : str
        Folder of the stamps, relative to the root.
    files : str or mapping, optional
        Pattern of the stamps' paths, or one a band: ``"{label}/{id}.fits"``, ``{"g": "{id}_g.fits", "r": …}``,
        ``{"g": "g/{id}.fits", …}``; ``*`` is any part of a name, ``**`` any folders.
    hdu : int, str or sequence, optional
        Number or name of the extension, or of several, which are bands; by default the first that is an image.
    mask_hdu : int or str, optional
        Extension whose values other than 0 mark pixels that are not valid.
    bands : sequence of str
        Names; by default those of ``files``, the headers or ``hdu``.
    mosaic : str, optional
        Path of mosaics relative to the root: ``{band}`` stands for a band, other names for columns of the table, as in
        ``"{tile}/{band}.fits"``. Only the rows of a cutout are read, so that plain and tile-compressed files of any
        size will do; gzipped ones are unpacked at every read.
    ra, dec : str
        Columns of the position [deg, ICRS].
    x, y : str, optional
        Columns of the position [pixel, from 0], instead of ``ra`` and ``dec``.
    side : int, optional
        Side of the cutouts [pixel of the mosaic]; what of them lies outside it is invalid.
    fill : float
        Pixel value in place of an invalid one: 0 is the sky of a sky-subtracted image.
    max_invalid : float
        Share of invalid pixels of any band above which an object is bad.
    unit, zero_point, psf_fwhm, pixel_scale : optional
        In place of what headers say: a FITS unit; a magnitude, and arcsec, for all bands or a mapping from bands;
        arcsec a pixel of the file. ``psf_fwhm`` may be the name of a column.
    size, crop, conserve, stretch
        As in `GZ2Dataset`; "asinh" by default. A size of None keeps the files' own.
    on_bad : {"fail", "skip"}
        What an object without a file, or outside its mosaic, does.

    Raises
    ------
    DataError
        For a missing file, table or column, and for an unknown label. Reading raises it for a damaged file, one with
        too many invalid pixels, and for a unit or zero point that is not that of the first file.

    Notes
    -----
    With ``conserve="surface_brightness"`` values stay "per pixel of the file", whatever the new pixel scale; with
    "flux" they are per pixel of the cutout.
    """

    masked = True

    def __init__(
        self,
        root: str | Path,
        *,
        table: str | None = None,
        id: str = "id",
        label: str | None = None,
        scalars: Sequence[str] | Mapping[str, str] = (),
        classes: Mapping[Any, str] | None = None,
        mirror: Sequence[Sequence[str]] = (),
        name: str = "morphology",
        images: str = ".",
        files: str | Mapping[str, str] | None = None,
        hdu: Extension | Sequence[Extension] | None = None,
        mask_hdu: Extension | None = None,
        bands: Sequence[str] = (),
        mosaic: str | None = None,
        ra: str = "ra",
        dec: str = "dec",
        x: str | None = None,
        y: str | None = None,
        side: int | None = None,
        fill: float = 0.0,
        max_invalid: float = 0.1,
        unit: str | None = None,
        zero_point: PerBand | None = None,
        psf_fwhm: PerBand | str | None = None,
        pixel_scale: float | None = None,
        size: int | None = 64,
        crop: Crop = 1.0,
        conserve: str = "surface_brightness",
        where: str | None = None,
        limit: int | None = None,
        stretch: str | Stretch = "asinh",
        on_bad: str = "fail",
    ) -> None:
        check_arguments(on_bad, limit)
        root = Path(root)
        width, widths = (psf_fwhm, None) if isinstance(psf_fwhm, str) else (None, psf_fwhm)
        rows: dict[str, Any] = {
            "id": id,
            "where": where,
            "needed": [c for c in (label, *scalars, width) if c is not None],
        }
        if mosaic is None:
            found = objects_with_stamps(root, table, root / images, files, **rows)
        else:
            found = objects_in_mosaics(root, table, mosaic, bands, sky=(ra, dec), pixels=(x, y), side=side, **rows)
        source, frame, places = found
        frame, places, skipped = without_bad(frame, id, places, source, on_bad)
        frame, places = frame[:limit].reset_index(drop=True), places[:limit]
        ids = frame[id].to_numpy()
        labels = frame["folder"] if table is None else None
        if table is not None and label is not None:
            labels = label_column(frame, label, where=source)
        kind = None
        if labels is not None:
            kind = class_column(labels, name, where=source, classes=classes, mirror=mirror, ids=ids)
        schema, conditions = join_columns([kind, *scalar_columns(frame, scalars, where=source)])
        self._fwhm = None if width is None else _numbers(frame, width, source)
        self._stamps = StampReader(
            places,
            extensions=() if hdu is None else (hdu,) if isinstance(hdu, int | str) else hdu,
            mask=mask_hdu,
            side=None if mosaic is None else side,
            bands=tuple(bands) or (tuple(files) if isinstance(files, Mapping) else ()),
            unit=unit,
            zero_point=zero_point,
            psf_fwhm=widths,
            scale=pixel_scale,
        )
        self.fill, self.max_invalid = fill, max_invalid
        row, first = self._first(on_bad)
        self._first_path, self._stamps.bands = first.path, first.bands
        super().__init__(
            table=frame,
            ids=ids,
            schema=schema,
            conditions=conditions,
            bands=first.bands,
            unit=first.unit,
            size=size,
            crop=crop,
            conserve=conserve,
            stretch=stretch,
        )
        self.skipped = skipped
        self._adopt(self.header(row))
        self._described = {
            "table": None if table is None else sha256_file(source),
            "schema": schema.to_dict(),
            "files": files if files is None or isinstance(files, str) else dict(files),
            "hdu": list(self._stamps.extensions),
            "mask_hdu": mask_hdu,
            "bands": list(self.bands),
            "mosaic": None if mosaic is None else [mosaic, ra, dec, x, y, side],
            "fill": fill,
            "max_invalid": max_invalid,
            "unit": self.unit,
            "zero_point": self.zero_point,
            "psf_fwhm": self.psf_fwhm,
            "pixel_scale": self.pixel_scale,
        }

    def _first(self, on_bad: str) -> tuple[int, Stamp]:
        """Read the headers of the first object that has any: they say what all are."""
        for i in range(len(self._stamps.places)):
            try:
                return i, self._stamps.read(i, pixels=False)
            except DataError:
                if on_bad == "fail":
                    raise
        raise DataError("not one object can be read", remedy="Set on_bad: fail to see why")

    def _adopt(self, header: StampHeader) -> None:
        """Take what a header says for what all objects have; widths of a column are described by their median."""
        self._zero_points, self.pixel_scale = header.zero_point, header.pixel_scale
        self.zero_point = _whole(header.zero_point)
        widths = header.psf_fwhm
        if self._fwhm is not None and np.isfinite(self._fwhm).any():
            widths = (float(np.nanmedian(self._fwhm)),) * len(self.bands)
        self.psf_fwhm = _whole(widths)

    def load(self, i: int) -> np.ndarray:
        """Read a stamp in its own unit, NaN where a pixel is invalid.

        Raises
        ------
        DataError
            For a damaged file, and one whose unit or zero point is not that of the first: both are named.
        """
        stamp = self._stamps.read(i)
        for what, found, expected in (
            ("unit", stamp.unit, self.unit),
            ("zero point", stamp.zero_point, self._zero_points),
        ):
            if found != expected:
                message = f"the {what} is {_plain(found)}, in {self._first_path} it is {_plain(expected)}"
                remedy = f"Bring the files to one {what}, or set {what.replace(' ', '_')} to say what all are"
                raise DataError(message, where=stamp.path, remedy=remedy)
        return stamp.pixels

    def read(self, i: int) -> np.ndarray:
        """Read pixel values after cropping and resizing, float32 ``(band, y, x)``; invalid ones were filled.

        Raises
        ------
        DataError
            As `load`, and where a band has more invalid pixels than ``max_invalid``.
        """
        return self.read_masked(i)[0]

    def mask(self, i: int) -> np.ndarray:
        """Return True where a pixel of `read` is valid, bool ``(band, y, x)``."""
        return self.read_masked(i)[1]

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return what every loader does, and ``mask`` (bool tensor, True where valid)."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        pixels, mask = self.read_masked(i)
        return {**self._item(i, pixels), "mask": torch.from_numpy(mask)}

    def read_masked(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Read pixel values as `read` does, and where they are valid, bool of the same shape."""
        image, side = self._crop(self._load_usual(i), i)
        invalid = np.isnan(image)
        if not invalid.any():
            pixels = self._resize(image, side)
            return pixels, np.ones(pixels.shape, dtype=bool)
        share = float(invalid.mean(axis=(1, 2)).max())
        if share > self.max_invalid:
            message = f"{share:.1%} of the pixels are invalid, over {self.max_invalid:.1%}"
            raise DataError(message, where=self.ids[i], remedy="Set max_invalid to accept more")
        pixels = self._resize(np.where(invalid, np.float32(self.fill), image), side)
        spoiled = invalid if self._size is None else resize(invalid, self._size, side=side) > _INVALID
        return pixels, ~spoiled

    def _sides_of(self, i: int) -> tuple[int, ...]:
        return self._stamps.read(i, pixels=False).shape

    def header(self, i: int) -> StampHeader:
        """Return what is known of a stamp as `read` returns it; no pixels are read.

        World coordinates with distortion terms are None once pixels are resized.
        """
        stamp = self._stamps.read(i, pixels=False)
        dummy, side = self._crop(np.broadcast_to(np.float32(0), (1, *stamp.shape)), i)
        after = dummy.shape[:0:-1] if self._size is None else (self._size, self._size)  # x, y
        wcs, scale = stamp.wcs(), stamp.pixel_scale()
        factor = side / after[0]
        if wcs is not None:
            before = np.array(stamp.shape[::-1])
            # About the center, which crops and resizing keep; pixels are counted from 1.
            wcs = resampled(wcs, (np.array(after) + 1) / 2 - (before + 1) / 2 / factor, factor)
        known = None if self._fwhm is None else float(self._fwhm[i])
        widths = stamp.psf_fwhm if known is None else (known if np.isfinite(known) else None,) * len(stamp.bands)
        return StampHeader(wcs, stamp.unit, stamp.zero_point, widths, None if scale is None else scale * factor)

    def check(self) -> list[str]:
        """Return what `CutoutDataset.check` does, and differences of size, unit and zero point among some files."""
        problems = super().check()
        for i in np.unique(np.linspace(0, len(self) - 1, _CHECKED).astype(int)).tolist():
            try:
                self._load_usual(i)
            except DataError as error:
                problems += [str(error)] if str(error) not in problems else []
        return problems

    def fingerprint(self) -> dict[str, Any]:
        """Describe table, files and geometry."""
        files = sha256_json(file_sizes({path for place in self._stamps.places for path in place.paths}))
        return {"kind": "fits", **self._described, **self._geometry(), "sizes": files}


def _numbers(frame: pd.DataFrame, column: str, source: Path) -> np.ndarray:
    return frame[find_column(frame, column, source)].to_numpy(dtype=np.float64, na_value=np.nan)


def _whole(values: Sequence[float | None]) -> tuple[float, ...] | None:
    return None if any(v is None for v in values) else tuple(v for v in values if v is not None)


def _plain(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)

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
from galdiff.data.fits_files import Extension, StampHeader, fits_stem, resampled
from galdiff.data.fits_index import Place, find_stamps, locate
from galdiff.data.fits_stamps import PerBand, Stamp, StampReader
from galdiff.data.geometry import Crop, resize
from galdiff.data.labels import class_column, join_columns, label_column, scalar_columns
from galdiff.data.stretch import Stretch
from galdiff.data.tables import find_column, find_table, id_column, read_table, refuse_absent, select
from galdiff.errors import DataError, all_at_once

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
        source = root if table is None else root / table
        frame, stamps = None, {}
        with all_at_once() as part:
            if table is not None:
                with part():
                    source = find_table(root, table, ())
                    frame = _read_catalog(source, id, where)
                    columns = (label, *scalars, psf_fwhm if isinstance(psf_fwhm, str) else None)
                    refuse_absent(frame, [column for column in columns if column is not None], source)
            if mosaic is None:
                with part():
                    stamps = find_stamps(root / images, files, leave=source)
        if mosaic is not None:
            if frame is None or side is None or (x is None) != (y is None):
                remedy = "Set table, side, and ra and dec or both x and y"
                raise DataError("a mosaic needs a table of positions and the side of the cutouts", remedy=remedy)
            position, sky = ((ra, dec), True) if x is None or y is None else ((x, y), False)
            places = locate(root, frame, mosaic, bands, position=position, sky=sky, side=side, source=source)
        else:
            if frame is None:
                folders = [stamp.label for stamp in stamps.values()]
                frame, label = pd.DataFrame({id: list(stamps), "folder": folders}), "folder"
                frame = select(frame, where, source)
            places = [stamps.get(fits_stem(str(key)), Place((), problem="no file")) for key in frame[id]]
        frame, places, skipped = _without_bad(frame, id, places, source, on_bad)
        frame, places = frame[:limit].reset_index(drop=True), places[:limit]
        labels = None if label is None else frame[label] if table is None else label_column(frame, label, where=source)
        kind = (
            None
            if labels is None
            else class_column(labels, name, where=source, classes=classes, mirror=mirror, ids=frame[id].to_numpy())
        )
        schema, conditions = join_columns([kind, *scalar_columns(frame, scalars, where=source)])
        self._fwhm: np.ndarray | None = None
        if isinstance(psf_fwhm, str):
            self._fwhm = frame[find_column(frame, psf_fwhm, source)].to_numpy(dtype=np.float64, na_value=np.nan)
        self._stamps = StampReader(
            places,
            extensions=() if hdu is None else (hdu,) if isinstance(hdu, int | str) else hdu,
            mask=mask_hdu,
            side=None if mosaic is None else side,
            bands=tuple(bands) or (tuple(files) if isinstance(files, Mapping) else ()),
            unit=unit,
            zero_point=zero_point,
            psf_fwhm=None if isinstance(psf_fwhm, str) else psf_fwhm,
            scale=pixel_scale,
        )
        self.fill, self.max_invalid = fill, max_invalid
        row, first = self._first(on_bad)
        self._first_path, self._stamps.bands = first.path, first.bands
        super().__init__(
            table=frame,
            ids=frame[id].to_numpy() if frame[id].dtype.kind == "i" else frame[id].to_numpy(dtype=str),
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
        header = self.header(row)
        self._zero_points, self.pixel_scale = header.zero_point, header.pixel_scale
        self.zero_point = _whole(header.zero_point)
        widths = header.psf_fwhm
        if self._fwhm is not None and np.isfinite(self._fwhm).any():
            widths = (float(np.nanmedian(self._fwhm)),) * len(self.bands)
        self.psf_fwhm = _whole(widths)
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


def _read_catalog(source: Path, id: str, where: str | None) -> pd.DataFrame:
    """Read the chosen rows of a table, their ids as integers or text."""
    frame = read_table(source, ids=(id,))
    find_column(frame, id, source)
    return select(frame.assign(**{id: id_column(frame, id, source)}), where, source)


def _without_bad(
    frame: pd.DataFrame, id: str, places: Sequence[Place], source: Path, on_bad: str
) -> tuple[pd.DataFrame, list[Place], list[tuple[str, str]]]:
    good = np.array([place.problem is None for place in places], dtype=bool)
    skipped = [(str(key), place.problem) for key, place in zip(frame[id], places, strict=True) if place.problem]
    if skipped and (on_bad == "fail" or not good.any()):
        message = f"{len(skipped)} objects cannot be read, the first is '{skipped[0][0]}': {skipped[0][1]}"
        raise DataError(message, where=source, remedy="Set on_bad: skip to go on without such rows")
    return frame[good], [place for place in places if place.problem is None], skipped


def _whole(values: Sequence[float | None]) -> tuple[float, ...] | None:
    return None if any(v is None for v in values) else tuple(v for v in values if v is not None)


def _plain(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)

"""Where the pixels of every object are: stamps by a pattern of file names, or windows of large mosaics by position."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import skycoord_to_pixel

from galdiff.data.fits_files import COMPRESSED, SUFFIXES, fits_stem, image_wcs, pixel_scale, read_fits
from galdiff.data.tables import find_column
from galdiff.errors import DataError

__all__ = ["Place", "find_stamps", "locate"]

_FIELD = re.compile(r"\{(\w+)\}")
_SAME_SCALE = 0.01


@dataclass(frozen=True)
class Place:
    """Where one object's pixels are.

    Attributes
    ----------
    paths : tuple of Path
        One file, or one a band.
    centers : tuple of (float, float)
        Of the window in each of the files, x and y from 0; empty for whole files.
    label : str, optional
        The class that the folder's name gives.
    problem : str, optional
        Why the object cannot be read.
    """

    paths: tuple[Path, ...]
    centers: tuple[tuple[float, float], ...] = ()
    label: str | None = None
    problem: str | None = None


def find_stamps(folder: Path, files: str | Mapping[str, str] | None, *, leave: Path | None = None) -> dict[str, Place]:
    """Find the files of every object.

    Parameters
    ----------
    folder : Path
        Where the patterns begin.
    files : str or mapping, optional
        A pattern of paths, or one a band: ``{id}`` is the object, ``{label}`` its class, ``*`` any part of a name and
        ``**`` any folders. What follows ``.fits`` (``.gz``, ``.fz``) need not be written. By default any FITS file in
        any folder, which is the class.
    leave : Path, optional
        A file that is none of them: the table.

    Returns
    -------
    dict of str to Place
        By id, in order; a band that has no file is the object's ``problem``.

    Raises
    ------
    DataError
        Where there is no file, or two files are of one object and band.
    """
    if not folder.is_dir():
        raise DataError("the images folder is missing", where=folder, remedy="Set data.images, a folder in data.root")
    named = files if isinstance(files, Mapping) else {"": files}
    patterns = {band: None if files is None else _pattern(text or "") for band, text in named.items()}
    found: dict[str, dict[str, Path]] = {}
    labels: dict[str, str | None] = {}
    for path in sorted(p for p in folder.rglob("*") if _is_fits(p) and p != leave):
        relative = path.relative_to(folder)
        for band, pattern in patterns.items():
            if pattern is None:
                key, label = fits_stem(path.name), relative.parent.name or None
            else:
                match = pattern.fullmatch(_without_compression(relative.as_posix()))
                if match is None:
                    continue
                key, label = match["id"], match.groupdict().get("label")
            taken = found.setdefault(key, {})
            if band in taken:
                message = f"two files are of '{key}'{' in band ' + band if band else ''}"
                raise DataError(message, where=path, remedy=f"The other is {taken[band]}")
            taken[band] = path
            labels[key] = label
    if not found:
        wanted = ", ".join(str(text) for text in named.values()) if files else "*.fits"
        raise DataError(f"there is no file like {wanted}", where=folder)
    places = {}
    for key in sorted(found):
        absent = [band for band in patterns if band not in found[key]]
        problem = f"no file of band {', '.join(absent)}" if absent else None
        paths = tuple(found[key][band] for band in patterns if band in found[key])
        places[key] = Place(paths, label=labels[key], problem=problem)
    return places


def _is_fits(path: Path) -> bool:
    return _without_compression(path.name).lower().endswith(SUFFIXES)


def _without_compression(name: str) -> str:
    for suffix in COMPRESSED:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _pattern(text: str) -> re.Pattern[str]:
    text = _without_compression(text)
    if text.count("{id}") != 1 or text.count("{label}") > 1 or set(_FIELD.findall(text)) - {"id", "label"}:
        remedy = "Write it like '{id}_g.fits', 'g/{id}.fits' or '{label}/{id}.fits'"
        raise DataError(f"the pattern '{text}' should name {{id}} once, and at most {{label}} beside it", remedy=remedy)
    parts = {"**/": r"(?:.*/)?", "*": r"[^/]*", "{id}": r"(?P<id>[^/]+)", "{label}": r"(?P<label>[^/]+)"}
    pieces = re.split(r"(\*\*/|\*|\{\w+\})", text)
    return re.compile("".join(parts[piece] if piece in parts else re.escape(piece) for piece in pieces))


def locate(
    root: Path,
    table: pd.DataFrame,
    mosaic: str,
    bands: Sequence[str],
    *,
    position: tuple[str, str],
    sky: bool,
    side: int,
    source: Path,
) -> list[Place]:
    """Find the windows of objects in mosaics.

    Parameters
    ----------
    root : Path
        Where the pattern begins.
    table : pandas.DataFrame
        One row an object.
    mosaic : str
        Path of the file: ``{band}`` stands for a band, any other name in braces for a column of the table.
    bands : sequence of str
        What ``{band}`` stands for.
    position : pair of str
        Columns of right ascension and declination [deg, ICRS], or of x and y [pixel, from 0].
    sky : bool
        Which of the two it is.
    side : int
        Of the window [pixel].
    source : Path
        The table's file, for errors.

    Raises
    ------
    DataError
        For a missing file or column, a mosaic without world coordinates, or bands whose pixels differ in size.
    """
    first, second = (pd.to_numeric(table[find_column(table, c, source)], errors="coerce") for c in position)
    coordinates = np.column_stack([first, second]).astype(np.float64)
    wanted = tuple(bands) if "{band}" in mosaic else ("",)
    if not wanted:
        raise DataError("the mosaic's name has {band} but no bands are given", remedy="Set bands")
    columns = {c: table[find_column(table, c, source)].astype(str) for c in _FIELD.findall(mosaic) if c != "band"}
    values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] or [{}] * len(table)
    names = [[_filled(mosaic, {**row, "band": band}) for band in wanted] for row in values]
    pixels = np.full((len(table), len(wanted), 2), np.nan)
    inside = np.zeros((len(table), len(wanted)), dtype=bool)
    scales: dict[str, float] = {}
    for k in range(len(wanted)):
        of_band = np.array([row[k] for row in names])
        for name in dict.fromkeys(of_band.tolist()):
            rows = of_band == name
            pixels[rows, k], inside[rows, k], scale = _in_mosaic(root / name, coordinates[rows], sky, side)
            if scale is not None:
                scales[name] = scale
    if scales and max(scales.values()) > (1 + _SAME_SCALE) * min(scales.values()):
        low, high = min(scales, key=scales.__getitem__), max(scales, key=scales.__getitem__)
        message = f"pixels of {low} are {scales[low]:.4g} arcsec wide, of {high} {scales[high]:.4g}"
        raise DataError(message, where=root, remedy="Bring the mosaics to one grid first")
    paths = {name: root / name for row in names for name in row}
    return [
        Place(
            tuple(paths[name] for name in row),
            tuple((float(x), float(y)) for x, y in pixels[i]),
            problem=None if inside[i].all() else "lies outside the mosaic",
        )
        for i, row in enumerate(names)
    ]


def _filled(pattern: str, values: Mapping[Hashable, str]) -> str:
    return _FIELD.sub(lambda match: values[match[1]], pattern)


def _in_mosaic(path: Path, at: np.ndarray, sky: bool, side: int) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return pixel positions ``(n, 2)``, whether the windows touch the image, and the pixel scale."""
    image = read_fits(path, pixels=False)
    wcs = image_wcs(image.headers[0][0])
    if sky:
        if wcs is None or not wcs.has_celestial:
            remedy = "Give pixel columns x and y instead of ra and dec"
            raise DataError("the mosaic's header has no world coordinates", where=path, remedy=remedy)
        known = np.isfinite(at).all(axis=1) & (np.abs(at[:, 1]) <= 90)
        pixels = np.full(at.shape, np.nan)
        # Rounded, so that positions on a pixel's center fall on the same side of a tie in every band.
        pixels[known] = _sky_to_pixel(wcs, SkyCoord(*at[known].T, unit="deg"), image.shape).round(3)
    else:
        pixels = at
    high = np.array(image.shape[::-1])
    with np.errstate(invalid="ignore"):
        inside: np.ndarray = np.all((pixels > -side / 2) & (pixels < high - 1 + side / 2), axis=1)
    return pixels, inside, None if wcs is None else pixel_scale(wcs)


def _sky_to_pixel(wcs: WCS, sky: SkyCoord, shape: tuple[int, int]) -> np.ndarray:
    """Positions with the distortion where they are near the image; far from it no series converges."""
    linear: np.ndarray = np.column_stack(skycoord_to_pixel(sky, wcs, 0, "wcs"))
    if wcs.sip is None:
        return linear
    margin = np.array(shape[::-1])
    near = ((linear > -margin) & (linear < 2 * margin)).all(axis=1)
    try:
        linear[near] = np.column_stack(skycoord_to_pixel(sky[near], wcs, 0, "all"))
    except NoConvergence as error:
        raise DataError(f"the mosaic's distortion cannot be inverted: {error}") from error
    return linear

"""Asking for samples on the command line, and writing them to files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galdiff.config.yaml import read_text
from galdiff.errors import GaldiffError, ResourceError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["parse_conditions", "save_samples", "suffix_of"]

_SUFFIXES = (".zarr", ".fits", ".npy", ".png")


def parse_conditions(conditions: Iterable[str]) -> dict[str, Any]:
    """Turn ``morphology=merger`` and ``votes.spiral=0.9`` into ``{"morphology": "merger", "votes": {"spiral": 0.9}}``.

    Raises
    ------
    GaldiffError
        For text that is no ``name=value``.
    """
    asked: dict[str, Any] = {}
    for text in conditions:
        name, equals, value = text.partition("=")
        field, dot, answer = name.partition(".")
        if not equals or not field or (dot and not answer):
            raise GaldiffError("a condition reads name=value or name.answer=value", where=f"--condition {text}")
        document = read_text(value, source=f"--condition {name}", inline=True)
        for problem in document.problems:
            raise GaldiffError(problem.message, where=problem.place)
        if dot:
            if not isinstance(asked.setdefault(field, {}), dict):
                raise GaldiffError("is asked for both whole and by answers", where=f"--condition {field}")
            asked[field][answer] = document.value
        else:
            asked[field] = document.value
    return asked


def suffix_of(path: Path) -> str:
    """Return the suffix of a file that samples can be written to.

    Raises
    ------
    GaldiffError
        For any other.
    """
    if path.suffix not in _SUFFIXES:
        raise GaldiffError(f"samples are written to {', '.join(_SUFFIXES)}", where=path, remedy="Choose one by suffix")
    return path.suffix


def save_samples(images: xr.DataArray, path: Path) -> None:
    """Write samples by suffix: ``.zarr`` or ``.fits`` with their conditions, ``.npy`` pixel values, ``.png`` a grid.

    What ends with ``.fits`` is a folder of stamps with a catalog (`galdiff.export.write_fits`).

    Raises
    ------
    ResourceError
        Where the folder cannot be written.
    """
    import numpy as np

    from galdiff.atomic import atomic_write, refuse_missing_folder
    from galdiff.export import write_fits
    from galdiff.report.plots import render, save_grid

    suffix = suffix_of(path)
    refuse_missing_folder(path)
    if suffix == ".zarr":
        # Text of a fixed width, and consolidated metadata, have no specification in Zarr v3.
        text = {name: c.astype(object) for name, c in images.coords.items() if c.dtype.kind == "U"}
        try:
            images.assign_coords(text).to_dataset(name="image").to_zarr(
                path, mode="w-", zarr_format=3, consolidated=False
            )
        except FileExistsError as error:
            raise ResourceError("is there already", where=path, remedy="Remove it, or write elsewhere") from error
    elif suffix == ".fits":
        write_fits(images, path)
    elif suffix == ".npy":
        with atomic_write(path) as file:
            np.save(file, images.to_numpy())
    else:
        pixels = images.to_numpy()
        save_grid(path, render(pixels, images.attrs["units"]), columns=int(np.ceil(np.sqrt(len(pixels)))))

"""Asking for samples on the command line, and writing them to files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galdiff.config.theory import check_options
from galdiff.config.yaml import read_text
from galdiff.errors import GaldiffError, ResourceError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["parse_conditions", "parse_options", "save_samples", "suffix_of"]

_SUFFIXES = (".zarr", ".fits", ".npy", ".png")


def parse_conditions(conditions: Iterable[str]) -> dict[str, Any]:
    """Turn ``morphology=merger`` and ``votes.spiral=0.9`` into ``{"morphology": "merger", "votes": {"spiral": 0.9}}``.

    Raises
    ------
    GaldiffError
        For text that is no ``name=value``.
    """
    return _parse(conditions, "--condition ", "a condition reads name=value or name.answer=value")


def parse_options(overrides: Iterable[str]) -> dict[str, Any]:
    """Turn ``sampling.grid=karras`` and ``sampling.guidance.spiral=2`` into options of `LatentDiffusion.sample`.

    Raises
    ------
    GaldiffError
        For text that is no ``sampling.name=value``, and for what the section sampling does not have.
    """
    inside = []
    for text in overrides:
        section, dot, rest = text.partition(".")
        if section != "sampling" or not dot:
            remedy = "Give sampling.NAME=VALUE; the rest was settled by training"
            raise GaldiffError("is no option of sampling", where=f"--set {text}", remedy=remedy)
        inside.append(rest)
    return check_options(
        _parse(inside, "--set sampling.", "an option reads sampling.name=value"), where="--set sampling"
    )


def _parse(texts: Iterable[str], option: str, reads: str) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        field, dot, part = name.partition(".")
        if not equals or not field or (dot and not part):
            raise GaldiffError(reads, where=f"{option}{text}")
        document = read_text(value, source=f"{option}{name}", inline=True)
        for problem in document.problems:
            raise GaldiffError(problem.message, where=problem.place)
        if dot:
            if not isinstance(parsed.setdefault(field, {}), dict):
                raise GaldiffError("is asked for both whole and by answers", where=f"{option}{field}")
            parsed[field][part] = document.value
        else:
            parsed[field] = document.value
    return parsed


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

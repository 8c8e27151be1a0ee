"""Where the data of a run come from: one section a kind of loader (`galdiff.data`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from galdiff.config.section import (
    Count,
    Flag,
    Fraction,
    Name,
    Positive,
    Section,
    Seed,
    did_you_mean,
    section_error,
)
from galdiff.schema.trees import GZ2_TREE

__all__ = ["DataSpec", "DeepLenseSpec", "FITSSpec", "GZ2Spec", "ImageFolderSpec", "SimulateSpec", "ask_problems"]

StretchName = Literal["linear", "sqrt", "asinh", "log", "percentile"]
Problems = Iterator[tuple[tuple[str | int, ...], str]]


class _DataSpec(Section):
    root: Path | None = Field(default=None, description="Folder of the data; relative to the catalog file.")
    size: Count = Field(default=64, description="Side of the cutouts that the networks see [pixel].")
    crop: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="Central share of the image to keep.")
    stretch: StretchName = Field(default="sqrt", description="How pixel values become what the networks see.")
    on_bad: Literal["fail", "skip"] = Field(default="fail", description="What a damaged or missing image does.")
    limit: Count | None = Field(default=None, description="Use the first so many rows only.")

    @model_validator(mode="after")
    def _has_root(self) -> _DataSpec:
        if self.root is None and getattr(self, "simulate", None) is None:
            raise section_error((("root",), "is required: the folder of the data"))
        return self


class SimulateSpec(Section):
    """Galaxies to simulate first, in the files of Galaxy Zoo 2."""

    n: Count = Field(default=4000, description="How many.")
    seed: Seed = Field(default=0, description="Other seeds give other galaxies.")
    size: Count = Field(default=64, description="Side of the simulated images [pixel].")


class GZ2Spec(_DataSpec):
    """Galaxy Zoo 2: JPEG cutouts, the Hart16 table and the filename mapping."""

    kind: Literal["gz2"] = Field(default="gz2", description="This loader.")
    table: Name | None = Field(
        default=None, description="File of the votes; by default ``*hart16*`` (CSV, Parquet, FITS)."
    )
    mapping: Name | None = Field(
        default=None, description="File that maps object ids to image names; by default used if it is there."
    )
    images: Name = Field(default="images", description="Folder of the images, relative to the root.")
    votes: Literal["debiased", "weighted", "fraction"] = Field(default="debiased", description="Which fractions.")
    columns: dict[Name, Name] | None = Field(default=None, description="From answers to columns of other names.")
    count: Positive | None = Field(default=None, description="Votes a question, for tables without counts.")
    where: str | None = Field(default=None, description="Which rows, as a pandas query.")
    # The survey documents images without votes and votes without images.
    on_bad: Literal["fail", "skip"] = Field(default="skip", description="What a damaged or missing image does.")
    simulate: SimulateSpec | None = Field(default=None, description="Simulate the data instead of reading a root.")

    @model_validator(mode="after")
    def _one_source(self) -> GZ2Spec:
        if self.root is not None and self.simulate is not None:
            raise section_error((("simulate",), "needs no root: the simulated files lie in the run folder"))
        return self


class ImageFolderSpec(_DataSpec):
    """Any folder of images with a table of labels."""

    kind: Literal["image_folder"] = Field(default="image_folder", description="This loader.")
    table: Name | None = Field(
        default=None, description="Table of ids and labels; without it the folders are the classes."
    )
    id: Name = Field(default="id", description="Column of the ids, which are the stems of the file names.")
    label: Name | None = Field(default=None, description="Column of the labels; without it there is no condition.")
    images: Name = Field(default=".", description="Folder of the images, relative to the root.")
    classes: dict[int | str, Name] | None = Field(default=None, description="From values of the label column to names.")
    mirror: tuple[tuple[Name, Name], ...] = Field(
        default=(), description="Pairs of classes that are each other's mirror image."
    )
    name: Name = Field(default="morphology", description="Name of the condition.")
    grey: Flag = Field(default=False, description="Read one band instead of three.")
    where: str | None = Field(default=None, description="Which rows, as a pandas query.")

    @model_validator(mode="after")
    def _mirror_names_classes(self) -> ImageFolderSpec:
        known = list((self.classes or {}).values())
        strangers = [
            (("mirror", i, j), f"'{name}' is not one of the classes{did_you_mean(name, known)}")
            for i, pair in enumerate(self.mirror)
            for j, name in enumerate(pair)
            if self.classes is not None and name not in known
        ]
        if strangers:
            raise section_error(*strangers)
        return self


class DeepLenseSpec(_DataSpec):
    """DeepLense: ``.npy`` lenses in one folder a substructure class."""

    kind: Literal["deeplense"] = Field(default="deeplense", description="This loader.")
    stretch: StretchName = Field(default="asinh", description="How pixel values become what the networks see.")
    allow_object_arrays: Flag = Field(default=False, description="Read [image, mass] arrays, restrictedly.")


class FITSSpec(_DataSpec):
    """FITS stamps, cubes, or cutouts from mosaics by a table of positions."""

    kind: Literal["fits"] = Field(default="fits", description="This loader.")
    table: Name | None = Field(
        default=None, description="Table of ids, labels and positions; without it the folders are the classes."
    )
    id: Name = Field(default="id", description="Column of the ids, which ``{id}`` stands for.")
    label: Name | None = Field(default=None, description="Column of the labels; without it there is no class.")
    scalars: tuple[Name, ...] = Field(default=(), description="Columns of numbers that are conditions.")
    classes: dict[int | str, Name] | None = Field(default=None, description="From values of the label column to names.")
    mirror: tuple[tuple[Name, Name], ...] = Field(
        default=(), description="Pairs of classes that are each other's mirror image."
    )
    name: Name = Field(default="morphology", description="Name of the class condition.")
    images: Name = Field(default=".", description="Folder of the stamps, relative to the root.")
    files: Name | dict[Name, Name] | None = Field(
        default=None, description="Pattern of the paths, such as ``{label}/{id}.fits``, or one a band."
    )
    hdu: int | Name | tuple[int | Name, ...] | None = Field(
        default=None, description="Extension, or one a band; by default the first image."
    )
    mask_hdu: int | Name | None = Field(default=None, description="Extension that is not 0 where a pixel is invalid.")
    bands: tuple[Name, ...] = Field(default=(), description="Names of the bands; by default the files'.")
    mosaic: Name | None = Field(
        default=None, description="Path of mosaics, such as ``{tile}/{band}.fits``, to cut objects from."
    )
    ra: Name = Field(default="ra", description="Column of right ascension [deg].")
    dec: Name = Field(default="dec", description="Column of declination [deg].")
    x: Name | None = Field(default=None, description="Column of the position in the mosaic [pixel, from 0].")
    y: Name | None = Field(default=None, description="Column of the position in the mosaic [pixel, from 0].")
    side: Count | None = Field(default=None, description="Side of the cutouts from a mosaic [pixel].")
    fill: float = Field(default=0.0, description="Pixel value in place of an invalid one.")
    max_invalid: Fraction = Field(default=0.1, description="Share of invalid pixels above which an image is bad.")
    unit: Name | None = Field(default=None, description="Unit of the pixel values, in place of the headers'.")
    zero_point: float | dict[Name, float] | None = Field(
        default=None, description="Magnitude of a pixel value of 1, for all bands or one a band."
    )
    psf_fwhm: Positive | Name | dict[Name, Positive] | None = Field(
        default=None, description="Width of the point-spread function [arcsec], or its column."
    )
    pixel_scale: Positive | None = Field(default=None, description="Side of a pixel of the files [arcsec].")
    stretch: StretchName = Field(default="asinh", description="How pixel values become what the networks see.")
    where: str | None = Field(default=None, description="Which rows, as a pandas query.")

    @model_validator(mode="after")
    def _mosaic_has_positions(self) -> FITSSpec:
        missing = [key for key in ("table", "side") if self.mosaic is not None and getattr(self, key) is None]
        if missing:
            raise section_error(*(((key,), "is required: cutouts from a mosaic need it") for key in missing))
        if (self.x is None) != (self.y is None):
            raise section_error((("y" if self.y is None else "x",), "is required: x and y go together"))
        return self


DataSpec = Annotated[GZ2Spec | ImageFolderSpec | DeepLenseSpec | FITSSpec, Field(discriminator="kind")]
"""The section ``data``: its ``kind`` says which."""


def ask_problems(
    asks: Mapping[str, Mapping[str, Any]], data: GZ2Spec | ImageFolderSpec | DeepLenseSpec | FITSSpec
) -> Problems:
    """Find conditions that the data cannot have, each with its path under ``asks``."""
    if isinstance(data, GZ2Spec):
        fields: tuple[str, ...] = ("votes",)
    elif isinstance(data, DeepLenseSpec):
        fields = ("substructure", "log10_mass")
    else:
        fields = (data.name, *(data.scalars if isinstance(data, FITSSpec) else ()))
    for name, conditions in asks.items():
        for field, value in conditions.items():
            if field not in fields:
                known = " or ".join(fields)
                yield (name, field), f"is not a condition of this data, {known} is{did_you_mean(field, fields)}"
            elif isinstance(data, GZ2Spec):
                yield from (((name, field, *path), message) for path, message in _votes_problems(value))
            elif (
                isinstance(data, ImageFolderSpec | FITSSpec)
                and field == data.name
                and data.classes
                and value not in data.classes.values()
            ):
                hint = did_you_mean(value, data.classes.values())
                yield (name, field), f"'{value}' is not one of the classes{hint}"


def _votes_problems(votes: Any) -> Problems:
    if not isinstance(votes, Mapping):
        yield (), "should be a mapping from answers to fractions"
        return
    known = [name for answer in GZ2_TREE.answers for name in (answer.alias, answer.name)]
    for answer, fraction in votes.items():
        if answer not in known:
            yield (answer,), f"is not an answer of Galaxy Zoo 2{did_you_mean(answer, known)}"
        elif isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            yield (answer,), f"should be a vote fraction within [0, 1], not {fraction!r}"

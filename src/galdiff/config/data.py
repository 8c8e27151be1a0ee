"""Where the data of a run come from: one section a kind of loader (`galdiff.data`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from galdiff.config.section import Count, Flag, Name, Positive, Section, Seed, did_you_mean, section_error
from galdiff.schema.trees import GZ2_TREE

__all__ = ["DataSpec", "DeepLenseSpec", "GZ2Spec", "ImageFolderSpec", "RadiusCropSpec", "SimulateSpec", "ask_problems"]

Problems = Iterator[tuple[tuple[str | int, ...], str]]


class RadiusCropSpec(Section):
    """A crop whose side is ``2 x times x radius``, exact to parts of a pixel; a smaller image is a bad one."""

    radius: Name = Field(description="Column of the radii, such as ``petroR90_r``.")
    times: Positive = Field(default=3.0, description="Half of the side in radii.")
    pixel_scale: Positive = Field(
        default=1.0, description="Size of a pixel in the unit of the radius [arcsec/pixel]; 1 for radii in pixels."
    )


# A callable tells the two apart, so that a mistake is reported of the one that was meant.
_Crop = Annotated[
    Annotated[float, Field(gt=0, le=1), Tag("share")] | Annotated[RadiusCropSpec, Tag("by_radius")],
    Discriminator(lambda crop: "by_radius" if isinstance(crop, Mapping | Section) else "share"),
]


class _DataSpec(Section):
    root: Path | None = Field(default=None, description="Folder of the data; relative to the catalog file.")
    size: Count = Field(default=64, description="Side of the cutouts that the networks see [pixel].")
    crop: _Crop = Field(
        default=1.0, description="Central square to keep: its share of the shorter side, or by a radius in the table."
    )
    conserve: Literal["surface_brightness", "flux"] = Field(
        default="surface_brightness",
        description="What resizing preserves: the mean of the pixel values or their sum; display units have no flux.",
    )
    stretch: Literal["linear", "sqrt", "asinh"] = Field(
        default="sqrt", description="How pixel values become what the networks see."
    )
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
    stretch: Literal["linear", "sqrt", "asinh"] = Field(
        default="asinh", description="How pixel values become what the networks see."
    )
    allow_object_arrays: Flag = Field(default=False, description="Read [image, mass] arrays, restrictedly.")


DataSpec = Annotated[GZ2Spec | ImageFolderSpec | DeepLenseSpec, Field(discriminator="kind")]
"""The section ``data``: its ``kind`` says which."""


def ask_problems(asks: Mapping[str, Mapping[str, Any]], data: GZ2Spec | ImageFolderSpec | DeepLenseSpec) -> Problems:
    """Find conditions that the data cannot have, each with its path under ``asks``."""
    if isinstance(data, GZ2Spec):
        fields: tuple[str, ...] = ("votes",)
    else:
        fields = (data.name,) if isinstance(data, ImageFolderSpec) else ("substructure", "log10_mass")
    for name, conditions in asks.items():
        for field, value in conditions.items():
            if field not in fields:
                known = " or ".join(fields)
                yield (name, field), f"is not a condition of this data, {known} is{did_you_mean(field, fields)}"
            elif isinstance(data, GZ2Spec):
                yield from (((name, field, *path), message) for path, message in _votes_problems(value))
            elif isinstance(data, ImageFolderSpec) and data.classes and value not in data.classes.values():
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

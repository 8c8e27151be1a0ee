"""Where the data of a run come from: one section a kind of loader (`galdiff.data`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from galdiff.config.section import (
    Count,
    Flag,
    Folder,
    Fraction,
    Name,
    Number,
    Positive,
    Section,
    Seed,
    Side,
    did_you_mean,
    section_error,
)
from galdiff.schema.trees import GZ2_TREE, GZ_DECALS_TREE, QuestionTree
from galdiff.schema.voteformats import VOTE_FORMATS

__all__ = [
    "DataSpec",
    "DeepLenseSpec",
    "FITSSpec",
    "GZ2Spec",
    "HDF5Spec",
    "IDXSpec",
    "ImageFolderSpec",
    "RadiusCropSpec",
    "SimulateLensesSpec",
    "SimulateSpec",
    "ask_problems",
]

StretchName = Literal["linear", "sqrt", "asinh", "log", "percentile"]
Problems = Iterator[tuple[tuple[str | int, ...], str]]


class RadiusCropSpec(Section):
    """A crop whose side is ``2 x times x radius``, exact to parts of a pixel; a smaller image is a bad one."""

    radius: Name = Field(description="Column of the radii, such as ``petroR90_r``.")
    times: Positive = Field(default=3.0, description="Half of the side in radii.")
    pixel_scale: Positive = Field(
        default=1.0, description="Size of a pixel in the unit of the radius [arcsec/pixel]; 1 for radii in pixels."
    )


_ON_BAD = "What a damaged or missing image does; one that was skipped and is mended comes in with `--redo cutouts`."
# A callable tells the two apart, so that a mistake is reported of the one that was meant.
_Crop = Annotated[
    Annotated[Fraction, Field(gt=0), Tag("share")] | Annotated[RadiusCropSpec, Tag("by_radius")],
    Discriminator(lambda crop: "by_radius" if isinstance(crop, Mapping | Section) else "share"),
]


class _DataSpec(Section):
    root: Folder | None = Field(default=None, description="Folder of the data; relative to the catalog file.")
    size: Side = Field(default=64, description="Side of the cutouts that the networks see [pixel].")
    crop: _Crop = Field(
        default=1.0, description="Central square to keep: its share of the shorter side, or by a radius in the table."
    )
    conserve: Literal["surface_brightness", "flux"] = Field(
        default="surface_brightness",
        description="What resizing preserves: the mean of the pixel values or their sum; display units have no flux.",
    )
    stretch: StretchName = Field(default="sqrt", description="How pixel values become what the networks see.")
    on_bad: Literal["fail", "skip"] = Field(default="fail", description=_ON_BAD)
    limit: Count | None = Field(default=None, description="Use the first so many rows only.")

    @property
    def simulation(self) -> SimulateSpec | SimulateLensesSpec | None:
        """What to simulate instead of reading a root."""
        return getattr(self, "simulate", None)

    @model_validator(mode="after")
    def _one_source(self) -> _DataSpec:
        if self.root is None and self.simulation is None:
            raise section_error((("root",), "is required: the folder of the data"))
        if self.root is not None and self.simulation is not None:
            raise section_error((("simulate",), "needs no root: the simulated files lie in the run folder"))
        return self


class SimulateSpec(Section):
    """Galaxies to simulate first, in the files of Galaxy Zoo 2."""

    n: Count = Field(default=4000, description="How many.")
    seed: Seed = Field(default=0, description="Other seeds give other galaxies.")
    size: Side = Field(default=64, description="Side of the simulated images [pixel].")


class SimulateLensesSpec(Section):
    """Strong lenses to simulate first, in the files of DeepLense."""

    n: Count = Field(default=3000, description="How many, a third of each class.")
    seed: Seed = Field(default=0, description="Other seeds give other lenses.")
    model: Literal["I", "II", "III"] = Field(
        default="II", description="Seen by a generic telescope that counts (I), Euclid VIS (II) or HST (III)."
    )
    subhalo: Literal["point", "nfw"] = Field(
        default="point", description="Cold dark matter as point masses, or as truncated NFW halos."
    )


class GZ2Spec(_DataSpec):
    """Galaxy Zoo: image cutouts and a table of votes, of Galaxy Zoo 2, its Kaggle challenge or DECaLS."""

    kind: Literal["gz2"] = Field(default="gz2", description="This loader.")
    table: Name | None = Field(
        default=None, description="File of the votes; by default ``*hart16*`` (CSV, Parquet, FITS)."
    )
    table_format: Literal["hart16", "willett13", "kaggle", "decals", "decals_dr5", "decals_dr8"] | None = Field(
        default=None, description="What the table's columns are; by default told from their names."
    )
    id: Name | None = Field(default=None, description="Column that names the images, where it has another name.")
    mapping: Name | None = Field(
        default=None, description="File that maps object ids to image names; by default used if it is there."
    )
    images: Name = Field(default="images", description="Folder of the images, relative to the root.")
    votes: Literal["debiased", "weighted", "fraction"] | None = Field(
        default=None, description="Which fractions; by default ``debiased`` for Galaxy Zoo 2, else ``fraction``."
    )
    columns: dict[Name, Name] | None = Field(default=None, description="From answers to columns of other names.")
    count: Positive | dict[Name, Positive] | None = Field(
        default=None,
        description="Votes a question, or from questions to votes, for tables without counts; "
        "for a Kaggle table the volunteers an object.",
    )
    where: str | None = Field(default=None, description="Which rows, as a pandas query.")
    # The survey documents images without votes and votes without images.
    on_bad: Literal["fail", "skip"] = Field(default="skip", description=_ON_BAD)
    simulate: SimulateSpec | None = Field(default=None, description="Simulate the data instead of reading a root.")


class _LabeledSpec(_DataSpec):
    classes: dict[int | str, Name] | None = Field(default=None, description="From values of the labels to names.")
    mirror: tuple[tuple[Name, Name], ...] = Field(
        default=(), description="Pairs of classes that are each other's mirror image."
    )
    name: Name = Field(default="morphology", description="Name of the condition of labels.")
    where: str | None = Field(default=None, description="Which rows, as a pandas query.")

    @model_validator(mode="after")
    def _mirror_names_classes(self) -> _LabeledSpec:
        known = list(self.classes.values()) if isinstance(self.classes, dict) else []
        strangers = [
            (("mirror", i, j), f"'{name}' is not one of the classes{did_you_mean(name, known)}")
            for i, pair in enumerate(self.mirror)
            for j, name in enumerate(pair)
            if isinstance(self.classes, dict) and name not in known
        ]
        if strangers:
            raise section_error(*strangers)
        return self


class ImageFolderSpec(_LabeledSpec):
    """Any folder of images: JPEG, PNG, TIFF or WebP, with class folders or a table."""

    kind: Literal["image_folder"] = Field(default="image_folder", description="This loader.")
    table: Name | None = Field(
        default=None, description="Table of ids and labels; without it the folders are the classes."
    )
    id: Name | None = Field(
        default=None, description="Column of the ids: ``id``, or that of the files. Without files, the files' stems."
    )
    file: Name | None = Field(default=None, description="Column of the files' paths, relative to the images.")
    label: Name | None = Field(default=None, description="Column of the labels, a class condition.")
    attributes: tuple[Name, ...] | None = Field(
        default=None, description="Columns that are each a class condition; by default all of CelebA's table."
    )
    scalars: tuple[Name, ...] | dict[Name, str] = Field(
        default=(), description="Columns that are each a scalar condition, or from such columns to units."
    )
    images: Name = Field(default=".", description="Folder of the images, relative to the root.")
    folders: Literal["classes", "ignore"] = Field(
        default="classes", description="Whether folders are classes, where there is no table."
    )
    grey: Flag = Field(default=False, description="Read one band instead of three.")
    unit: Name = Field(default="display", description="A unit other than display keeps the files' own numbers.")


class IDXSpec(_LabeledSpec):
    """MNIST's files, gzipped or not."""

    kind: Literal["idx"] = Field(default="idx", description="This loader.")
    images: Name | None = Field(default=None, description="File of the images; by default the only one.")
    labels: Name | None = Field(default=None, description="File of the labels; by default named as the images are.")
    name: Name = Field(default="digit", description="Name of the condition of labels.")
    size: Side = Field(default=32, description="Side of the cutouts that the networks see [pixel].")
    stretch: StretchName = Field(default="linear", description="How pixel values become what the networks see.")


class HDF5Spec(_LabeledSpec):
    """Images in an HDF5 file, such as Galaxy10."""

    kind: Literal["hdf5"] = Field(default="hdf5", description="This loader.")
    file: Name | None = Field(default=None, description="Name of the file; by default the only one.")
    images: Name = Field(default="images", description="Dataset of the images.")
    label: Name | None = Field(default="ans", description="Dataset of the labels; null is unconditional.")
    scalars: tuple[Name, ...] | dict[Name, str] = Field(
        default=(), description="Datasets that are each a scalar condition, or from such datasets to units."
    )
    id: Name | None = Field(default=None, description="Dataset of the ids; by default the row numbers.")
    classes: dict[int | str, Name] | Literal["galaxy10_sdss", "galaxy10_decals"] | None = Field(  # type: ignore[assignment]
        default=None, description="From values of the labels to names, or the names of Galaxy10."
    )
    layout: Literal["bands_first", "bands_last"] | None = Field(
        default=None, description="Where the bands are; by default seen from the shape."
    )
    bands: tuple[Name, ...] | None = Field(default=None, description="Names of the bands.")
    unit: Name = Field(default="display", description="A unit other than display keeps the file's own numbers.")


class DeepLenseSpec(_DataSpec):
    """DeepLense: ``.npy`` lenses, their substructure class in the folder's or the file's name."""

    kind: Literal["deeplense"] = Field(default="deeplense", description="This loader.")
    limit: Count | None = Field(default=None, description="Use the first so many arrays of each class only.")
    stretch: StretchName = Field(default="asinh", description="How pixel values become what the networks see.")
    allow_object_arrays: Flag = Field(default=False, description="Read [image, mass] arrays, restrictedly.")
    scalars: tuple[Name, ...] | dict[Name, str] = Field(
        default=(),
        description="Columns of ``lenses.csv`` (of simulated lenses) that are each a scalar condition, such as "
        "``theta_e`` or ``log10_mass`` (the axion's), or from such columns to units.",
    )
    simulate: SimulateLensesSpec | None = Field(
        default=None, description="Simulate the data instead of reading a root; needs the extra ``lenses``."
    )
    normalize: Literal["minmax"] | None = Field(
        default=None, description="Scale every array to [0, 1] by its own extremes, which destroys flux."
    )


class FITSSpec(_LabeledSpec):
    """FITS stamps, cubes, or cutouts from mosaics by a table of positions."""

    kind: Literal["fits"] = Field(default="fits", description="This loader.")
    table: Name | None = Field(
        default=None, description="Table of ids, labels and positions; without it the folders are the classes."
    )
    id: Name = Field(default="id", description="Column of the ids, which ``{id}`` stands for.")
    label: Name | None = Field(default=None, description="Column of the labels; without it there is no class.")
    scalars: tuple[Name, ...] | dict[Name, str] = Field(
        default=(), description="Columns that are each a scalar condition, or from such columns to units."
    )
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
    side: Side | None = Field(default=None, description="Side of the cutouts from a mosaic [pixel].")
    fill: Number = Field(default=0.0, description="Pixel value in place of an invalid one.")
    max_invalid: Fraction = Field(default=0.1, description="Share of invalid pixels above which an image is bad.")
    unit: Name | None = Field(default=None, description="Unit of the pixel values, in place of the headers'.")
    zero_point: Number | dict[Name, Number] | None = Field(
        default=None, description="Magnitude of a pixel value of 1, for all bands or one a band."
    )
    psf_fwhm: Positive | Name | dict[Name, Positive] | None = Field(
        default=None, description="Width of the point-spread function [arcsec], or its column."
    )
    pixel_scale: Positive | None = Field(default=None, description="Side of a pixel of the files [arcsec].")
    stretch: StretchName = Field(default="asinh", description="How pixel values become what the networks see.")

    @model_validator(mode="after")
    def _mosaic_has_positions(self) -> FITSSpec:
        missing = [key for key in ("table", "side") if self.mosaic is not None and getattr(self, key) is None]
        if missing:
            raise section_error(*(((key,), "is required: cutouts from a mosaic need it") for key in missing))
        if (self.x is None) != (self.y is None):
            raise section_error((("y" if self.y is None else "x",), "is required: x and y go together"))
        return self


DataSpec = Annotated[
    GZ2Spec | ImageFolderSpec | IDXSpec | HDF5Spec | DeepLenseSpec | FITSSpec, Field(discriminator="kind")
]
"""The section ``data``: its ``kind`` says which."""


def ask_problems(asks: Mapping[str, Mapping[str, Any]], data: DataSpec) -> Problems:
    """Find conditions that the data cannot have, each with its path under ``asks``."""
    fields = _conditions(data)
    for name, conditions in asks.items():
        for field, value in conditions.items():
            if fields is not None and field not in fields:
                are = " or ".join(fields)
                yield (name, field), f"is not a condition of this data, {are} is{did_you_mean(field, fields)}"
            elif isinstance(data, GZ2Spec):
                yield from (((name, field, *path), message) for path, message in _votes_problems(value, _trees(data)))
            elif isinstance(data, _LabeledSpec) and field == data.name and isinstance(data.classes, dict):
                known = list(data.classes.values())
                if value not in known:
                    yield (name, field), f"'{value}' is not one of the classes{did_you_mean(value, known)}"


def _conditions(data: DataSpec) -> tuple[str, ...] | None:
    """Return the names of the conditions that the data have, or None where only the files say."""
    if isinstance(data, GZ2Spec):
        return ("votes",)
    if isinstance(data, DeepLenseSpec):
        return tuple(dict.fromkeys(("substructure", "log10_mass", *data.scalars)))
    if isinstance(data, ImageFolderSpec):
        if data.table is not None and data.table.endswith(".txt") and data.attributes is None:
            return None
        return (data.name, *(data.attributes or ()), *data.scalars)
    return (data.name, *(data.scalars if isinstance(data, HDF5Spec | FITSSpec) else ()))


def _trees(data: GZ2Spec) -> list[QuestionTree]:
    """Trees that the answers may be of; which one it is, an undeclared format says only when the table is read."""
    if data.table_format is not None:
        return [VOTE_FORMATS[data.table_format].tree]
    return [GZ2_TREE] if data.simulate is not None else [GZ2_TREE, GZ_DECALS_TREE]


def _votes_problems(votes: Any, trees: Sequence[QuestionTree]) -> Problems:
    if not isinstance(votes, Mapping):
        yield (), "should be a mapping from answers to fractions"
        return
    answers = [[name for answer in tree.answers for name in (answer.alias, answer.name)] for tree in trees]
    known = [name for names in answers for name in names]
    titles = " or ".join({"gz2": "Galaxy Zoo 2", "gz_decals": "Galaxy Zoo DECaLS"}[tree.name] for tree in trees)
    for answer, fraction in votes.items():
        if answer not in known:
            yield (answer,), f"is not an answer of {titles}{did_you_mean(answer, known)}"
        elif isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            yield (answer,), f"should be a vote fraction within [0, 1], not {fraction!r}"
    if not any(known >= set(votes) for known in map(set, answers)) and set(votes) <= set(known):
        yield (), f"are answers of different surveys, {titles}"

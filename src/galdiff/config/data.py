"""Where the data of a run come from: one section a kind of loader (`galdiff.data`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from galdiff.config.section import Count, Flag, Name, Positive, Section, Seed, did_you_mean, section_error
from galdiff.schema.trees import GZ2_TREE, GZ_DECALS_TREE, QuestionTree
from galdiff.schema.voteformats import VOTE_FORMATS

__all__ = ["DataSpec", "DeepLenseSpec", "GZ2Spec", "ImageFolderSpec", "SimulateSpec", "ask_problems"]

Problems = Iterator[tuple[tuple[str | int, ...], str]]


class _DataSpec(Section):
    root: Path | None = Field(default=None, description="Folder of the data; relative to the catalog file.")
    size: Count = Field(default=64, description="Side of the cutouts that the networks see [pixel].")
    crop: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="Central share of the image to keep.")
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
    """DeepLense: ``.npy`` lenses, their substructure class in the folder's or the file's name."""

    kind: Literal["deeplense"] = Field(default="deeplense", description="This loader.")
    stretch: Literal["linear", "sqrt", "asinh"] = Field(
        default="asinh", description="How pixel values become what the networks see."
    )
    allow_object_arrays: Flag = Field(default=False, description="Read [image, mass] arrays, restrictedly.")
    normalize: Literal["minmax"] | None = Field(
        default=None, description="Scale every array to [0, 1] by its own extremes, which destroys flux."
    )


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
                yield from (((name, field, *path), message) for path, message in _votes_problems(value, _trees(data)))
            elif isinstance(data, ImageFolderSpec) and data.classes and value not in data.classes.values():
                hint = did_you_mean(value, data.classes.values())
                yield (name, field), f"'{value}' is not one of the classes{hint}"


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

"""What a run is made of: the sections of a catalog file, with their defaults.

Every section refuses keys it does not know. Lengths of training are counts of images, so that they mean the same at
any batch size. Relations between sections (does the downsampling divide the image? is the class that is asked for one
of the data's?) are checked as soon as both sections are sound by themselves.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from galdiff.config.coders import AnyAutoencoder, AutoencoderSpec
from galdiff.config.data import DataSpec, ask_problems
from galdiff.config.networks import Average, AverageSpec, Backbone, UNetSpec
from galdiff.config.section import (
    Count,
    CountOrZero,
    Flag,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Rate,
    Section,
    Seed,
    Size,
    section_error,
)
from galdiff.config.theory import ObjectiveSpec, SamplingSpec, Schedule, ScheduleSpec, sweep_problems, theory
from galdiff.config.training import TrainingSpec

__all__ = [
    "RELATIONS",
    "AutoencoderSpec",
    "DenoiserSpec",
    "EvaluationSpec",
    "RunSpec",
    "SplitSpec",
    "StagesSpec",
]


class SplitSpec(Section):
    """Which rows are trained on: by the hash of the id, by cells of the sky, or as a column of the table says.

    ``galdiff check`` looks for rows that are there twice: of the same id, of the same content (bytes of the files) or
    within 1 arcsec of each other where the table has positions. A held-out row whose twin is trained on stops the run,
    unless ``duplicates`` allows it; pairs within one split are only told.
    """

    by: Literal["hash", "sky", "column"] = Field(
        default="hash", description="What decides: the id, the HEALPix cell (neighbors stay together), or a column."
    )
    train: Fraction = Field(default=0.8, description="Share to train on, of the rows or of the cells.")
    validation: Fraction = Field(default=0.1, description="Held out; the samples are judged against it and test.")
    test: Fraction = Field(default=0.1, description="Held out.")
    column: Name = Field(
        default="split", description="By column: its name; it holds train, val (or validation) and test."
    )
    cell: Annotated[Positive, Field(ge=1e-3, le=60)] = Field(
        default=1.0, description="By sky: side of a cell [deg], to the nearest that HEALPix has."
    )
    separation: NonNegative = Field(
        default=0.0, description="Training rows closer to a held-out row than this are close [arcsec]; 0: none is."
    )
    close: Literal["drop", "report"] = Field(
        default="drop", description="Whether close rows leave the training split, or are told by ``galdiff check``."
    )
    ra: Name | None = Field(default=None, description="Column of right ascensions [deg]; by default ``ra``, any case.")
    dec: Name | None = Field(default=None, description="Column of declinations [deg]; by default ``dec``, any case.")
    duplicates: Literal["refuse", "allow"] = Field(
        default="refuse", description="Whether twins of held-out rows may be trained on."
    )

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `galdiff.data.splits.split_rows`: those that decide, and no others."""
        names = {"hash": ("train", "validation", "test"), "column": ("by", "column")}
        names["sky"] = ("by", *names["hash"], "cell")
        used = names[self.by]
        if self.separation and self.close == "drop":
            used = (*used, "separation")
        if self.by == "sky" or "separation" in used:
            used = (*used, "ra", "dec")
        return {name: getattr(self, name) for name in used if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _keys_belong(self) -> SplitSpec:
        owners = {
            "column": ("column",),
            "cell": ("sky",),
            **dict.fromkeys(("train", "validation", "test"), ("hash", "sky")),
        }
        strangers = [
            ((name,), f"says nothing where by is {self.by}, only where it is {' or '.join(owner)}")
            for name, owner in owners.items()
            if self.by not in owner and getattr(self, name) != SplitSpec.model_fields[name].default
        ]
        if (self.ra is None) != (self.dec is None):
            strangers.append((("ra" if self.ra is None else "dec",), "is required beside the other"))
        if strangers:
            raise section_error(*strangers)
        return self

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSpec:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise section_error(((), f"shares should sum to 1, not {total:g}"))
        if self.train == 0:
            raise section_error((("train",), "should be above 0: there is nothing to train on"))
        return self


class DenoiserSpec(TrainingSpec):
    """The denoiser and its training; ``backbone: dit`` is short for ``backbone: {kind: dit}``."""

    backbone: Backbone = Field(default=UNetSpec(), description="The network: its kind, or its kind and sizes.")
    schedule: Schedule = Field(default=ScheduleSpec(), description="How noise is added: its kind, or its options.")
    prediction: Literal["flow", "edm", "v", "eps", "x0"] | None = Field(
        default=None, description="What the network predicts; by default flow, edm or v, as the schedule has it."
    )
    objective: ObjectiveSpec = Field(default=ObjectiveSpec(), description="What the loss weighs.")
    null: Fraction = Field(default=0.1, description="Share of training images without any condition.")
    sampled_votes: Flag = Field(
        default=False, description="Draw fractions of votes from their posterior for every image seen, not its mean."
    )
    dihedral: Flag = Field(default=True, description="Turn and reflect the latents at random.")
    views: Literal[1, 8] = Field(
        default=1, description="8: train on latents of turned images, all kept, instead of on turned latents."
    )
    reader: Literal["auto", "device", "memory", "blocks"] = Field(
        default="auto",
        description="Where the latents are in training: on the GPU, in memory, or in the store, read in shuffled "
        "blocks; auto: the first where they take at most a quarter of the GPU's free memory or 0.4 of the machine's.",
    )
    compile: Flag | Literal["auto"] = Field(
        default="auto", description="Compile the network for training, a minute or two at the start; auto: on a GPU."
    )
    decay: Literal["cosine", "linear", "constant"] = Field(
        default="linear", description="How the rate goes to zero; linear: over the second half."
    )
    ema: Average = Field(  # type: ignore[assignment]
        default=AverageSpec(decay=0.995), description="Average of the weights: its decay, a step, or its kind."
    )
    images: Count = Field(default=200_000, description="Length of the training [images seen].")
    learning_rate: Rate = Field(default=1.5e-3, description="Peak rate of AdamW.")

    def settings(self) -> dict[str, Any]:
        """Return plain arguments: ``backbone``, ``schedule``, ``prediction``, ``objective``, ``null``, and so on."""
        return {
            "backbone": self.backbone.settings(),
            **theory(self.schedule, self.prediction, self.objective),
            "null": self.null,
            **({"sampled_votes": True} if self.sampled_votes else {}),
            "augment": self.dihedral,
            "views": self.views,
            "reader": self.reader,
            "compile": self.compile,
            "training": {**self.training(), "ema": self.ema.settings()},  # type: ignore[attr-defined]
        }


class EvaluationSpec(Section):
    """How the samples are judged."""

    classifier: Flag = Field(default=True, description="Train a judge of classes, to be read on samples.")
    draws: Size = Field(default=20, description="Bootstrap draws of the errors.")
    features: list[str] = Field(
        default=[],
        description="Feature spaces of further distances: inception-2015:tf, inception-2015:clean=WEIGHTS, "
        "dinov2=FOLDER.",
    )
    votes: CountOrZero = Field(
        default=16_000, description="Images that a judge of votes sees in training; 0: no such judge."
    )
    scalars: CountOrZero = Field(
        default=16_000, description="Images that a judge of scalar conditions sees in training; 0: no such judge."
    )
    transfer: CountOrZero = Field(
        default=8_000,
        description="Images that judges of classes see in training on samples, and on as many real images, before both "
        "are tested on held-out ones; 0: none.",
    )
    ellipsoids: CountOrZero = Field(
        default=0,
        description="Lenses, of samples and of real ones, that an isothermal ellipsoid is fitted to, about a second "
        "each; 50 or more for figures. Needs galdiff[lenses].",
    )
    encoder: CountOrZero = Field(
        default=8_000,
        description="Images that the morphology encoder, a feature space of the run, sees in training; 0: no encoder.",
    )
    memorisation: Flag = Field(default=True, description="Look for the nearest training image of every sample.")

    def settings(self) -> dict[str, Any]:
        """Return what the evaluation depends on; earlier runs depend on no key that came later."""
        later = ("features", "votes", "scalars", "transfer", "ellipsoids", "encoder", "memorisation")
        usual = {name for name in later if getattr(self, name) == EvaluationSpec.model_fields[name].default}
        return self.model_dump(exclude=usual)


class StagesSpec(Section):
    """The sections that are not about the data: what `LatentDiffusion.fit` takes."""

    seed: Seed = Field(default=0, description="Of the whole run: weights, order, noise.")
    split: SplitSpec = Field(default=SplitSpec(), description="Shares of the split.")
    autoencoder: AnyAutoencoder = Field(
        default=AutoencoderSpec(), validate_default=True, description="The autoencoder and its training."
    )
    denoiser: DenoiserSpec = Field(default=DenoiserSpec(), description="The denoiser and its training.")
    sampling: SamplingSpec = Field(default=SamplingSpec(), description="Which samples are drawn.")
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="How they are judged.")


RELATIONS: dict[str, frozenset[tuple[str, str]]] = {
    "autoencoder": frozenset({("data", "size"), ("autoencoder", "factor"), ("autoencoder", "scale_equivariance")}),
    "sampling": frozenset(
        ("data", key) for key in ("table", "table_format", "simulate", "name", "classes", "attributes", "scalars")
    ),
}
"""What the checks of relations between sections look at, by the section that is blamed."""


class _Subject(Section):
    """What a run is called and what it is about."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, description="Name of the run and of its folder."
    )
    data: DataSpec = Field(description="Where the images and their conditions come from.")


# Fields of the last base come first: the data are there when the other sections are checked against them.
class RunSpec(StagesSpec, _Subject):
    """A catalog file, validated.

    Raises
    ------
    pydantic.ValidationError
        With every problem; `galdiff.config.load` turns it into a `CatalogFileError` that names lines.
    """

    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$",
        description="auto, cpu, cuda or cuda:1; auto prefers a GPU.",
    )
    threads: Size | None = Field(default=None, description="CPU threads; by default all.")
    scheduler: str = Field(
        default="threads",
        pattern=r"^(threads|[a-z]+://.+)$",
        description="Where the latents are encoded: threads, or the address of a Dask cluster (``tcp://host:8786``).",
    )

    @field_validator("autoencoder")
    @classmethod
    def _factor_divides(cls, autoencoder: AnyAutoencoder, info: ValidationInfo) -> AnyAutoencoder:
        data = info.data.get("data")
        if data is None or not isinstance(autoencoder, AutoencoderSpec):
            return autoencoder
        if misfit := autoencoder.misfit(data.size):
            raise section_error(((misfit[0],), misfit[1]), kind="relation")
        return autoencoder

    @field_validator("sampling")
    @classmethod
    def _asks_are_known(cls, sampling: SamplingSpec, info: ValidationInfo) -> SamplingSpec:
        data = info.data.get("data")
        if data is None:
            return sampling
        problems = [(("asks", *path), message) for path, message in ask_problems(sampling.asks or {}, data)]
        problems += [(("sweeps", *path), message) for path, message in sweep_problems(sampling.sweeps or {}, data)]
        if problems:
            raise section_error(*problems, kind="relation")
        return sampling

    @property
    def simulates(self) -> bool:
        """Whether the data are to be simulated."""
        return self.data.simulation is not None

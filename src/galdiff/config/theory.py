"""How noise is added, what is learned, and how it is sampled: parts of the sections denoiser and sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from galdiff.config.data import DataSpec, ask_problems
from galdiff.config.section import (
    Count,
    Flag,
    Fraction,
    Name,
    NonNegative,
    Number,
    Positive,
    Section,
    Size,
    did_you_mean,
    section_error,
)
from galdiff.errors import CatalogFileError, GaldiffError
from galdiff.schema.sweeps import sweep_steps

if TYPE_CHECKING:
    from galdiff.config.spec import StagesSpec

__all__ = [
    "ObjectiveSpec",
    "SamplingSpec",
    "Schedule",
    "ScheduleSpec",
    "check_options",
    "check_theory",
    "sweep_problems",
    "theory",
]


_SCHEDULES = {
    "edm": ("sigma_min", "sigma_max"),
    "cosine": ("offset",),
    "linear": ("beta_min", "beta_max", "zero_terminal"),
    "sigmoid": ("start", "end", "tau"),
}
"""Options that a kind of schedule has alone."""


class ScheduleSpec(Section):
    """The noise schedule: the shape of its curve, and where it begins and ends.

    Samples begin with noise alone: what leaves more than a tenth of the signal at the end, or adds a tenth of noise at
    the beginning, is refused.
    """

    kind: Literal["rectified_flow", "edm", "cosine", "linear", "sigmoid"] = Field(
        default="rectified_flow", description="Straight lines, growing noise, or one of the variance-preserving curves."
    )
    shift: Positive = Field(
        default=1.0, description="Factor on the ratio of noise to signal: above 1 for larger images."
    )
    zero_terminal: Flag = Field(
        default=False, description="Leave nothing of the signal at the end (of linear; cosine and sigmoid do anyway)."
    )
    beta_min: NonNegative | None = Field(default=None, description="Of linear: its rate at the beginning; 0.1.")
    beta_max: Positive | None = Field(default=None, description="Of linear: its rate at the end; 20.")
    offset: NonNegative | None = Field(default=None, description="Of cosine: begins so much later; 0.008.")
    start: Number | None = Field(default=None, description="Of sigmoid: where on the logistic curve it begins; -3.")
    end: Number | None = Field(default=None, description="Of sigmoid: where it ends; 3.")
    tau: Positive | None = Field(default=None, description="Of sigmoid: its temperature, above 1 straighter; 1.")
    sigma_min: Positive | None = Field(default=None, description="Of edm: noise at the beginning; 0.002.")
    sigma_max: Positive | None = Field(default=None, description="Of edm: noise at the end; 80.")

    @model_validator(mode="after")
    def _options_are_of_the_kind(self) -> ScheduleSpec:
        stray = [
            ((name,), f"is an option of the schedule {kind}, not of {self.kind}")
            for kind, names in _SCHEDULES.items()
            for name in names
            if kind != self.kind and getattr(self, name) is not None and getattr(self, name) is not False
        ]
        if stray:
            raise section_error(*stray)
        return self

    def settings(self) -> dict[str, Any]:
        """Return the description that `Schedule.from_dict` reads; what is not given is left out."""
        used = {"zero_terminal": self.kind == "linear", "shift": self.shift != 1}
        return self.model_dump(exclude={name for name, is_used in used.items() if not is_used}, exclude_none=True)


Schedule = Annotated[ScheduleSpec, BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value)]
"""A schedule by its kind alone, or with its options."""


class ObjectiveSpec(Section):
    """What the loss weighs; what is not given follows from the schedule."""

    time: Literal["logit_normal", "log_normal", "uniform"] | None = Field(
        default=None, description="Density of the times in training."
    )
    location: Number | None = Field(default=None, description="Of the normal densities.")
    scale: Positive | None = Field(default=None, description="Of the normal densities.")
    stratified: Flag = Field(default=False, description="Let the times of every batch fill the density evenly.")
    weighting: Literal["uniform", "min_snr", "edm", "learned"] = Field(
        default="uniform", description="Weights of the noise levels."
    )
    gamma: Positive = Field(default=5.0, description="Largest weight of min_snr.")

    @model_validator(mode="after")
    def _keys_say_something(self) -> ObjectiveSpec:
        stray = [((name,), "says nothing where time is uniform") for name in ("location", "scale")]
        stray = [key for key in stray if self.time == "uniform" and getattr(self, key[0][0]) is not None]
        if self.gamma != type(self).model_fields["gamma"].default and self.weighting != "min_snr":
            stray.append((("gamma",), f"says nothing where weighting is {self.weighting}"))
        if stray:
            raise section_error(*stray)
        return self

    def settings(self) -> dict[str, Any]:
        """Return what is given."""
        return self.model_dump(exclude_none=True)


# Times as in Esser et al. 2024 (arXiv:2403.03206) and in EDM2 (Karras et al. 2024, arXiv:2312.02696): its mean of
# log sigma, -0.4 for data of standard deviation 0.5, is 0.3 for unit variance.
_DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rectified_flow": ("flow", {"time": "logit_normal", "location": 0.0, "scale": 1.0}),
    "edm": ("edm", {"time": "log_normal", "location": 0.3, "scale": 1.0}),
}
_VARIANCE_PRESERVING: tuple[str, dict[str, Any]] = ("v", {"time": "uniform", "location": 0.0, "scale": 1.0})


def theory(schedule: ScheduleSpec, prediction: str | None, objective: ObjectiveSpec) -> dict[str, Any]:
    """Return ``schedule``, ``prediction`` and ``objective`` as plain arguments, each with what it leaves open."""
    usual, times = _DEFAULTS.get(schedule.kind, _VARIANCE_PRESERVING)
    given = objective.settings()
    chosen = {**times, **given}
    if chosen["time"] == "log_normal" and "location" not in given:
        # Densities of times move with a shifted schedule; this one is of noise levels, and is moved here.
        chosen["location"] += math.log(schedule.shift)
    return {"schedule": schedule.settings(), "prediction": prediction or usual, "objective": chosen}


_PLACING = ("grid", "shift", "rho", "eta", "noise_scale")
"""Options of the section sampling that are of the sampler and its grid, and not of the estimate."""
_LEFT = 0.1
"""Largest ratio of noise to signal where a schedule begins, and of signal to noise where it ends."""


def check_theory(spec: StagesSpec) -> None:
    """Refuse schedules, predictions and samplers that make no sense together.

    Raises
    ------
    CatalogFileError
        With the reason.
    """
    from galdiff.diffusion import Schedule, build_sampler
    from galdiff.diffusion.prediction import build_prediction

    denoiser = spec.denoiser.settings()
    with _of("denoiser.schedule"):
        schedule = Schedule.from_dict(denoiser["schedule"])
        noise, signal = schedule.ends()
        if signal > _LEFT:
            reason = f"its end leaves {signal:.2g} of the signal in the noise, and samples begin with noise alone"
            raise GaldiffError(reason, remedy="Raise sigma_max, beta_max or shift, or set zero_terminal: true")
        if noise > _LEFT:
            reason = f"it begins with {noise:.2g} of noise in the signal, and samples would end without detail"
            raise GaldiffError(reason, remedy="Lower sigma_min or shift")
    with _of("denoiser.prediction"):
        build_prediction(denoiser["prediction"], schedule)
    sampling = spec.sampling.settings()
    with _of("sampling"):
        options = {name: sampling[name] for name in _PLACING if sampling.get(name) is not None}
        build_sampler(sampling["sampler"], SimpleNamespace(schedule=schedule), steps=sampling["steps"], **options)
    if spec.sampling.floor is not None and spec.autoencoder.kind != "identity":
        reason = "is a level of pixels, and this denoiser sees latents. Leave it out, or set autoencoder: identity"
        raise CatalogFileError(reason, where="sampling.floor")


_SAMPLES = ("n", "asks", "sweeps")
"""Keys of the section sampling that say which samples a run draws; the others say how any are drawn."""
_VALUES = ConfigDict(allow_inf_nan=False)


def check_options(options: Mapping[str, Any], *, where: str = "options") -> dict[str, Any]:
    """Return options of sampling as the section has them: known, and of its types.

    Whether they go together and with a model is the model's to say.

    Parameters
    ----------
    options : mapping
        Keys of `SamplingSpec` with their values; None is the model's own.
    where : str
        What the keys are in, for errors.

    Raises
    ------
    GaldiffError
        For an unknown key, with the nearest known one, and for a value that the key cannot have.
    """
    fields = {name: field for name, field in SamplingSpec.model_fields.items() if name not in _SAMPLES}
    if not isinstance(options, Mapping):
        raise GaldiffError(
            f"{options!r} is no mapping", where=where, remedy="Give names and values: {'grid': 'karras'}"
        )
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name not in fields:
            hint = did_you_mean(name, fields)
            raise GaldiffError(f"there is no option '{name}'{hint}", where=where, remedy=f"Known: {', '.join(fields)}")
        kind: Any = Annotated[fields[name].annotation, fields[name]]
        try:
            checked[name] = None if value is None else TypeAdapter(kind, config=_VALUES).validate_python(value)
        except ValidationError as error:
            deepest = max(error.errors(), key=lambda row: len(row["loc"]))  # of a number or a mapping, the one meant
            message = deepest["msg"].removeprefix("Input ")
            raise GaldiffError(f"{message}, not {value!r}", where=f"{where}.{name}") from error
    return checked


@contextmanager
def _of(key: str) -> Iterator[None]:
    try:
        yield
    except GaldiffError as error:
        raise CatalogFileError(str(error), where=key) from error


class SamplingSpec(Section):
    """Which samples a run draws, and how."""

    sampler: Literal["heun", "dpmpp_2m", "unipc", "euler", "ddim", "ddpm", "sde_dpmpp_2m"] = Field(
        default="heun", description="Solver of the sampling equation."
    )
    steps: Size | None = Field(
        default=None,
        description="Steps from noise to sample, of heun with two calls of the network each; by default 12 of heun and "
        "unipc, 16 of dpmpp_2m, 50 of euler, ddim and sde_dpmpp_2m, 250 of ddpm.",
    )
    grid: Literal["uniform", "karras", "logsnr"] | None = Field(
        default=None,
        description="Where the steps are: evenly (also called trailing), in powers or logarithms of the noise; by "
        "default karras of the schedule edm, uniform of the others.",
    )
    shift: Positive | None = Field(
        default=None, description="Of the grid uniform: above 1 more steps where there is more noise; 1."
    )
    rho: Positive | None = Field(
        default=None, description="Of the grid karras: above 1 more steps where there is less noise; 7."
    )
    eta: Fraction | None = Field(default=None, description="Noise that ddim adds: 0 none, 1 as much as ddpm.")
    noise_scale: NonNegative | None = Field(
        default=None, description="Factor on the noise that ddim and ddpm add; below 1 samples are smoother."
    )
    guidance: NonNegative | Annotated[dict[Name, NonNegative], Field(min_length=1)] = Field(
        default=1.5,
        description="Weight of classifier-free guidance, 1 is none; or weights by conditions and, of votes, answers.",
    )
    interval: tuple[Fraction, Fraction] | None = Field(
        default=None, description="Times within which there is guidance, such as [0.2, 0.9]; by default all."
    )
    rescale: Fraction = Field(default=0.0, description="Share of the spread that guidance took to be given back.")
    floor: Number | None = Field(
        default=None,
        description="In pixel space: no estimate goes below this pixel value, such as five times the noise below the "
        "sky, or 0 for black.",
    )
    n: Count = Field(default=1024, description="Samples for the evaluation.")
    asks: dict[Name, dict[Name, Any]] | None = Field(default=None, description="Named conditions of the grid.")
    sweeps: dict[Name, dict[Name, Any]] | None = Field(
        default=None,
        description="Named conditions of which one goes step by step through a list, two numbers or names of classes; "
        "by default bars and spirals, classes, or the range of scalars; {} for none.",
    )

    def settings(self) -> dict[str, Any]:
        """Return the options of `DiffusionModel.sampler`; earlier runs depend on no key that came later."""
        from galdiff.diffusion.samplers import SAMPLERS

        later = {name for name in ("shift", "rho", "floor") if getattr(self, name) is None}
        options = self.model_dump(exclude={*_SAMPLES, *later})
        return {**options, "steps": self.steps or SAMPLERS[self.sampler].STEPS}

    def samples(self) -> dict[str, Any]:
        """Return the arguments of `galdiff.pipeline.write_samples`, as `settings` does."""
        return self.model_dump(include=set(_SAMPLES), exclude={"sweeps"} if self.sweeps is None else set())

    @model_validator(mode="after")
    def _options_fit(self) -> SamplingSpec:
        stray = [
            ((name,), f"is an option of {' and '.join(samplers)}, not of {self.sampler}")
            for name, samplers in (("eta", ("ddim",)), ("noise_scale", ("ddim", "ddpm")))
            if getattr(self, name) is not None and self.sampler not in samplers
        ]
        if self.interval is not None and self.interval[0] >= self.interval[1]:
            stray.append((("interval",), "should go from a smaller time to a larger one"))
        if stray:
            raise section_error(*stray)
        return self


def sweep_problems(
    sweeps: Mapping[str, Mapping[str, Any]], data: DataSpec
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Find sweeps that are none, or whose steps the data cannot have, each with its path under ``sweeps``."""
    for name, asked in sweeps.items():
        try:
            steps = sweep_steps(asked)
        except GaldiffError as error:
            yield (name,), str(error)
            continue
        found = [problem for _, ask in steps for problem in ask_problems({name: ask}, data)]
        yield from {path: (path, message) for path, message in reversed(found)}.values()

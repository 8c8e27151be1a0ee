"""How noise is added, what is learned, and how it is sampled: parts of the sections denoiser and sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from galdiff.config.data import DataSpec, ask_problems
from galdiff.config.section import Count, Flag, Fraction, Name, NonNegative, Positive, Section, section_error
from galdiff.errors import CatalogFileError, GaldiffError
from galdiff.schema.sweeps import sweep_steps

__all__ = ["ObjectiveSpec", "SamplingSpec", "Schedule", "ScheduleSpec", "check_theory", "sweep_problems", "theory"]


class ScheduleSpec(Section):
    """The noise schedule."""

    kind: Literal["rectified_flow", "edm", "cosine", "linear", "sigmoid"] = Field(
        default="rectified_flow", description="Straight lines, growing noise, or one of the variance-preserving curves."
    )
    shift: Positive = Field(
        default=1.0, description="Factor on the ratio of noise to signal: above 1 for larger images."
    )
    zero_terminal: Flag = Field(
        default=False, description="Leave nothing of the signal at the end (of linear; cosine and sigmoid do anyway)."
    )

    @model_validator(mode="after")
    def _zero_terminal_is_of_linear(self) -> ScheduleSpec:
        if self.zero_terminal and self.kind != "linear":
            raise section_error((("zero_terminal",), f"is an option of the schedule linear, not of {self.kind}"))
        return self

    def settings(self) -> dict[str, Any]:
        """Return the description that `Schedule.from_dict` reads."""
        used = {"zero_terminal": self.kind == "linear", "shift": self.shift != 1}
        return self.model_dump(exclude={name for name, is_used in used.items() if not is_used})


Schedule = Annotated[ScheduleSpec, BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value)]
"""A schedule by its kind alone, or with its options."""


class ObjectiveSpec(Section):
    """What the loss weighs; what is not given follows from the schedule."""

    time: Literal["logit_normal", "log_normal", "uniform"] | None = Field(
        default=None, description="Density of the times in training."
    )
    location: float | None = Field(default=None, description="Of the normal densities.")
    scale: Positive | None = Field(default=None, description="Of the normal densities.")
    stratified: Flag = Field(default=False, description="Let the times of every batch fill the density evenly.")
    weighting: Literal["uniform", "min_snr", "edm", "learned"] = Field(
        default="uniform", description="Weights of the noise levels."
    )
    gamma: Positive = Field(default=5.0, description="Largest weight of min_snr.")
    contrastive: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Weight of the distance to other samples of the batch, such as 0.05; 0 is off."
    )
    self_conditioning: Flag = Field(
        default=False, description="Show the network its own estimate of the step before, for a quarter more time."
    )

    @model_validator(mode="after")
    def _keys_say_something(self) -> ObjectiveSpec:
        stray = [((name,), "says nothing where time is uniform") for name in ("location", "scale")]
        stray = [key for key in stray if self.time == "uniform" and getattr(self, key[0][0]) is not None]
        if self.gamma != type(self).model_fields["gamma"].default and self.weighting != "min_snr":
            stray.append((("gamma",), f"says nothing where weighting is {self.weighting}"))
        if stray:
            raise section_error(*stray)
        return self

    @model_validator(mode="after")
    def _contrastive_is_bounded(self) -> ObjectiveSpec:
        if self.contrastive and self.weighting == "learned":
            raise section_error((("contrastive",), "does not go with the weighting learned, which it makes unbounded"))
        return self

    def settings(self) -> dict[str, Any]:
        """Return what is given; what is off is left out."""
        off = {name for name in ("contrastive", "self_conditioning") if not getattr(self, name)}
        return self.model_dump(exclude_none=True, exclude=off)


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
    switch = {"self_conditioning": True} if given.pop("self_conditioning", False) else {}
    return {
        **switch,
        "schedule": schedule.settings(),
        "prediction": prediction or usual,
        "objective": {**times, **given},
    }


def check_theory(settings: Mapping[str, Any]) -> None:
    """Raise a `CatalogFileError` with the reason where the network cannot predict what it should on the schedule."""
    from galdiff.diffusion import Schedule
    from galdiff.diffusion.prediction import build_prediction

    try:
        build_prediction(settings["prediction"], Schedule.from_dict(settings["schedule"]))
    except GaldiffError as error:
        raise CatalogFileError(str(error), where="denoiser.prediction") from error


class SamplingSpec(Section):
    """Which samples a run draws, and how."""

    sampler: Literal["heun", "dpmpp_2m", "unipc", "euler", "ddim", "ddpm", "sde_dpmpp_2m"] = Field(
        default="heun", description="Solver of the sampling equation."
    )
    steps: Annotated[Count, Field(le=65_536)] = Field(
        default=12, description="Steps from noise to sample; Heun calls the network twice a step."
    )
    grid: Literal["uniform", "karras", "logsnr"] | None = Field(
        default=None, description="Where the steps are; by default as the schedule's authors have them."
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
    n: Count = Field(default=1024, description="Samples for the evaluation.")
    asks: dict[Name, dict[Name, Any]] | None = Field(default=None, description="Named conditions of the grid.")
    sweeps: dict[Name, dict[Name, Any]] | None = Field(
        default=None,
        description="Named conditions of which one goes step by step through a list, two numbers or names of classes; "
        "by default bars and spirals, classes, or the range of scalars; {} for none.",
    )

    def settings(self) -> dict[str, Any]:
        """Return what the samples depend on; runs of before there were sweeps depend on no such key."""
        return self.model_dump(exclude={"sweeps"} if self.sweeps is None else None)

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

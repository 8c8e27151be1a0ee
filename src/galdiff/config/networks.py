"""The denoiser's network and the average of its weights: parts of the section denoiser."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from galdiff.config.section import Flag, Section, Share, Size, section_error

__all__ = ["SIZES", "Average", "AverageSpec", "Backbone", "DiTSpec", "UNetSpec"]

SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 6, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}
"""Width, depth and heads of the transformers of Peebles & Xie 2023, and of one for CPUs."""


class UNetSpec(Section):
    """A U-Net with adaptive normalization (unet), or EDM2's magnitude-preserving one (edm2)."""

    kind: Literal["unet", "edm2"] = Field(default="unet", description="Which of the two.")
    patch: Size = Field(default=1, description="Side of the patches that become channels first.")
    widths: Annotated[tuple[Annotated[Size, Field(ge=8, multiple_of=8)], ...], Field(min_length=1)] = Field(
        default=(64, 128), description="Channels of every level, each half as fine as the one before."
    )
    blocks: Size = Field(default=1, description="Residual blocks a level.")
    head_width: Size = Field(default=32, description="Channels of an attention head.")

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `galdiff.nn.build_backbone`."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _heads_divide(self) -> UNetSpec:
        width = self.widths[-1]
        heads = max(1, width // self.head_width)
        if width % heads:
            problem = f"makes {heads} heads, which do not divide the {width} channels of the lowest level"
            raise section_error((("head_width",), problem))
        return self


class DiTSpec(Section):
    """A diffusion transformer: of a size, or with a width, a depth and heads of its own."""

    kind: Literal["dit"] = Field(default="dit", description="This one.")
    patch: Size = Field(default=2, description="Side of the patches that become tokens.")
    size: Literal["tiny", "S", "B", "L", "XL"] | None = Field(
        default=None, description="Sets the next three; S where neither is said: 384, 12, 6 (B: 768, 12, 12)."
    )
    width: Size | None = Field(default=None, description="Channels of a token.")
    depth: Size | None = Field(default=None, description="Transformer blocks.")
    heads: Size | None = Field(default=None, description="Attention heads.")
    skips: Flag = Field(default=False, description="Long skips from the first half of the blocks to the second.")

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `galdiff.nn.build_backbone`; what is off is left out."""
        usual = dict(zip(("width", "depth", "heads"), SIZES[self.size or "S"], strict=True))
        shape = {name: getattr(self, name) or value for name, value in usual.items()}
        return {"kind": self.kind, "patch": self.patch, **shape, **({"skips": True} if self.skips else {})}

    @model_validator(mode="after")
    def _sizes_agree(self) -> DiTSpec:
        asked, shape = self.model_dump(include={"width", "depth", "heads"}, exclude_none=True), self.settings()
        if self.size is not None:
            usual = DiTSpec.model_construct(size=self.size).settings()
            other = [
                ((name,), f"is {usual[name]} of size {self.size}, not {value}; leave one of the two out")
                for name, value in asked.items()
                if value != usual[name]
            ]
            if other:
                raise section_error(*other)
        if shape["width"] % (4 * shape["heads"]):
            raise section_error((("width",), f"should be a multiple of 4 x heads = {4 * shape['heads']}"))
        return self


Backbone = Annotated[
    Annotated[UNetSpec | DiTSpec, Field(discriminator="kind")],
    BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value),
]
"""A network by its kind alone, or with its sizes."""


class AverageSpec(Section):
    """The average of the weights: with a decay, or power functions whose length may be chosen after training."""

    decay: Share | None = Field(default=None, description="Of the plain one, a step.")
    lengths: Annotated[tuple[Annotated[float, Field(gt=0, le=0.28)], ...], Field(min_length=1)] | None = Field(
        default=None, description="Of power functions, in units of the training's length, such as [0.05, 0.1]."
    )
    snapshots: Size = Field(default=40, description="Of the power functions, kept to choose a length from.")
    precision: Literal["float16", "float32"] = Field(default="float16", description="Of the snapshots.")

    def settings(self) -> float | dict[str, Any]:
        """Return the argument ``ema`` of `galdiff.training.train`."""
        if self.decay is not None:
            return self.decay
        return self.model_dump(mode="json", exclude={"decay"})

    @model_validator(mode="after")
    def _is_one_of_two(self) -> AverageSpec:
        if (self.decay is None) == (self.lengths is None):
            raise section_error((("decay",), "is one choice and lengths the other: give one of them"))
        if self.lengths is not None and len(set(self.lengths)) < len(self.lengths):
            raise section_error((("lengths",), "should differ"))
        return self


Average = Annotated[
    AverageSpec,
    BeforeValidator(lambda value: {"decay": value} if isinstance(value, int | float) else value),
]
"""An average by its decay alone, or with its options."""

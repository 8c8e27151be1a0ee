"""The section autoencoder: those that are trained, and any."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from galdiff.config.ready import IdentitySpec, PretrainedSpec, with_kind
from galdiff.config.section import Count, CountOrZero, Flag, NonNegative, Rate, Size, section_error
from galdiff.config.training import TrainingSpec

__all__ = ["AnyAutoencoder", "AutoencoderSpec"]

_KEYS = {
    "channels": ("kl", "vq"),
    "kl": ("kl",),
    "codes": ("vq",),
    "commitment": ("vq",),
    "levels": ("fsq",),
    "kl_warmup_images": ("kl",),
    "free_bits": ("kl",),
}
_OF_MODEL = {"channels", "codes", "commitment", "levels"}


class AutoencoderSpec(TrainingSpec):
    """An autoencoder to train: with a normal posterior (kl), a codebook (vq) or rounded latents (fsq)."""

    kind: Literal["kl", "vq", "fsq"] = Field(default="kl", description="Which of the three.")
    factor: Literal[1, 2, 4, 8, 16] = Field(default=8, description="Downsampling from image to latent.")
    channels: Size = Field(default=8, description="Channels of the latents.")
    width: Annotated[Size, Field(ge=8, multiple_of=8)] = Field(
        default=128, description="Channels of the networks' finest level."
    )
    blocks: Size = Field(default=1, description="Residual blocks.")
    stem: Literal["unshuffle", "haar"] = Field(
        default="unshuffle", description="How patches become channels: pixel by pixel, or as Haar wavelet packets."
    )
    attention: Flag = Field(default=False, description="Self-attention at the lowest level.")
    norm: Literal["group", "rms"] = Field(default="group", description="Normalization of the residual blocks.")
    activation: Literal["linear", "tanh"] = Field(
        default="linear", description="Of the decoded image; tanh keeps it within (-1, 1)."
    )
    codes: Annotated[Size, Field(ge=2)] = Field(default=1024, description="Of vq: size of the codebook.")
    commitment: NonNegative = Field(default=0.25, description="Of vq: weight that keeps latents near their codes.")
    levels: Annotated[tuple[Annotated[Size, Field(ge=2)], ...], Field(min_length=1, max_length=20)] = Field(
        default=(8, 8, 8, 5, 5, 5), description="Of fsq: levels of every latent channel."
    )
    kl: NonNegative = Field(default=1.0e-3, description="Weight of the divergence from the unit normal.")
    gradient: NonNegative = Field(default=0.5, description="Weight of the gradient term.")
    grain: NonNegative = Field(default=0.03, description="Weight of the noise model's likelihood.")
    pixel: Literal["l1", "l2", "huber"] = Field(default="l1", description="What a pixel's difference costs.")
    kl_warmup_images: CountOrZero = Field(default=0, description="Grow the divergence's weight from zero [images].")
    free_bits: NonNegative = Field(
        default=0.0, description="Divergence that costs a latent channel nothing [nats per element]."
    )
    chi2: NonNegative = Field(
        default=0.0, description="Weight of the squared differences over the variance of the pixels' noise."
    )
    dihedral: Flag = Field(default=True, description="Teach that a turned latent is a turned image.")
    scale_equivariance: NonNegative = Field(
        default=0.0, description="Weight of the images of half the side, decoded from latents of half the side."
    )
    adversarial: NonNegative = Field(
        default=0.0, description="Weight of a discriminator's judgment, times the ratio of gradients; 0: there is none."
    )
    adversarial_start: CountOrZero = Field(default=0, description="Images before the discriminator comes in.")
    discriminator_width: Size = Field(default=32, description="Channels of the discriminator's first layer.")
    images: Count = Field(default=100_000, description="Length of the training [images seen].")
    learning_rate: Rate = Field(default=3.0e-3, description="Peak rate of AdamW.")
    validate_every: Count = Field(default=20_000, description="Images between validations, if there is a split for it.")
    early_stopping: Count | None = Field(
        default=None, description="End after so many validations in a row without a smaller loss."
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="Which weights become the autoencoder; best: of the least validation loss."
    )

    @model_validator(mode="after")
    def _adversary_is_there(self) -> AutoencoderSpec:
        names = ("adversarial_start", "discriminator_width")
        stray = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        if stray and not self.adversarial:
            raise section_error(*(((name,), "says nothing where adversarial is 0") for name in stray))
        return self

    @model_validator(mode="after")
    def _keys_belong(self) -> AutoencoderSpec:
        strangers = [
            ((name,), f"is an option of {' and '.join(owners)}, not of {self.kind}")
            for name, owners in _KEYS.items()
            if self.kind not in owners and getattr(self, name) != AutoencoderSpec.model_fields[name].default
        ]
        if strangers:
            raise section_error(*strangers)
        return self

    def misfit(self, size: int) -> tuple[str, str] | None:
        """Return the key that does not fit images of a side, and the problem; None where all do."""
        if size % self.factor:
            return "factor", f"{self.factor} does not divide the side of the images, {size}"
        if self.scale_equivariance and size // self.factor % 2:
            return "scale_equivariance", f"halves latents of {size // self.factor} pixels: the side should be even"
        return None

    def settings(self) -> dict[str, Any]:
        """Return plain arguments: ``model``, ``loss``, ``training`` and, where they are not the usual, more.

        What came later is named only where it is not the default, so that the records of earlier runs stay true.
        """
        own = {name for name in _OF_MODEL if self.kind in _KEYS[name]}
        model = self.model_dump(mode="json", include={"factor", "width", "blocks", *own})
        model |= self.model_dump(include={"kind", "stem", "attention", "norm", "activation"}, exclude_defaults=True)
        options = {"pixel", "kl_warmup_images", "free_bits", "chi2", "dihedral", "scale_equivariance"}
        options |= {"adversarial", "adversarial_start"}
        loss = self.model_dump(include={"kl", "gradient", "grain"})
        loss |= self.model_dump(include=options, exclude_defaults=True)
        if self.kind != "kl":
            loss["kl"] = 0.0
        more: dict[str, Any] = {} if self.keep == "last" else {"keep": self.keep}
        if self.adversarial:
            more["discriminator"] = {"width": self.discriminator_width}
        training = {**self.training(), "validate_every": self.validate_every}
        if self.early_stopping:
            training["early_stopping"] = self.early_stopping
        return {"model": model, "loss": loss, "training": training, **more}


AnyAutoencoder = Annotated[
    Annotated[AutoencoderSpec | IdentitySpec | PretrainedSpec, Field(discriminator="kind")], BeforeValidator(with_kind)
]
"""Any kind of autoencoder; a section without a kind is kl."""

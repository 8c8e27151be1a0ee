"""What the sections of the two trainings have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from galdiff.config.section import Count, CountOrZero, NonNegative, Positive, Rate, Section, Share

__all__ = ["TrainingSpec"]


class TrainingSpec(Section):
    """Length, steps, averages and checkpoints of a training."""

    images: Count = Field(description="Length of the training [images seen].")
    batch: Count = Field(default=32, description="Images a step.")
    learning_rate: Rate = Field(description="Peak rate of AdamW.")
    warmup_images: CountOrZero = Field(default=3200, description="Linear warm-up [images].")
    decay: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="How the rate goes to zero.")
    ema: Share = Field(default=0.995, description="Decay of the weight average, a step.")
    clip: Positive = Field(default=1.0, description="Largest norm of the gradient.")
    weight_decay: NonNegative = Field(default=0.0, description="Of AdamW.")
    budget: Positive | None = Field(default=None, description="Train for so many seconds instead of so many images.")
    save_every: Count = Field(default=20_000, description="Images between checkpoints.")
    plot_every: Count = Field(default=20_000, description="Images between plots.")

    def training(self) -> dict[str, Any]:
        """Return the arguments of `galdiff.training.train`; the budget goes its own way."""
        return {name: getattr(self, name) for name in TrainingSpec.model_fields if name != "budget"}

"""Autoencoders that a run need not train."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from galdiff.config.section import Folder, Section

__all__ = ["IdentitySpec", "PretrainedSpec", "with_kind"]


class _ReadySpec(Section):
    @property
    def budget(self) -> None:
        """There is nothing to spend time on."""

    def settings(self) -> dict[str, Any]:
        """Return plain arguments: ``model``, and nothing to train."""
        return {"model": self.model_dump(mode="json"), "loss": {}, "training": {}}


class IdentitySpec(_ReadySpec):
    """No autoencoder: diffusion in pixel space."""

    kind: Literal["identity"] = Field(default="identity", description="This one.")


class PretrainedSpec(_ReadySpec):
    """An ``AutoencoderKL`` of diffusers, which the run keeps a copy of; needs the extra ``diffusers``."""

    kind: Literal["diffusers"] = Field(default="diffusers", description="This one.")
    folder: Folder = Field(description="Where ``save_pretrained`` wrote it; relative to the catalog file.")


def with_kind(value: Any) -> Any:
    """Read ``identity`` as a section of that kind, and a section without a kind as kl."""
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "kl", **value} if isinstance(value, dict) else value

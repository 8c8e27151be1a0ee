"""Feature spaces by name and protocol."""

from __future__ import annotations

import re

import torch

from galdiff.errors import DataError
from galdiff.metrics.features.networks import DINOv2Features, InceptionFeatures
from galdiff.metrics.features.resizing import RESIZERS
from galdiff.metrics.features.space import FeatureSpace, PhysicalFeatures, RenderedFeatures
from galdiff.metrics.physical import PROTOCOL

__all__ = [
    "SPACES",
    "DINOv2Features",
    "FeatureSpace",
    "InceptionFeatures",
    "PhysicalFeatures",
    "RenderedFeatures",
    "feature_space",
]

SPACES = (PROTOCOL, *(f"inception-2015:{name}[=WEIGHTS]" for name in RESIZERS), "dinov2=FOLDER")
"""Feature spaces as they are asked for."""


def feature_space(text: str, *, device: str | torch.device = "cpu") -> FeatureSpace:
    """Make a feature space from its name.

    Parameters
    ----------
    text : str
        ``NAME[:PROTOCOL][=PATH]``, one of `SPACES`; the path is that of a file of weights or of a model's folder.
    device : str or torch.device
        Where a network runs.

    Raises
    ------
    DataError
        For a name that is not known.
    CheckpointError, ResourceError
        Where a network's weights cannot be loaded.
    """
    match = re.fullmatch(r"([\w.-]+)(?::([\w-]+))?(?:=(.+))?", text)
    name, protocol, path = match.groups() if match else (text, None, None)
    if name == PROTOCOL and not protocol and not path:
        return PhysicalFeatures()
    if name == "inception-2015":
        return InceptionFeatures(protocol or "tf", path, device=device)
    if name == "dinov2" and path and not protocol:
        return DINOv2Features(path, device=device)
    raise DataError(f"there is no feature space '{text}'", remedy=f"Known: {', '.join(SPACES)}")

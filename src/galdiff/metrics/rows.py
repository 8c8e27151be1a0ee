"""Features as every distance takes them: rows of numbers, one row a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError

__all__ = ["as_features", "as_pair"]


def as_features(features: Any, *, minimum: int = 1) -> Tensor:
    """Return finite features ``(sample, feature)`` in float64, on the device where they are.

    Parameters
    ----------
    features : array_like
        Tensor, array or DataArray.
    minimum : int
        Rows that are needed at least.

    Raises
    ------
    DataError
        For another rank, too few rows, no columns, or values that are not finite.
    """
    if isinstance(features, Tensor):
        # Apple's GPUs have no float64.
        x = features.detach().cpu() if features.device.type == "mps" else features.detach()
    else:
        try:
            x = torch.from_numpy(np.array(features, dtype=np.float64, order="C"))
        except (TypeError, ValueError) as error:
            raise DataError(f"features are not a table of numbers: {error}") from error
    if x.ndim != 2 or x.shape[0] < minimum or x.shape[1] == 0:
        needed = f" with {minimum} rows or more" if minimum > 1 else ""
        raise DataError(f"features have shape {tuple(x.shape)}, not (sample, feature){needed}")
    finite = torch.isfinite(x).all(dim=1)
    if not finite.all():
        raise DataError(
            f"{int((~finite).sum())} of {len(x)} rows of features are not finite",
            remedy="Drop what could not be measured, and report its share as a figure of its own",
        )
    return x.double()


def as_pair(features_a: Any, features_b: Any, *, minimum: int = 1) -> tuple[Tensor, Tensor]:
    """Return two sets of features of the same width on the device of the first, as `as_features` does.

    Raises
    ------
    DataError
        For different widths, and what `as_features` refuses.
    """
    a, b = (as_features(features, minimum=minimum) for features in (features_a, features_b))
    if a.shape[1] != b.shape[1]:
        raise DataError(f"features have shapes {tuple(a.shape)} and {tuple(b.shape)}: their widths differ")
    return a, b.to(a.device)

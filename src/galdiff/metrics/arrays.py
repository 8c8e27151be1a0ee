"""Images as every metric takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.errors import DataError

__all__ = ["as_images"]


def as_images(images: Any, *, finite: bool = True) -> Tensor:
    """Return images ``(sample, band, y, x)`` as a float tensor, from a tensor, an array or a DataArray.

    Parameters
    ----------
    images : array_like
        Of any kind of number.
    finite : bool
        Whether values that are not finite are an error.

    Raises
    ------
    DataError
        For another rank, no image at all, or values that are not finite.
    """
    if isinstance(images, Tensor):
        x = images
    else:
        array = np.asarray(images)
        # Torch takes neither the byte order of FITS nor a flipped view.
        x = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if x.ndim != 4 or 0 in x.shape:
        raise DataError(f"images have shape {tuple(x.shape)}, not (sample, band, y, x)")
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if finite and not torch.isfinite(x).all():
        raise DataError(f"{int((~torch.isfinite(x)).sum())} pixel values are NaN or infinite")
    return x

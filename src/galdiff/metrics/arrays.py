"""Images as every metric takes them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError

__all__ = [
    "Labels",
    "as_images",
    "as_numbers",
    "as_scale",
    "as_square_images",
    "as_stamps",
    "as_valid",
    "labels_of",
    "per_image",
]

_DIMENSIONS = ("sample", "band", "y", "x")


def as_images(images: Any, *, valid: Tensor | None = None, finite: bool = True) -> Tensor:
    """Return images ``(sample, band, y, x)`` as a float tensor, from a tensor, an array or a DataArray.

    Parameters
    ----------
    images : array_like
        Pixel values of any real type.
    valid : Tensor, optional
        bool, of a shape that broadcasts: False where a pixel is to be 0, whatever it was.
    finite : bool
        Whether values that are not finite are an error.

    Raises
    ------
    DataError
        For another rank, no image at all, what is no array of real numbers, dimensions named in another order, or
        values that are not finite.
    """
    if isinstance(images, Tensor):
        x = images
    else:
        named = images.dims if isinstance(images, xr.DataArray) else ()
        if any(name in _DIMENSIONS and _DIMENSIONS.index(name) != place for place, name in enumerate(named)):
            remedy = f"Transpose to {', '.join(_DIMENSIONS)}"
            raise DataError(f"images have dimensions ({', '.join(map(str, named))})", remedy=remedy)
        array = _as_array(images)
        # Torch takes neither the byte order of FITS nor a flipped view.
        x = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if x.ndim != 4 or 0 in x.shape:
        raise DataError(f"images have shape {tuple(x.shape)}, not (sample, band, y, x)")
    if x.is_complex():
        raise DataError(f"values of type {x.dtype} are not real numbers")
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if valid is not None:
        try:
            x = torch.where(valid.to(x.device).expand_as(x), x, 0.0)
        except RuntimeError:
            raise DataError(f"the mask has shape {tuple(valid.shape)}, the images {tuple(x.shape)}") from None
    # One bad value spoils the sum, which costs a tenth of looking at each; a sum that overflows is looked into.
    if finite and not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        raise DataError(f"{int((~torch.isfinite(x)).sum())} pixel values are NaN or infinite")
    return x


def as_square_images(images: Any, *, valid: Tensor | None = None) -> Tensor:
    """Return `as_images`, or raise `DataError` where they are not square."""
    x = as_images(images, valid=valid)
    if x.shape[-1] != x.shape[-2]:
        raise DataError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, not square")
    return x


def as_stamps(images: Any) -> Tensor:
    """Return `as_images`, finite or not, or raise `DataError` where they have no corners to measure the sky in."""
    x = as_images(images, finite=False)
    if min(x.shape[2:]) < 4:
        raise DataError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, not of 4 or more a side")
    return x


def as_numbers(value: Any, device: torch.device) -> Tensor:
    """Return a number, an array or a tensor in float64 on a device."""
    given = value if isinstance(value, Tensor) else torch.from_numpy(_as_array(value).astype(np.float64))
    return given.to(device, torch.float64)


def _as_array(values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError("values are not of one shape") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"values of type {array.dtype} are not real numbers")
    return array


def as_scale(pixel_scale: Any) -> float:
    """Return the side of a pixel, or raise `DataError` where it is not positive."""
    scale = float(pixel_scale)
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"the pixel scale is {scale}", remedy="Give the side of a pixel, above 0")
    return scale


def as_valid(mask: Any) -> Tensor | None:
    """Return a mask, True where a pixel is valid, as a bool tensor."""
    if mask is None or isinstance(mask, Tensor):
        return None if mask is None else mask.bool()
    return torch.from_numpy(np.array(mask, dtype=bool))


def per_image(value: Any, x: Tensor, name: str) -> Tensor | None:
    """Return one positive number for every image, float64 ``(sample,)``, from one or as many."""
    if value is None:
        return None
    found = as_numbers(value, x.device)
    if found.shape not in ((), (len(x),)) or not (torch.isfinite(found) & (found > 0)).all():
        message = f"the {name} of shape {tuple(found.shape)} is not one positive number for each of {len(x)} images"
        raise DataError(message)
    return found.expand(len(x))


class Labels(NamedTuple):
    """What a DataArray says of its images: the unit of its values, the side of a pixel [arcsec], names of the bands."""

    units: str
    pixel_scale: float | None
    bands: list[Any] | None


def labels_of(images: Any) -> Labels:
    """Read the attributes ``units`` and ``pixel_scale`` and the coordinate ``band``; of other arrays there are none."""
    if not isinstance(images, xr.DataArray):
        return Labels("", None, None)
    scale = images.attrs.get("pixel_scale")
    names = [images.coords[name] for name in images.dims[1:2] if name in images.coords]
    bands = names[0].to_numpy().tolist() if names else None
    return Labels(str(images.attrs.get("units", "")), None if scale is None else float(scale), bands)

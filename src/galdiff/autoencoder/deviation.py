r"""How noisy every pixel is, in stretched units: what the differences of a chi-square are divided by.

The noise :math:`\sigma` of a pixel value, one number a band and image, is the median absolute deviation of the finest
wavelet scale, in which objects hardly show; there white noise has 0.89 of its deviation (Starck & Murtagh 2006, Section
2.3). Stretched it is :math:`(s(v + \sigma) - s(v - \sigma)) / 2`, a central difference, finite also where a stretch has
a vertical tangent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from galdiff.autoencoder.grain import starlet

__all__ = ["pixel_noise", "stretched_deviation"]

_SHARE = 0.8908  # of white noise that is in the finest scale
_LEAST = 1e-3  # of the band's spread: where the sky is constant, as in 8-bit images, there is no noise to measure


def pixel_noise(pixels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the standard deviation of the noise by image and band.

    Parameters
    ----------
    pixels : Tensor
        Pixel values ``(n, band, y, x)``.
    valid : Tensor, optional
        bool, of the same shape: pixels to look at.

    Returns
    -------
    Tensor
        ``(n, band, 1, 1)``, at least a thousandth of the band's spread.
    """
    finest = starlet(pixels, 1)[:, 0].abs()
    spread = pixels if valid is None else torch.where(valid, pixels, 0.0)
    if valid is not None:
        finest = torch.where(valid, finest, torch.nan)
    noise = 1.4826 / _SHARE * finest.flatten(2).nanmedian(dim=2).values.nan_to_num(0.0)
    return torch.maximum(noise, _LEAST * spread.flatten(2).std(dim=2)).clamp_min(1e-12)[..., None, None]


def stretched_deviation(pixels: Tensor, stretch: Callable[[Tensor], Tensor], valid: Tensor | None = None) -> Tensor:
    """Return the noise's standard deviation in stretched units, of the images' shape; arguments as in `pixel_noise`."""
    noise = pixel_noise(pixels, valid)
    return (0.5 * (stretch(pixels + noise) - stretch(pixels - noise))).clamp_min(1e-6)

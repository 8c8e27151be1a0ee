r"""From light to a picture: atmosphere, sky noise and the rendering of color JPEGs.

The PSF is a Moffat profile of index 3. The sky noise is white noise smoothed by a Gaussian of width s, with the
autocorrelation :math:`\rho(d) = e^{-d^2/4s^2}`, and partly common to the bands, as in resampled survey JPEGs.
The rendering is that of Lupton et al. 2004 (PASP 116, 133): with the mean intensity I of the bands,

.. math:: R = r\,\frac{\operatorname{asinh}(Q I)}{Q I},

which keeps colors, and a pixel with a band above one is divided by its brightest band.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from galdiff.simulate.light import OVERSAMPLING

__all__ = ["blur", "lupton", "sky_noise"]

MOFFAT_INDEX = 3.0
SOFTENING = 4.0  # Lupton's Q
BAND_CORRELATION = 0.6
SKY_LEVEL = np.array([5.0, 4.0, 3.2], dtype=np.float32) / 255

Image = NDArray[np.floating[Any]]


def blur(scene: Image, fwhm: float) -> Image:
    """Convolve with the PSF and bin to pixels; both conserve flux (the stamp is taken as periodic).

    Parameters
    ----------
    scene : float32 array (3, OVERSAMPLING * size, OVERSAMPLING * size)
        Surface brightness [flux/pixel].
    fwhm : float
        Full width at half maximum of the PSF [pixel].

    Returns
    -------
    float32 array (3, size, size)
        Mean surface brightness of every pixel [flux/pixel].
    """
    n = scene.shape[-1]
    distance = np.minimum(np.arange(n), n - np.arange(n)).astype(np.float32) / OVERSAMPLING
    core2 = np.float32((fwhm / 2) ** 2 / (2 ** (1 / MOFFAT_INDEX) - 1))
    psf = (1 + (distance[:, None] ** 2 + distance[None, :] ** 2) / core2) ** np.float32(-MOFFAT_INDEX)
    transfer = fft.rfft2(psf / psf.sum())
    fine = fft.irfft2(fft.rfft2(scene) * transfer, s=(n, n))
    shape = (3, n // OVERSAMPLING, OVERSAMPLING, n // OVERSAMPLING, OVERSAMPLING)
    return fine.reshape(shape).mean(axis=(2, 4))


def sky_noise(white: Image, smoothing: float) -> Image:
    """Turn white noise into sky noise of unit variance.

    Parameters
    ----------
    white : float32 array (4, size, size)
        Standard normal numbers; the first plane is common to the bands.
    smoothing : float
        Width s of the Gaussian [pixel].

    Returns
    -------
    float32 array (3, size, size)
    """
    common = np.float32(np.sqrt(BAND_CORRELATION)) * white[:1]
    bands = common + np.float32(np.sqrt(1 - BAND_CORRELATION)) * white[1:]
    return fft.irfft2(fft.rfft2(bands) * _noise_filter(white.shape[-1], smoothing), s=white.shape[1:])


def lupton(light: Image) -> Image:
    """Render linear light (3, size, size) to display units in [0, 1]."""
    light = np.maximum(light, 0)
    stretched = np.float32(SOFTENING) * light.mean(axis=0)
    rgb = light * np.arcsinh(stretched) / np.maximum(stretched, np.float32(1e-6))
    return rgb / np.maximum(rgb.max(axis=0), 1)


@lru_cache(maxsize=8)
def _noise_filter(size: int, smoothing: float) -> Image:
    k2 = fft.fftfreq(size)[:, None] ** 2 + fft.fftfreq(size)[None, :] ** 2
    transfer = np.exp(-2 * (np.pi * smoothing) ** 2 * k2)
    transfer /= np.sqrt((transfer**2).mean())
    return transfer[:, : size // 2 + 1].astype(np.float32)

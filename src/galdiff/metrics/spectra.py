r"""Radially averaged power spectra.

Convention: for pixels of side :math:`\Delta` and N x N of them,

.. math:: P(k) = |\mathrm{FFT}(x)|^2 \Delta^2 / N^2, \qquad k = 2 \pi\, \mathrm{fftfreq}(N, \Delta),

so that :math:`\sum_k P / (N \Delta)^2 = \langle x^2 \rangle` (Parseval). It is powerbox's and, but for the window, that
of Pylians. Bins are :math:`2 \pi / (N \Delta)` wide, without k = 0, to the Nyquist frequency.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_images

__all__ = ["high_frequency_power", "power_spectrum"]


def power_spectrum(
    images: Any, pixel_scale: float = 1.0, *, window: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every image's spectrum in rings of spatial frequency.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square.
    pixel_scale : float
        Side of a pixel, in arcsec or any unit.
    window : {None, "hann"}
        Taper against the jump at the edges of an image that is not periodic; power is divided by the window's mean
        square.

    Returns
    -------
    k : numpy.ndarray
        Mean angular frequency of every ring [rad / unit of the scale], ``(ring,)``.
    power : numpy.ndarray
        float64 ``(sample, band, ring)`` [pixel value^2 x scale^2]; the mean of the image is taken off first.
    modes : numpy.ndarray
        Number of modes in every ring, int64.
    """
    x = as_images(images).double()
    n = x.shape[-1]
    if x.shape[-2] != n:
        raise DataError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, not square")
    x = x - x.mean(dim=(2, 3), keepdim=True)
    norm = 1.0
    if window == "hann":
        taper = torch.hann_window(n, dtype=x.dtype, device=x.device)
        x = x * torch.outer(taper, taper)
        norm = float(torch.outer(taper, taper).square().mean())
    elif window is not None:
        raise DataError(f"unknown window '{window}'", remedy="Known: hann")
    power = torch.fft.fft2(x).abs().square() * (pixel_scale**2 / n**2 / norm)
    frequency = torch.fft.fftfreq(n, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency[None]) * n  # in units of the fundamental
    ring = torch.floor(radius + 0.5).long().flatten()
    inside = (ring >= 1) & (ring <= n // 2)
    index = (ring[inside] - 1).to(x.device)
    rings = n // 2
    modes = torch.bincount(index.cpu(), minlength=rings)
    total = power.new_zeros(*power.shape[:2], rings).index_add_(2, index, power.flatten(2)[..., inside.to(x.device)])
    mean_k = torch.zeros(rings, dtype=torch.float64).index_add_(0, index.cpu(), radius.flatten()[inside]) / modes
    k = 2 * math.pi * mean_k / (n * pixel_scale)
    return k.numpy(), (total / modes.to(x.device)).cpu().numpy(), modes.numpy()


def high_frequency_power(images: Any) -> np.ndarray:
    """Return the mean power above half the Nyquist frequency, every direction, float64 ``(sample, band)``."""
    x = as_images(images).double()
    power = torch.fft.fft2(x).abs().square() / (x.shape[-1] * x.shape[-2])
    fy, fx = (torch.fft.fftfreq(s) for s in x.shape[-2:])
    radius = torch.hypot(fy[:, None], fx[None])
    ring = ((radius > 0.25) & (radius <= 0.5)).to(x.device)
    return power[..., ring].mean(dim=-1).cpu().numpy()

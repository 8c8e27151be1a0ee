r"""Grain: a model of the correlated sky noise that a decoder's mean image leaves out.

The best mean image is smooth, but sky noise is part of the truth. What the mean leaves, :math:`r = x - \bar x`, is
described by the isotropic undecimated wavelet transform (starlet; Starck & Murtagh 2006, *Astronomical Image and Data
Analysis*, Section 2.3)

.. math:: c_0 = r, \quad c_j = h_j * c_{j-1}, \quad w_j = c_{j-1} - c_j,

whose coefficients are modelled as normal with a local scale that the decoder predicts,
:math:`w_j(x) \sim \mathcal N(0, \sigma_j^2(x))`, and with a correlation between the bands. A draw is

.. math:: n(x) = \sum_j \frac{\sigma_j(x)}{\langle \sigma_j^2 \rangle^{1/2}} \;
          \bigl(L_j\, (\phi_j \sqrt P * \epsilon_j)(x)\bigr),

with white :math:`\epsilon_j`, the power spectrum P of the residuals of real images, filters :math:`\phi_j` of the same
octaves whose powers sum to one, and the Cholesky factor :math:`L_j` of the band correlation. On average over images a
draw has the spectrum P exactly; within an image its octaves rise and fall with :math:`\sigma_j`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SCALES", "Grain", "starlet"]

SCALES = 3
_BINS = 48  # radial bins of the spectrum, from zero to the corner of the Fourier grid
_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # the B3 spline


def starlet(x: Tensor, scales: int = SCALES) -> Tensor:
    """Wavelet coefficients of the finest scales.

    Parameters
    ----------
    x : Tensor
        Images ``(n, band, y, x)``.
    scales : int
        Number of scales.

    Returns
    -------
    Tensor
        ``(n, scale, band, y, x)``; the coarse remainder is left out.
    """
    n, bands, h, w = x.shape
    taps = torch.tensor(_TAPS).to(x, non_blocking=True)
    coarse, planes = x.reshape(n * bands, 1, h, w), []
    for j in range(scales):
        step = 2**j
        # Reflection needs at least 2 * step + 1 pixels; a smaller image repeats its edge.
        mode = "reflect" if min(h, w) > 2 * step else "replicate"
        smooth = functional.pad(coarse, (2 * step, 2 * step, 2 * step, 2 * step), mode=mode)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 is coarser than the finest noise
            smooth = functional.conv2d(smooth, taps.view(1, 1, 1, 5), dilation=step)
            smooth = functional.conv2d(smooth, taps.view(1, 1, 5, 1), dilation=step)
        planes.append((coarse - smooth).reshape(n, bands, h, w))
        coarse = smooth
    return torch.stack(planes, dim=1)


@lru_cache
def _transfer(height: int, width: int) -> Tensor:
    """Amplitude of the octave filters on an image's Fourier grid, float64 ``(scale, height, width // 2 + 1)``.

    The powers telescope, |phi_j|^2 = |H_(j-1)|^2 - |H_j|^2 with H_j the response of j smoothings, and the last filter
    takes what is left, so that they sum to one at every frequency.
    """
    y = 2 * math.pi * torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    x = 2 * math.pi * torch.fft.rfftfreq(width, dtype=torch.float64)[None]

    def spline(omega: Tensor) -> Tensor:
        return (6 + 8 * omega.cos() + 2 * (2 * omega).cos()) / 16

    smooth, before, planes = torch.ones(height, width // 2 + 1, dtype=torch.float64), torch.ones([]), []
    for j in range(SCALES - 1):
        smooth = smooth * spline(2**j * y) * spline(2**j * x)
        planes.append((before - smooth.square()).clamp_min(0).sqrt())
        before = smooth.square()
    return torch.stack([*planes, before.sqrt()])


@lru_cache
def _bins(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where every frequency of the Fourier grid lies among the spectrum's bins: lower bin and share of the next."""
    y, x = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    position = torch.hypot(y, x) / math.sqrt(0.5) * (_BINS - 1)
    lower = position.long().clamp_max(_BINS - 2)
    return lower, position - lower


class Grain(nn.Module):
    """Scale-by-scale normal noise with local amplitude and band correlation.

    Parameters
    ----------
    bands : int
        Bands of the image.
    """

    correlation: Tensor
    level: Tensor
    spectrum: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.register_buffer("correlation", torch.eye(bands).repeat(SCALES, 1, 1))
        self.register_buffer("level", torch.ones(SCALES, bands))
        self.register_buffer("spectrum", torch.ones(bands, _BINS))

    def log_sigma(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Spread the decoder's maps ``(n, scale * band, h, w)`` over the pixels: ``(n, scale, band, y, x)``."""
        maps = functional.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
        return maps.unflatten(1, (SCALES, self.bands)).clamp(-9.0, 3.0)

    def loss(self, residual: Tensor, maps: Tensor) -> Tensor:
        """Negative log-likelihood of a residual ``(n, band, y, x)``, mean over scales and pixels."""
        log_sigma = self.log_sigma(maps, residual.shape[-2:])
        w = starlet(residual.float())
        return (log_sigma + 0.5 * (w * torch.exp(-log_sigma)).square()).mean()

    @torch.no_grad()
    def calibrate(self, residual: Tensor, maps: Tensor) -> None:
        """Measure the spectrum, the band correlation and the mean levels on residuals of real images.

        Parameters
        ----------
        residual : Tensor
            ``(n, band, y, x)``, some hundreds of images.
        maps : Tensor
            The decoder's maps of the same images.
        """
        size = (residual.shape[-2], residual.shape[-1])
        sigma = self.log_sigma(maps, size).exp()
        z = (starlet(residual.float()) / sigma).permute(1, 2, 0, 3, 4).flatten(2).double()
        covariance = z @ z.transpose(1, 2) / z.shape[2]
        std = covariance.diagonal(dim1=1, dim2=2).sqrt().clamp_min(1e-6)
        self.correlation.copy_(covariance / std[:, :, None] / std[:, None, :])
        self.level.copy_(sigma.double().square().mean(dim=(0, 3, 4)).sqrt().clamp_min(1e-6))
        # No window: it would weigh the object in the middle over the sky, whose grain is larger in a square-root stretch,
        # and a residual has no gradient that jumps at the edges.
        power = torch.fft.rfft2(residual).abs().square().mean(0) / (size[0] * size[1])
        lower, share = (b.to(power.device) for b in _bins(*size))
        weights = torch.cat([1 - share.flatten(), share.flatten()])
        where = torch.cat([lower.flatten(), lower.flatten() + 1])
        count = power.new_zeros(_BINS).index_add_(0, where, weights)
        total = power.new_zeros(self.bands, _BINS).index_add_(1, where, power.flatten(1).repeat(1, 2) * weights)
        self.spectrum.copy_(_fill(total / count.clamp_min(1e-9), count > 0.5))

    def forward(self, maps: Tensor, white: Tensor) -> Tensor:
        """Draw noise.

        Parameters
        ----------
        maps : Tensor
            The decoder's maps, log standard deviations, ``(n, scale * band, h, w)``.
        white : Tensor
            Unit normal numbers ``(n, scale * band, y, x)``.

        Returns
        -------
        Tensor
            ``(n, band, y, x)``.
        """
        size = (white.shape[-2], white.shape[-1])
        sigma = self.log_sigma(maps, size).exp() / self.level[:, :, None, None]
        white = white.unflatten(1, (SCALES, self.bands))
        jitter = 1e-4 * torch.eye(self.bands, device=white.device)
        white = torch.einsum("sab,nsbyx->nsayx", torch.linalg.cholesky(self.correlation + jitter), white)
        lower, share = (b.to(white.device) for b in _bins(*size))
        amplitude = torch.lerp(self.spectrum[:, lower], self.spectrum[:, lower + 1], share).sqrt()
        transfer = _transfer(*size).to(white)[:, None] * amplitude
        return (sigma * torch.fft.irfft2(torch.fft.rfft2(white) * transfer, s=size)).sum(dim=1)


def _fill(spectrum: Tensor, measured: Tensor) -> Tensor:
    """Give bins without a measurement the value of the nearest one that has it."""
    bins = torch.arange(spectrum.shape[1], device=spectrum.device)
    known = bins[measured]
    nearest = known[(bins[:, None] - known[None]).abs().argmin(dim=1)]
    return spectrum[:, nearest]

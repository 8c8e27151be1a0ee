r"""Grain: a model of the correlated sky noise that a decoder's mean image leaves out.

The best mean image is smooth, but sky noise is part of the truth. What the mean leaves, :math:`r = x - \bar x`, is
described by the isotropic undecimated wavelet transform (starlet; Starck & Murtagh 2006, *Astronomical Image and Data
Analysis*, Section 2.3)

.. math:: c_0 = r, \quad c_j = h_j * c_{j-1}, \quad w_j = c_{j-1} - c_j,

whose coefficients are modeled as normal, :math:`w_j(x) \sim \mathcal N(0, e^{2 g_j} \sigma_j^2(x))`: the decoder
predicts the local :math:`\sigma_j`, and :math:`g_j` is the whole image's level, which depends linearly on the sky of
the mean image and on the maps and for the rest is normal scatter between images (what a latent does not carry is drawn,
not averaged). A draw is

.. math:: n(x) = \sum_k a_k(x) \bigl(L_k\, (\phi_k \sqrt P * \epsilon_k)(x)\bigr), \quad
          \sum_k M_{jk} a_k^2 = e^{2 g_j} \sigma_j^2, \quad M_{jk} = \langle |W_j|^2 |\phi_k|^2 P \rangle,

with white :math:`\epsilon_k`, the power spectrum P of the residuals of real images, filters :math:`\phi_k` of the same
octaves whose powers sum to one, the wavelets' responses :math:`W_j`, and the Cholesky factor :math:`L_k` of the
correlation between bands. The amplitudes are scaled to a mean square of one over images, so that a draw has the
spectrum P on average; within an image and between images its octaves rise and fall as those of real residuals do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.nn.precision import full_precision
from galdiff.randomness import normal

__all__ = ["SCALES", "Grain", "starlet"]

SCALES = 3
"""Octaves of the noise model."""
_BINS = 48  # radial bins of the spectrum, from zero to the corner of the Fourier grid
_LEAST = 0.05  # of the power that an octave would have alone
_ROUNDS = 3
_ROWS_A_REGRESSOR = 8  # with fewer images the levels are given their mean alone
_IMAGES = 64  # measured at a time: what memory is given once is used again
_PARTS = 8  # an image's noise level is the median over so many parts squared


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
    planes = []
    for j in range(scales):
        step = 2**j
        # Reflection needs at least 2 * step + 1 pixels; a smaller image repeats its edge.
        mode = "reflect" if min(x.shape[-2:]) > 2 * step else "replicate"
        smooth = functional.pad(x, (2 * step, 2 * step, 2 * step, 2 * step), mode=mode)
        smooth = _spline(_spline(smooth, 3, step), 2, step)
        planes.append(x - smooth)
        x = smooth
    return torch.stack(planes, dim=1)


def _spline(x: Tensor, dim: int, step: int) -> Tensor:
    """Convolve with the B3 spline along a dimension, its taps a step apart; shorter by four steps.

    Sums of shifted images: a convolution of one channel takes three times as long on a CPU.
    """
    size = x.shape[dim] - 4 * step
    a, b, c, d, e = (x.narrow(dim, k * step, size) for k in range(5))
    return (a + e) / 16 + (b + d) / 4 + c * (6 / 16)


@lru_cache
def _responses(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Power responses on an image's Fourier grid, float64 ``(scale, height, width // 2 + 1)``.

    Of the starlet, |W_j|^2, and of the octave filters that a draw is made with, |phi_j|^2, which are those made
    sharper, with the coarse remainder given to the last, and sum to one at every frequency.
    """
    y = 2 * math.pi * torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    x = 2 * math.pi * torch.fft.rfftfreq(width, dtype=torch.float64)[None]

    def spline(omega: Tensor) -> Tensor:
        return (6 + 8 * omega.cos() + 2 * (2 * omega).cos()) / 16

    smooth = [torch.ones(height, width // 2 + 1, dtype=torch.float64)]
    for j in range(SCALES):
        smooth.append(smooth[-1] * spline(2**j * y) * spline(2**j * x))
    starlets = torch.stack([(a - b).square() for a, b in pairwise(smooth)])
    octaves = torch.cat([starlets[:-1], smooth[-2].square()[None]]).square()
    return starlets, octaves / octaves.sum(dim=0)


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
    effect: Tensor
    level: Tensor
    scatter: Tensor
    spectrum: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.register_buffer("correlation", torch.eye(bands).repeat(SCALES, 1, 1))
        self.register_buffer("level", torch.ones(SCALES, bands))
        self.register_buffer("spectrum", torch.ones(bands, _BINS))
        self.register_buffer("effect", torch.zeros(1 + bands + SCALES * bands, SCALES * bands))
        self.register_buffer("scatter", torch.zeros(SCALES * bands, SCALES * bands))

    def log_sigma(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Spread the decoder's maps ``(n, scale * band, h, w)`` over the pixels: ``(n, scale, band, y, x)``."""
        maps = functional.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
        return maps.unflatten(1, (SCALES, self.bands)).clamp(-9.0, 3.0)

    def loss(self, residual: Tensor, maps: Tensor, valid: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of a residual ``(n, band, y, x)``, mean over scales and (valid) pixels."""
        log_sigma = self.log_sigma(maps, (residual.shape[-2], residual.shape[-1]))
        w = starlet(residual.float() if valid is None else torch.where(valid, residual.float(), 0.0))
        nll = log_sigma + 0.5 * (w * torch.exp(-log_sigma)).square()
        return nll.mean() if valid is None else nll.mean(dim=1)[valid].sum() / valid.sum().clamp_min(1)

    def levels(self, residual: Tensor, log_sigma: Tensor) -> Tensor:
        """Log noise level of every image relative to its maps, ``(n, scale * band)``: a median over its parts."""
        power = (starlet(residual.float()) * torch.exp(-log_sigma)).square().flatten(1, 2)
        parts = functional.adaptive_avg_pool2d(power, (_PARTS, _PARTS)).flatten(2)
        return 0.5 * torch.log(parts.median(dim=2).values + 1e-12)

    @torch.no_grad()
    def calibrate(self, mean: Tensor, residual: Tensor, maps: Tensor, *, by_content: bool = True) -> None:
        """Measure what a draw needs on reconstructions of real images, in closed form.

        Parameters
        ----------
        mean, residual : Tensor
            Decoded means and what they leave, ``(n, band, y, x)``, some hundreds of images.
        maps : Tensor
            The decoder's maps of the same images.
        by_content : bool
            Let an image's level depend on what the decoder says of it. The dependence holds for the decoder that it was
            measured with; one that is still being trained gives levels their mean and scatter alone.
        """
        size = (residual.shape[-2], residual.shape[-1])
        with full_precision(mean.device):  # no Fourier transform on CUDA takes bfloat16
            log_sigma = [self.log_sigma(part, size) for part in maps.split(_IMAGES)]
            batches = list(zip(mean.split(_IMAGES), residual.split(_IMAGES), log_sigma, strict=True))
            self._measure_spectrum(batches)
            self._fit_levels(batches, by_content=by_content)

    def _fit_levels(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]], *, by_content: bool) -> None:
        """Fit the levels' dependence on what the decoder says, and their scatter about it, until draws have both.

        A few rounds do: it is octaves leaking into each other that a single one would leave.
        """
        log_sigma = [sigma for *_, sigma in batches]
        level = torch.cat([self.levels(part, sigma) for _, part, sigma in batches]).double()
        known = torch.cat([self._summary(part, sigma) for part, _, sigma in batches])
        regressors = known.double()
        if not by_content or len(known) < _ROWS_A_REGRESSOR * known.shape[1]:
            regressors[:, 1:] = 0.0
        solve = torch.linalg.pinv(regressors)
        index, channels, size = torch.arange(len(level)), SCALES * self.bands, batches[0][1].shape[-2:]
        white, between = (normal(0, "calibration", index, (channels, *shape), level.device) for shape in (size, ()))
        effect, scatter = torch.zeros_like(self.effect.double()), torch.zeros_like(self.scatter.double())
        for _ in range(_ROUNDS):
            self._normalize(known, log_sigma)
            gains = self._gain(known, between).split(_IMAGES)
            draws = (self._draw(*part) for part in zip(log_sigma, gains, white.split(_IMAGES), strict=True))
            found = torch.cat([self.levels(*part) for part in zip(draws, log_sigma, strict=True)]).double()
            effect += solve @ (level - found)
            values, vectors = torch.linalg.eigh(
                scatter
                + torch.cov((level - regressors @ (solve @ level)).T)
                - torch.cov((found - regressors @ (solve @ found)).T)
            )
            values = values.clamp_min(0)
            scatter = vectors * values @ vectors.T
            self.effect.copy_(effect)
            self.scatter.copy_(vectors * values.sqrt())
        self._normalize(known, log_sigma)

    def _measure_spectrum(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Measure the residuals' spectrum and their correlation between bands by octave."""
        images, size = sum(len(part) for part, _, _ in batches), batches[0][1].shape[-2:]
        covariance, power = self.correlation.new_zeros((), dtype=torch.float64), self.spectrum.new_zeros(())
        for _, residual, log_sigma in batches:
            z = (starlet(residual.float()) * torch.exp(-log_sigma)).permute(1, 2, 0, 3, 4).flatten(2).double()
            covariance = covariance + z @ z.transpose(1, 2) / (images * size.numel())
            # No window: it would weigh the object in the middle over the sky, whose grain is larger in a square-root
            # stretch, and a residual has no gradient that jumps at the edges.
            power = power + torch.fft.rfft2(residual).abs().square().sum(0) / (images * size.numel())
        std = covariance.diagonal(dim1=1, dim2=2).sqrt().clamp_min(1e-6)
        self.correlation.copy_(covariance / std[:, :, None] / std[:, None, :])
        lower, share = (b.to(power.device) for b in _bins(*size))
        weights = torch.cat([1 - share.flatten(), share.flatten()])
        where = torch.cat([lower.flatten(), lower.flatten() + 1])
        count = power.new_zeros(_BINS).index_add_(0, where, weights)
        total = power.new_zeros(self.bands, _BINS).index_add_(1, where, power.flatten(1).repeat(1, 2) * weights)
        self.spectrum.copy_(_fill(total / count.clamp_min(1e-9), count > 0.5))

    def _summary(self, mean: Tensor, log_sigma: Tensor) -> Tensor:
        """Return what the level of an image may depend on: a constant, the sky by band, the middle of the maps."""
        sky, maps = mean.float().flatten(2).median(dim=2).values, log_sigma.flatten(3).median(dim=3).values.flatten(1)
        return torch.cat([torch.ones_like(sky[:, :1]), sky, maps], dim=1)

    def _amplitudes(self, log_level: Tensor) -> Tensor:
        """Return the octaves' amplitudes that give the coefficients these levels, ``(n, scale, band, y, x)``.

        The octaves overlap: a draw of powers a has coefficients of variance M a, M_jk = <|W_j|^2 |phi_k|^2 P>.
        """
        size = (log_level.shape[-2], log_level.shape[-1])
        starlets, octaves = (r.to(log_level.device) for r in _responses(*size))
        # Frequencies of a real transform count twice but for the first and the Nyquist column.
        double = torch.full((size[1] // 2 + 1,), 2.0, dtype=torch.float64, device=log_level.device)
        double[0], double[-1] = 1.0, 1.0 + size[1] % 2
        power = self._power(size).double() * double / (size[0] * size[1])
        mixing = torch.einsum("jyx,kyx,byx->bjk", starlets, octaves, power)
        variance = torch.exp(2 * log_level)
        powers = torch.einsum("bkj,njbyx->nkbyx", torch.linalg.inv(mixing).to(variance), variance)
        alone = variance / mixing.diagonal(dim1=1, dim2=2).T[:, :, None, None].to(variance)
        return torch.maximum(powers, _LEAST * alone).sqrt()

    def _power(self, size: tuple[int, int]) -> Tensor:
        """Return the spectrum on an image's Fourier grid, ``(band, y, x // 2 + 1)``."""
        lower, share = (b.to(self.spectrum.device) for b in _bins(*size))
        return torch.lerp(self.spectrum[:, lower], self.spectrum[:, lower + 1], share)

    def _gain(self, known: Tensor, scatter: Tensor) -> Tensor:
        """Return the log level of every image relative to its maps, from its summary and unit normal numbers."""
        return known @ self.effect + scatter @ self.scatter.T

    def _octaves(self, log_sigma: Tensor, gain: Tensor) -> Tensor:
        """Return the amplitudes ``(n, scale, band, y, x)`` of images with gains ``(n, scale * band)``."""
        return self._amplitudes(log_sigma + gain.unflatten(1, (SCALES, self.bands))[..., None, None])

    def _normalize(self, known: Tensor, log_sigma: Sequence[Tensor]) -> None:
        gains = (known @ self.effect + self.scatter.square().sum(1)).split(_IMAGES)
        squares = [self._octaves(*part).square().mean(dim=(3, 4)) for part in zip(log_sigma, gains, strict=True)]
        self.level.copy_(torch.cat(squares).double().mean(dim=0).sqrt().clamp_min(1e-6))

    def _draw(self, log_sigma: Tensor, gain: Tensor, white: Tensor) -> Tensor:
        white = white.unflatten(1, (SCALES, self.bands))
        jitter = 1e-4 * torch.eye(self.bands, device=white.device)
        white = torch.einsum("sab,nsbyx->nsayx", torch.linalg.cholesky(self.correlation + jitter), white)
        size = (white.shape[-2], white.shape[-1])
        transfer = (_responses(*size)[1].to(white.device)[:, None] * self._power(size)).sqrt().to(white)
        octaves = torch.fft.irfft2(torch.fft.rfft2(white) * transfer, s=size)
        return (self._octaves(log_sigma, gain) / self.level[:, :, None, None] * octaves).sum(dim=1)

    def forward(self, mean: Tensor, maps: Tensor, white: Tensor, scatter: Tensor) -> Tensor:
        """Draw noise.

        Parameters
        ----------
        mean : Tensor
            Decoded means ``(n, band, y, x)``.
        maps : Tensor
            The decoder's maps, log standard deviations, ``(n, scale * band, h, w)``.
        white, scatter : Tensor
            Unit normal numbers ``(n, scale * band, y, x)`` and ``(n, scale * band)``.

        Returns
        -------
        Tensor
            ``(n, band, y, x)``.
        """
        with full_precision(mean.device):  # as in `calibrate`
            log_sigma = self.log_sigma(maps, (white.shape[-2], white.shape[-1]))
            return self._draw(log_sigma, self._gain(self._summary(mean, log_sigma), scatter), white)


def _fill(spectrum: Tensor, measured: Tensor) -> Tensor:
    """Give bins without a measurement the value of the nearest one that has it."""
    bins = torch.arange(spectrum.shape[1], device=spectrum.device)
    known = bins[measured]
    nearest = known[(bins[:, None] - known[None]).abs().argmin(dim=1)]
    return spectrum[:, nearest]

r"""Radially averaged power spectra, of an image and between its bands.

Convention: for pixels of side :math:`\Delta` and N x N of them,

.. math:: P_{ab}(k) = \mathrm{FFT}(x_a)\, \mathrm{FFT}(x_b)^* \frac{\Delta^2}{N^2 \langle w^2 \rangle}, \qquad
          k = 2 \pi\, \mathrm{fftfreq}(N, \Delta),

with w the window, so that without one :math:`\sum_k P / (N \Delta)^2 = \langle x^2 \rangle` (Parseval). It is
powerbox's and, but for the window, that of Pylians; TurbuStat's raw power is :math:`N^2 / \Delta^2` times it. Coherence
is :math:`r_{ab} = \operatorname{Re} P_{ab} / \sqrt{P_{aa} P_{bb}}`. Every mode and its conjugate count as two of a
ring's :math:`N_k`. The sample variance of a Gaussian field whose power hardly changes over the width of a mode is

.. math:: \frac{2 P^2}{N_k^2} \sum_{k, k'} |C(k - k')|^2, \qquad C(q) = \mathrm{FFT}(w^2)(q) / \mathrm{FFT}(w^2)(0)

over the modes of a ring (Feldman, Kaiser & Peacock 1994, ApJ 426, 23): :math:`2 P^2 / N_k` without a window, and
:math:`\langle w^4 \rangle / \langle w^2 \rangle^2` times that in a ring much wider than a mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_images, as_scale, as_square_images, labels_of

__all__ = ["WINDOWS", "high_frequency_power", "power_spectrum"]

WINDOWS = ("hann", "tukey")
"""Tapers against the jump at the edges of an image that is not periodic."""
_TUKEY = 0.5  # share of the side over which a Tukey window tapers
_PER_DECADE = 8
_BATCH = 32


def power_spectrum(
    images: Any,
    pixel_scale: float | None = None,
    *,
    window: str | None = None,
    bins: str | Sequence[float] | np.ndarray = "linear",
    cross: bool = False,
    covariance: bool = False,
    noise: Any = None,
) -> xr.Dataset:
    """Measure every image's spectrum in rings of spatial frequency; its mean is taken off first.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square. Of a DataArray the attributes ``units`` and ``pixel_scale`` and the
        coordinate ``band`` are kept.
    pixel_scale : float, optional
        Side of a pixel [arcsec]; 1 (then k is in rad / pixel) where neither it nor an attribute is given.
    window : {None, "hann", "tukey"}
        Taper; power is divided by the window's mean square. Tukey's is flat over the inner half of the side.
    bins : {"linear", "log"} or sequence of float
        Rings 2 pi / (N scale) wide from half that frequency; eight a decade; or borders of k [rad / unit of the scale],
        of which each ring has its lower one. Never k = 0, and nothing beyond the ring of the Nyquist frequency; rings
        of the first two kinds have modes in them.
    cross : bool
        Also between the bands.
    covariance : bool
        Also over the samples.
    noise : array_like, optional
        Blank sky ``(m, band, y, x)`` of the same size, measured in the same way; its mean spectrum is taken off the
        power.

    Returns
    -------
    xarray.Dataset
        ``power`` and ``power_error`` (of a Gaussian field: P sqrt(2 / modes), more under a window, which correlates
        them) along ``(sample, band, ring)`` [pixel value^2 x scale^2]; ``modes`` and the coordinate ``k`` (mean over
        the ring's modes [rad / scale]) along ``ring``. With ``cross``: ``cross_power`` (real part) and ``coherence``
        (NaN without power) along ``(sample, pair, ring)``. With ``covariance``: ``covariance`` along
        ``(band, ring, ring_)``, NaN for one sample. With ``noise``: ``noise_power`` along ``(band, ring)``. Rings
        without modes are NaN. Everything float64. Attributes record the convention, window and binning.

    Raises
    ------
    DataError
        For images that are not square or not finite, fewer than two pixels a side, and unknown windows or bins.
    """
    labels = labels_of(images)
    known = pixel_scale if pixel_scale is not None else labels.pixel_scale
    scale = 1.0 if known is None else as_scale(known)
    x = as_square_images(images)
    n = x.shape[-1]
    if n < 2:
        raise DataError("images of one pixel have no spectrum")
    if window is not None and window not in WINDOWS:
        raise DataError(f"unknown window '{window}'", remedy=f"Known: {', '.join(WINDOWS)}")
    fundamental = 2 * math.pi / (n * scale)
    borders = _borders(bins, n, fundamental)
    rings, modes, radius = _rings(n, borders)
    pairs = list(combinations(range(x.shape[1]), 2)) if cross else []
    taper = _taper(window, n).to(x.device)
    parts = [_measure(part.double(), taper, rings.to(x.device), pairs) for part in x.split(_BATCH)]
    power, crossed = (torch.cat(p).cpu().numpy() * scale**2 for p in zip(*parts, strict=True))
    names = x.shape[1] if labels.bands is None else labels.bands
    per, unit = ("pixel", "pixel^2") if known is None else ("arcsec", "arcsec^2")
    units = f"({labels.units})^2 {unit}" if labels.units else unit
    dims = ("sample", "band", "ring")
    data: dict[str, Any] = {}
    if noise is not None:
        blank = as_square_images(noise)
        if blank.shape[1:] != x.shape[1:]:
            raise DataError(f"the noise has stamps of shape {tuple(blank.shape[1:])}, the images {tuple(x.shape[1:])}")
        sky = power_spectrum(blank, scale, window=window, bins=borders * fundamental)["power"].to_numpy()
        data["noise_power"] = (dims[1:], sky.mean(axis=0), {"units": units})
    signal = power if noise is None else power - data["noise_power"][1]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = power * np.sqrt(2 / _independent(n, tuple(borders.tolist()), window))
        if cross:
            first, second = ([p[i] for p in pairs] for i in (0, 1))
            coherence = crossed / np.sqrt(signal[:, first] * signal[:, second])
    data["power"] = (dims, signal, {"units": units})
    data["power_error"] = (dims, error, {"units": units})
    data["modes"] = ("ring", modes)
    coords: dict[str, Any] = {"k": ("ring", radius * fundamental, {"units": f"rad / {per}"})}
    if cross:
        data["cross_power"] = (("sample", "pair", "ring"), crossed, {"units": units})
        data["coherence"] = (("sample", "pair", "ring"), coherence, {"units": ""})
        called = range(names) if isinstance(names, int) else names
        coords["pair"] = np.array([f"{called[i]}-{called[j]}" for i, j in pairs], dtype=object)
    if covariance:
        data["covariance"] = (("band", "ring", "ring_"), _covariance(signal), {"units": f"({units})^2"})
    if labels.bands is not None:
        coords["band"] = labels.bands
    attrs = {
        "convention": "P = |FFT(x - mean)|^2 scale^2 / (N^2 <w^2>), k = 2 pi fftfreq(N, scale)",
        "pixel_scale": scale,
        "window": window or "none",
        "bins": bins if isinstance(bins, str) else "given",
        "noise": "not taken off" if noise is None else f"mean of {len(noise)} blank images taken off",
    }
    return xr.Dataset(data, coords, attrs)


def high_frequency_power(images: Any) -> np.ndarray:
    """Return the mean power above half the Nyquist frequency, every direction, float64 ``(sample, band)``."""
    x = as_images(images).double()
    power = torch.fft.fft2(x).abs().square() / (x.shape[-1] * x.shape[-2])
    fy, fx = (torch.fft.fftfreq(s) for s in x.shape[-2:])
    radius = torch.hypot(fy[:, None], fx[None])
    ring = ((radius > 0.25) & (radius <= 0.5)).to(x.device)
    return power[..., ring].mean(dim=-1).cpu().numpy()


def _borders(bins: Any, n: int, fundamental: float) -> np.ndarray:
    """Return the rings' borders in units of the fundamental frequency."""
    last = n // 2 + 0.5
    if isinstance(bins, str):
        if bins not in ("linear", "log"):
            raise DataError(f"unknown bins '{bins}'", remedy="Known: linear, log, or borders of k")
        if bins == "linear":
            return np.arange(n // 2 + 1) + 0.5
        wanted = np.geomspace(0.5, last, math.ceil(_PER_DECADE * math.log10(2 * last)) + 1)
        kept, count = [0.5], 0
        for border in wanted[1:]:
            found = int(_rings(n, np.array([0.5, border]))[1].sum())
            if found > count:
                kept, count = [*kept, float(border)], found
        kept[-1] = last
        return np.array(kept)
    borders = np.asarray(bins, dtype=float) / fundamental
    if borders.ndim != 1 or len(borders) < 2 or not (np.diff(borders) > 0).all() or borders[0] < 0:
        raise DataError("borders of k do not ascend from 0 or above")
    return borders


def _rings(n: int, borders: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
    return _cached_rings(n, tuple(borders.tolist()))


@lru_cache
def _cached_rings(n: int, borders: tuple[float, ...]) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Weights of the half plane's modes in every ring's mean, its number of modes, and their mean radius."""
    fy, fx = np.fft.fftfreq(n, 1 / n), np.fft.rfftfreq(n, 1 / n)
    radius = np.hypot(fy[:, None], fx).ravel()
    # Of the half plane every column but the first, and the last of an even side, stands for its conjugate too.
    twice = np.broadcast_to(np.where((fx > 0) & (2 * fx < n), 2, 1), (n, len(fx))).ravel()
    ring = np.searchsorted(borders, radius, side="right") - 1
    inside = (ring >= 0) & (ring < len(borders) - 1) & (radius > 0) & (radius < n // 2 + 0.5)
    count = np.bincount(ring[inside], twice[inside], minlength=len(borders) - 1)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(ring[inside], (twice * radius)[inside], minlength=len(borders) - 1) / count
    weights = np.zeros((len(radius), len(borders) - 1))
    weights[inside, ring[inside]] = twice[inside] / count[ring[inside]]
    weights[:, count == 0] = np.nan
    return torch.from_numpy(weights), count.astype(np.int64), mean


@lru_cache
def _independent(n: int, borders: tuple[float, ...], window: str | None) -> np.ndarray:
    """Return how many modes of every ring count as independent ones: a window correlates neighbors."""
    if window is None:
        return _cached_rings(n, borders)[1]
    f = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    radius = torch.hypot(f[:, None], f)
    square = torch.fft.fft2(_taper(window, n).square())
    coupling = torch.fft.fft2((square / square[0, 0]).abs().square()).real / n**2
    found = []
    for low, high in pairwise(borders):
        ring = ((radius >= low) & (radius < high) & (radius > 0) & (radius < n // 2 + 0.5)).double()
        # The sum over pairs of modes is a product in the other space.
        pairs = (torch.fft.fft2(ring).abs().square() * coupling).sum()
        found.append(float(ring.sum().square() / pairs) if ring.any() else 0.0)
    return np.array(found)


def _taper(window: str | None, n: int) -> Tensor:
    """Return the window with a mean square of 1, float64 ``(n, n)``."""
    side = torch.ones(n, dtype=torch.float64)
    if window == "hann":
        side = torch.hann_window(n, dtype=torch.float64)
    elif window == "tukey":
        ramp = torch.arange(n, dtype=torch.float64) / n
        edge = torch.minimum(ramp, 1 - ramp) / (_TUKEY / 2)
        side = torch.where(edge < 1, 0.5 - 0.5 * torch.cos(math.pi * edge), 1.0)
    return torch.outer(side, side) / side.square().mean()


def _measure(x: Tensor, taper: Tensor, rings: Tensor, pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Return auto and cross power over the squared side of a pixel."""
    n = x.shape[-1]
    f = torch.fft.rfft2((x - x.mean(dim=(2, 3), keepdim=True)) * (taper / n)).flatten(2)
    auto = (f.real.square() + f.imag.square()) @ rings
    if not pairs:
        return auto, auto[:, :0]
    a, b = f[:, [i for i, _ in pairs]], f[:, [j for _, j in pairs]]
    return auto, (a.real * b.real + a.imag * b.imag) @ rings


def _covariance(power: np.ndarray) -> np.ndarray:
    """Unbiased, over the samples, ``(band, ring, ring)``."""
    if len(power) < 2:
        return np.full((*power.shape[1:], power.shape[2]), np.nan)
    deviation = power - power.mean(axis=0)
    return np.einsum("sbi,sbj->bij", deviation, deviation) / (len(power) - 1)

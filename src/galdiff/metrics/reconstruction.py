r"""What a reconstruction keeps: pixels, structure, photometry, morphology and power.

Pixels by the peak signal-to-noise ratio, structure by the SSIM (Wang et al. 2004, IEEE Trans. Image Process. 13, 600;
a normal window of 1.5 pixels cut at 5, as there). Photometry is taken in one aperture for both images, a circle about
the stamp's center of twice the real image's half-light radius (pixels on its edge count by a linear share), each above
the median of its own corners; sizes, Gini and concentration are those of `galdiff.metrics.physical_morphology`,
measured on each image for itself. Differences are binned by the real image's magnitude into bins of equal counts: the
bias is the median, the scatter 1.4826 times the median absolute deviation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_images
from galdiff.metrics.physical import physical_morphology
from galdiff.metrics.spectra import power_spectrum

__all__ = ["MEASURES", "bias_and_scatter", "peak_signal_to_noise", "reconstruction", "structural_similarity"]

MEASURES = {"flux": "mag", "color": "mag", "r50": "fraction", "gini": "", "concentration": ""}
"""What is compared between a real image and its reconstruction, and in which unit."""
_APERTURE = 2.0  # half-light radii
_WINDOW, _SIGMA = 5, 1.5
_BATCH = 256
_PER_BIN = 20


def peak_signal_to_noise(real: Any, decoded: Any, data_range: float | None = None) -> np.ndarray:
    """Return 10 log10(range^2 / mean squared difference) of every image [dB], float64 ``(sample,)``.

    Arguments are as in `reconstruction`.
    """
    x, y = _pair(real, decoded)
    error = (x - y).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(_range(x, data_range) ** 2 / error)).cpu().numpy()


def structural_similarity(real: Any, decoded: Any, data_range: float | None = None) -> np.ndarray:
    """Return the SSIM of every image, the mean over bands, float64 ``(sample,)``; arguments as in `reconstruction`.

    Raises
    ------
    DataError
        For images smaller than the window of 11 pixels.
    """
    x, y = _pair(real, decoded)
    if min(x.shape[-2:]) <= 2 * _WINDOW:
        raise DataError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, smaller than SSIM's window of 11")
    low, high = ((k * _range(x, data_range)) ** 2 for k in (0.01, 0.03))
    rows, columns = (_window(size).to(x) for size in x.shape[-2:])

    def smooth(image: Tensor) -> Tensor:
        return rows @ image @ columns.T

    parts = []
    for a, b in zip(x.split(_BATCH), y.split(_BATCH), strict=True):
        mean_a, mean_b = smooth(a), smooth(b)
        var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
        covariance = smooth(a * b) - mean_a * mean_b
        ssim = (2 * mean_a * mean_b + low) * (2 * covariance + high)
        parts.append((ssim / ((mean_a**2 + mean_b**2 + low) * (var_a + var_b + high))).mean(dim=(1, 2, 3)))
    return torch.cat(parts).cpu().numpy()


def reconstruction(
    real: Any, decoded: Any, *, data_range: float | None = None, zero_point: float = 0.0, bins: int = 6
) -> xr.Dataset:
    """Compare images with their reconstructions.

    Parameters
    ----------
    real, decoded : array_like
        Pixel values ``(sample, band, y, x)``, square; row i of one is the reconstruction of row i of the other.
    data_range : float, optional
        Of the pixel values, for PSNR and SSIM; by default that of all real images.
    zero_point : float
        Magnitude of a pixel value of 1; without one magnitudes are instrumental.
    bins : int
        Bins of magnitude, fewer where there are not 20 images for each.

    Returns
    -------
    xarray.Dataset
        Along ``sample``: ``magnitude`` (of the mean of the bands), ``psnr``, ``ssim``, and ``difference (measure,
        sample)``, reconstruction minus real: ``flux`` and ``color`` (first minus last band; not of one band) [mag],
        ``r50`` (fraction of the real one), ``gini``, ``concentration``; NaN where an image has no object. Along
        ``bin``: ``bin_magnitude``, its median, and ``bias`` and ``scatter (measure, bin)``. Along ``ring``: ``k``
        [rad / pixel] and the mean spectra ``power_real``, ``power_decoded`` and ``power_residual (band, ring)`` under
        a Hann window.

    Raises
    ------
    DataError
        For images that are not square, not finite or not in pairs.
    """
    x, y = _pair(real, decoded)
    shapes = [physical_morphology(images.float()) for images in (x, y)]
    r50 = torch.from_numpy(shapes[0]["r50"].to_numpy()).to(x)
    flux_x, flux_y = _photometry(x, r50), _photometry(y, r50)
    difference = {
        "flux": _magnitude(flux_y.mean(dim=1)) - _magnitude(flux_x.mean(dim=1)),
        "color": _color(flux_y) - _color(flux_x),
        "r50": (shapes[1]["r50"] / shapes[0]["r50"] - 1).to_numpy(),
        **{name: (shapes[1][name] - shapes[0][name]).to_numpy() for name in ("gini", "concentration")},
    }
    names = [name for name in MEASURES if name != "color" or x.shape[1] > 1]
    magnitude = _magnitude(flux_x.mean(dim=1)) + zero_point
    stacked = np.stack([difference[name] for name in names]).astype(np.float64)
    members = _bins(magnitude, bins)
    binned = np.array([bias_and_scatter(stacked[:, i]) for i in members]).reshape(len(members), 2, len(names))
    images = {"real": x, "decoded": y, "residual": y - x}
    spectra = {name: power_spectrum(each, window="hann") for name, each in images.items()}
    data: dict[str, Any] = {
        "magnitude": ("sample", magnitude, {"units": "mag"}),
        "psnr": ("sample", peak_signal_to_noise(x, y, data_range), {"units": "dB"}),
        "ssim": ("sample", structural_similarity(x, y, data_range)),
        "difference": (("measure", "sample"), stacked),
        "bin_magnitude": ("bin", np.array([np.median(magnitude[i]) for i in members]), {"units": "mag"}),
        "bias": (("measure", "bin"), binned[:, 0].T),
        "scatter": (("measure", "bin"), binned[:, 1].T),
        "k": ("ring", spectra["real"]["k"].to_numpy(), {"units": "rad / pixel"}),
        **{
            f"power_{name}": (("band", "ring"), each["power"].to_numpy().mean(axis=0)) for name, each in spectra.items()
        },
    }
    units = np.array([MEASURES[name] for name in names], dtype=object)
    return xr.Dataset(data, {"measure": np.array(names, dtype=object), "unit": ("measure", units)})


def bias_and_scatter(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return median and 1.4826 times the median absolute deviation along the last axis; NaN is left out."""
    empty = ~np.isfinite(values).any(axis=-1, keepdims=True)
    filled = np.where(empty, 0.0, values)
    bias = np.nanmedian(filled, axis=-1)
    scatter = 1.4826 * np.nanmedian(np.abs(filled - bias[..., None]), axis=-1)
    return np.where(empty[..., 0], np.nan, bias), np.where(empty[..., 0], np.nan, scatter)


def _pair(real: Any, decoded: Any) -> tuple[Tensor, Tensor]:
    x, y = as_images(real).double(), as_images(decoded).double()
    if x.shape != y.shape:
        raise DataError(f"{tuple(x.shape)} images do not pair with {tuple(y.shape)} reconstructions")
    return x, y.to(x.device)


def _range(x: Tensor, data_range: float | None) -> float:
    return float(x.max() - x.min()) if data_range is None else data_range


def _window(size: int) -> Tensor:
    """SSIM's window at every place where it fits, ``(size - 10, size)``: in float64 products beat convolutions."""
    offset = torch.arange(size)[None] - torch.arange(_WINDOW, size - _WINDOW)[:, None]
    taps = torch.where(offset.abs() <= _WINDOW, torch.exp(-0.5 * (offset.double() / _SIGMA) ** 2), 0.0)
    return taps / taps.sum(dim=1, keepdim=True)


def _photometry(x: Tensor, r50: Tensor) -> Tensor:
    """Light within the aperture by band, ``(n, band)``."""
    size = x.shape[-1]
    grid = torch.arange(size, device=x.device, dtype=x.dtype) - (size - 1) / 2
    radius = torch.hypot(grid[:, None], grid[None])
    level = x[..., radius > size / 2].median(dim=-1).values
    edge = (_APERTURE * r50).clamp_max(size / 2)[:, None, None]
    share = (edge - radius + 0.5).clamp(0, 1)[:, None]
    return ((x - level[..., None, None]) * share).sum(dim=(2, 3))


def _magnitude(flux: Tensor) -> np.ndarray:
    return (-2.5 * torch.log10(torch.where(flux > 0, flux, torch.nan))).cpu().numpy()


def _color(flux: Tensor) -> np.ndarray:
    return _magnitude(flux[:, 0]) - _magnitude(flux[:, -1])


def _bins(magnitude: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows of bins of equal counts, bright to faint; those without a magnitude are in none."""
    order = np.argsort(magnitude)[: int(np.isfinite(magnitude).sum())]
    return [i for i in np.array_split(order, max(1, min(count, len(order) // _PER_BIN))) if len(i)]

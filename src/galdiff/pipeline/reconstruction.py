"""Figures and curves of what the autoencoder keeps of held-out images: the best that any sample can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from galdiff.metrics import bias_and_scatter, reconstruction
from galdiff.model import DiffusionModel
from galdiff.pipeline.evaluation import Figure
from galdiff.randomness import choose

__all__ = ["reconstruction_scores"]

_LIMIT = 1024
_MINIMUM = 50
_CURVES = ("bin_magnitude", "bias", "scatter", "k", "power_real", "power_decoded", "power_residual")


def reconstruction_scores(
    model: DiffusionModel, real: np.ndarray, *, seed: int, draws: int = 20
) -> tuple[list[Figure], xr.Dataset]:
    """Compare held-out images with their reconstructions.

    Parameters
    ----------
    model : DiffusionModel
        With the autoencoder.
    real : numpy.ndarray
        Pixel values ``(n, band, y, x)``; 1024 are looked at.
    seed : int
        Of the bootstrap.
    draws : int
        Bootstrap draws.

    Returns
    -------
    figures : list of Figure
        ``reconstruction_psnr`` and ``_ssim`` and ``_residual_power`` of the mean image, and bias and scatter of flux,
        color, half-light radius, Gini and concentration of the image with its sky noise, which the real one has too.
    curves : xarray.Dataset
        Bias and scatter by magnitude and the spectra, names beginning with ``reconstruction_``.
    """
    images = real[choose(len(real), _LIMIT)]
    n = len(images)
    pixels = torch.from_numpy(images)
    display = model.format.unit == "display"
    zero_points = set(model.format.zero_point or ())
    zero_point = zero_points.pop() if len(zero_points) == 1 else 0.0
    mean, noisy = (
        reconstruction(
            images, model.reconstruct(pixels, noise=noise), data_range=1.0 if display else None, zero_point=zero_point
        )
        for noise in (False, True)
    )
    rng = np.random.default_rng(seed)
    picks = [rng.integers(0, n, n) for _ in range(draws)]

    def figure(name: str, values: np.ndarray, statistic: Callable[[np.ndarray], float], protocol: str) -> Figure:
        name = f"reconstruction_{name}"
        if n < _MINIMUM:
            return Figure.too_few(name, n, protocol, needed=_MINIMUM)
        error = float(np.std([statistic(values[pick]) for pick in picks]))
        return Figure(name, statistic(values), error, None, n, protocol, freedom=draws - 1)

    where = "data range 1" if display else "data range of the real images"
    psnr = mean["psnr"].to_numpy()
    figures = [
        figure("psnr", psnr, _mean, f"mean image, dB, {where}"),
        figure("ssim", mean["ssim"].to_numpy(), _mean, f"mean image, Wang et al. 2004, {where}"),
    ]
    exact = int(np.isposinf(psnr).sum())
    if exact and figures[0].status != "too few":
        status, which = ("infinite", f"all {n} images") if exact == n else ("ok", f"without {exact} that")
        figures[0] = replace(figures[0], status=status, note=f"{which} come back exactly")
    low = mean["k"].to_numpy() <= np.pi / 2
    left, whole = (mean[f"power_{which}"].to_numpy()[:, low].sum() for which in ("residual", "real"))
    protocol = "mean image, power of the residual over the real one's, rings below half Nyquist"
    with np.errstate(divide="ignore", invalid="ignore"):  # of images without any light
        left_over = float(left / whole)
    figures.append(Figure("reconstruction_residual_power", left_over, None, None, n, protocol))
    for measure, unit in zip(noisy["measure"].to_numpy(), noisy["unit"].to_numpy(), strict=True):
        values = noisy["difference"].sel(measure=measure).to_numpy()
        if not np.isfinite(values).any():
            continue
        against = f"image with sky noise minus real{unit and ', ' + unit}"
        figures.append(figure(f"{measure}_bias", values, _bias, f"median, {against}"))
        figures.append(figure(f"{measure}_scatter", values, _scatter, f"1.4826 median absolute deviations, {against}"))
    renamed = {name: f"reconstruction_{name}" for name in _CURVES}
    curves = noisy[list(_CURVES)].assign(power_residual=mean["power_residual"]).rename(renamed)
    return figures, curves.rename(bin="magnitude_bin", ring="reconstruction_ring")


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _bias(values: np.ndarray) -> float:
    return float(bias_and_scatter(values)[0])


def _scatter(values: np.ndarray) -> float:
    return float(bias_and_scatter(values)[1])

r"""Whether samples are copies of training images: their distances to the training set against those of held-out images.

A model that has learned a distribution is as far from its training images as other draws of it are, the held-out
images. With d the distance to the nearest training image (`nearest_neighbours`),

- the median ratio, median d(generated) / median d(held out), and that of the 1st percentiles, are 1, or less where
  samples are copies or merely smoother than real images: a blurred or noiseless image is closer to everything, so that
  the ratios are read beside the figures of blur and noise;
- the replication rate is the share of samples closer than the threshold below which 0.1 % of held-out images are.

The floor is what one half of the held-out images is against the other, over random halves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics.neighbours import nearest_neighbours

__all__ = ["MEMORISATION_FIGURES", "memorisation"]

MEMORISATION_FIGURES = ("median_ratio", "first_percentile_ratio", "replication_rate")
"""Names of the figures, along ``figure`` of `memorisation`."""
_QUANTILE = 1e-3


def memorisation(
    generated: Any, held_out: Any, training: Any, *, pairs: int = 16, draws: int = 200, seed: int = 0, **search: Any
) -> xr.Dataset:
    """Compare the distances of samples and of held-out images to the training set.

    Parameters
    ----------
    generated, held_out : array_like
        Images ``(sample, band, y, x)`` or features ``(sample, d)``, at least two.
    training : array_like or store
        As of `nearest_neighbours`.
    pairs : int
        Closest samples to name.
    draws : int
        Bootstrap draws over samples and held-out images, and halves of the floor.
    seed : int
        Of the draws and of the halves of the floor.
    **search
        ``rows``, ``turns``, ``shift`` and ``candidates`` of `nearest_neighbours`.

    Returns
    -------
    xarray.Dataset
        ``value``, ``error`` (bootstrap standard deviation), ``floor`` and ``floor_error`` (mean and standard deviation
        over random halves) along ``figure`` (`MEMORISATION_FIGURES`);
        ``threshold``; ``generated_distance`` and ``held_out_distance`` along ``sample`` and ``held_out``; and of the
        closest ``pair``: ``pair_sample``, ``pair_index`` (row of ``training``), ``pair_distance``, and of images
        ``pair_transform`` and ``pair_shift``, as `galdiff.metrics.neighbours.pose` takes them. A ratio to a distance
        of 0 is NaN.

    Raises
    ------
    DataError
        For fewer than two samples or held-out images, and as `nearest_neighbours`.
    """
    if min(len(generated), len(held_out)) < 2:
        raise DataError(f"{len(generated)} samples and {len(held_out)} held-out images cannot be compared")
    near, real = (nearest_neighbours(x, training, **search).isel(neighbor=0) for x in (generated, held_out))
    d, h = near["distance"].to_numpy(), real["distance"].to_numpy()
    rng = np.random.default_rng(seed)
    resampled = [_figures(rng.choice(d, len(d)), rng.choice(h, len(h))) for _ in range(draws)]
    halves = [_figures(*np.array_split(rng.permutation(h), 2)) for _ in range(max(draws, 1))]
    closest = d.argsort(kind="stable")[:pairs]
    data: dict[str, Any] = {
        "value": ("figure", _figures(d, h)),
        "error": ("figure", np.std(resampled, axis=0) if draws else np.full(3, np.nan)),
        "floor": ("figure", np.mean(halves, axis=0)),
        "floor_error": ("figure", np.std(halves, axis=0) if draws else np.full(3, np.nan)),
        "threshold": ((), _threshold(h)),
        "generated_distance": ("sample", d),
        "held_out_distance": ("held_out", h),
        "pair_sample": ("pair", closest),
    }
    for name in near.data_vars:
        values = near[name].isel(sample=closest)
        data[f"pair_{name}"] = (("pair", *values.dims[1:]), values.to_numpy())
    attrs = {
        "protocol": "distance to the nearest training image against that of held-out images; threshold at 0.1 %",
        "samples": len(d),
        "held_out": len(h),
        "note": "" if len(h) >= 1 / _QUANTILE else f"the threshold is the smallest of {len(h)} held-out distances",
    }
    return xr.Dataset(data, {"figure": np.array(MEMORISATION_FIGURES, dtype=object)} | dict(near.coords), attrs)


def _threshold(held_out: np.ndarray) -> float:
    return float(np.quantile(held_out, _QUANTILE, method="inverted_cdf"))


def _figures(d: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.quantile(d, (0.5, 0.01)) / np.quantile(held_out, (0.5, 0.01))
    return np.array([*np.where(np.isfinite(ratios), ratios, np.nan), (d < _threshold(held_out)).mean()])

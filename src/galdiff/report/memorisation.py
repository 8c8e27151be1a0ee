"""The report's look at copying: the closest pairs of generated and training images, and how close real ones come."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from galdiff.report.pictures import picture
from galdiff.report.plots import COLORS, curves, render

__all__ = ["closest_pairs"]


def closest_pairs(data: xr.Dataset, unit: str, prefix: str = "pair") -> dict[str, Any]:
    """Draw the pairs, and the distances of held-out images to their nearest training images with the pairs' on them.

    Parameters
    ----------
    data : xarray.Dataset
        ``pair_generated`` and ``pair_training`` ``(pair, band, y, x)``, ``pair_distance`` ``(pair)`` and
        ``pair_held_out_distance``; the result is empty where there are none.
    unit : str
        Of the pixel values.
    prefix : str
        Of those names: "feature_pair" are the closest in features.
    """
    if f"{prefix}_generated" not in data or not data[f"{prefix}_distance"].size:
        return {}
    order = np.argsort(data[f"{prefix}_distance"].to_numpy(), kind="stable")
    distance = data[f"{prefix}_distance"].to_numpy()[order]
    both = np.stack([data[f"{prefix}_{which}"].to_numpy()[order] for which in ("generated", "training")], axis=1)
    images = render(both.reshape(-1, *both.shape[2:]), unit)
    name = f"{prefix}_held_out_distance"
    others = data[name].to_numpy().ravel() if name in data else np.empty(0)
    held_out = np.sort(others[np.isfinite(others)])
    nearer = np.searchsorted(held_out, distance)
    pictures = []
    for i, d in enumerate(distance):
        caption = f"{d:.3g}" + (f"; {nearer[i]} of {len(held_out)} held out are closer" if len(held_out) else "")
        alt = f"pair {i + 1}: generated and its nearest training image"
        pictures.append({**picture(images[2 * i : 2 * i + 2], 2, alt), "caption": caption})
    return {"pictures": pictures, "plot": _distances(held_out, distance, nearer) if len(held_out) else ""}


def _distances(held_out: np.ndarray, distance: np.ndarray, nearer: np.ndarray) -> str:
    n = len(held_out)
    line = {"x": held_out, "y": np.arange(1, n + 1) / n, "label": "held out", "color": COLORS["real"]}
    points = {"x": distance, "y": nearer / n, "label": "the pairs", "color": COLORS["generated"], "marker": "o"}
    panel = {
        "title": "distance to the nearest training image",
        "xlabel": "distance",
        "ylabel": "share of held-out images closer",
        "lines": [line, {**points, "style": "none"}],
    }
    return curves([panel], size=(4.8, 3.0))

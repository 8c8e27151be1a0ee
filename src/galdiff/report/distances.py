"""The report's look behind Fréchet distances: without the bias of few images, by class, and in windows over numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics.figure import Figure, Verdict
from galdiff.report.plots import COLORS, curves

__all__ = ["distances"]

_CLASS = "class_FD["
_LINES = {"floor": "other real (floor)", "generated": "generated"}


def distances(figures: Sequence[Figure], verdicts: Sequence[Verdict], data: xr.Dataset) -> dict[str, Any]:
    """Return what the section shows; empty where an evaluation has nothing of it.

    Parameters
    ----------
    figures, verdicts : sequence
        Of the evaluation, one of each.
    data : xarray.Dataset
        Its curves: those of `galdiff.pipeline.families_features.extrapolated` and
        `galdiff.pipeline.families_parts.sliding`.

    Returns
    -------
    dict
        ``infinite``: pairs of a distance and its extrapolation; ``classes``: name, figure and verdict of each;
        ``ladder`` and ``windows``: SVG, or "".
    """
    named = {figure.name: figure for figure in figures}
    infinite = [
        (named[whole], f) for f in figures if (whole := f.name.replace("_infinity", "", 1)) != f.name and whole in named
    ]
    judged = zip(figures, verdicts, strict=True)
    classes = [(f.name[len(_CLASS) : -1], f, verdict) for f, verdict in judged if f.name.startswith(_CLASS)]
    found = {"infinite": infinite, "classes": classes, "ladder": _ladder(data), "windows": _windows(data)}
    return found if any(found.values()) else {}


def _ladder(data: xr.Dataset) -> str:
    """Draw the distances of parts of the images, and the lines through them to infinitely many."""
    panels = []
    for row, name in enumerate(data["ladder_name"].to_numpy().tolist() if "ladder_name" in data else ()):
        lines: list[dict[str, Any]] = []
        for which, label in _LINES.items():
            of = data.isel(ladder=row, compared=int(which == "floor"))
            there = np.isfinite(of["ladder_distances"].to_numpy())
            size, distance = (of[key].to_numpy()[there] for key in ("ladder_sizes", "ladder_distances"))
            k = np.arange(len(size) + 1)
            fit, error = float(of["ladder_value"]) + float(of["ladder_slope"]) * k, float(of["ladder_error"])
            known = {"x": k / size[0], "color": COLORS[which]}
            lines.append({**known, "y": fit, "low": fit - error, "high": fit + error, "label": label})
            lines.append({**known, "x": k[1:] / size[0], "y": distance, "label": "_", "style": "none", "marker": "o"})
        axes = {"title": name, "xlabel": "1 / images of a part", "ylabel": "Fréchet distance"}
        panels.append(axes | {"lines": lines})
    return curves(panels) if panels else ""


def _windows(data: xr.Dataset) -> str:
    """Draw the distances in windows over numbers, beside those of real images."""
    panels = []
    for row, title in enumerate(data["sliding_title"].to_numpy().tolist() if "sliding_title" in data else ()):
        of, lines = data.isel(slide=row), []
        for which, key, spread in (("floor", "floor", "floor_error"), ("generated", "distance", "error")):
            x, y, error = (of[f"sliding_{name}"].to_numpy() for name in ("center", key, spread))
            known = {"label": _LINES[which], "color": COLORS[which], "marker": "o"}
            lines.append({"x": x, "y": y, "low": y - error, "high": y + error, **known})
        panels.append({"title": title, "xlabel": title, "ylabel": "Fréchet distance", "lines": lines})
    return curves(panels) if panels else ""

"""The report's panels of what was asked for against what is found in samples: votes and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from galdiff.report.plots import COLORS, curves

__all__ = ["asked_curves"]


def asked_curves(data: xr.Dataset, kind: str) -> str:
    """Draw a panel a question or number, with the diagonal and what the same judge finds in real images, as SVG.

    Parameters
    ----------
    data : xarray.Dataset
        ``<kind>_asked``, ``<kind>_found`` and, of real images, ``<kind>_found_real`` ``(panel, bin)``, NaN where a bin
        is empty, and ``<kind>_title`` ``(panel)``. The text is empty where there are none.
    kind : str
        "votes" or "numbers".
    """
    if f"{kind}_asked" not in data:
        return ""
    styles = {f"{kind}_found_real": ("real", "real"), f"{kind}_found": ("generated", "generated")}
    panels: list[dict[str, Any]] = []
    for row, title in enumerate(data[f"{kind}_title"].to_numpy().tolist()):
        asked, lines = data[f"{kind}_asked"].to_numpy()[row], []
        for name, (label, color) in styles.items():
            found = data[name].to_numpy()[row] if name in data else np.full_like(asked, np.nan)
            known = np.isfinite(asked) & np.isfinite(found)
            if known.any():
                line = {"x": asked[known], "y": found[known], "label": label, "color": COLORS[color], "marker": "o"}
                lines.append(line)
        if lines:
            ends = [0.0, 1.0] if kind == "votes" else [np.nanmin(asked), np.nanmax(asked)]
            diagonal = {"x": ends, "y": ends, "label": "as asked", "color": COLORS["floor"], "style": "--"}
            axes = {"title": title, "xlabel": "asked", "ylabel": "found", "legend": not panels}
            panels.append(axes | {"lines": [diagonal, *lines]})
    return curves(panels, size=(2.9, 2.6), columns=4) if panels else ""

"""The report's calibration of votes: fractions that were asked for against those that are found in samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from galdiff.report.plots import COLORS, curves

__all__ = ["vote_curves"]


def vote_curves(data: xr.Dataset) -> str:
    """Draw a panel a question, with the diagonal and what the same judge finds in real images, as SVG.

    Parameters
    ----------
    data : xarray.Dataset
        ``votes_question`` ``(question)``; ``votes_asked``, ``votes_found`` and, of real images, ``votes_found_real``
        ``(question, bin)``, NaN where a bin is empty. The text is empty where there are none.
    """
    if "votes_asked" not in data:
        return ""
    styles = {"votes_found_real": ("real", "real"), "votes_found": ("generated", "generated")}
    diagonal = {"x": [0, 1], "y": [0, 1], "label": "as asked", "color": COLORS["floor"], "style": "--"}
    panels: list[dict[str, Any]] = []
    for q, question in enumerate(data["votes_question"].to_numpy().tolist()):
        asked, lines = data["votes_asked"].to_numpy()[q], [diagonal]
        for name, (label, color) in styles.items():
            found = data[name].to_numpy()[q] if name in data else np.full_like(asked, np.nan)
            known = np.isfinite(asked) & np.isfinite(found)
            if known.any():
                line = {"x": asked[known], "y": found[known], "label": label, "color": COLORS[color], "marker": "o"}
                lines.append(line)
        if len(lines) > 1:
            panels.append(
                {"title": question, "xlabel": "asked", "ylabel": "found", "lines": lines, "legend": not panels}
            )
    return curves(panels, size=(2.9, 2.6), columns=4) if panels else ""

"""The report's curves of what the autoencoder keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from galdiff.report.plots import COLORS, curves

__all__ = ["reconstruction_curves"]

_NAMES = {
    "flux": "light",
    "color": "color",
    "r50": "half-light radius",
    "gini": "Gini",
    "concentration": "concentration",
}


def reconstruction_curves(data: xr.Dataset) -> str:
    """Draw bias and scatter by magnitude, and the spectra of real images and of what reconstructions lack, as SVG.

    Parameters
    ----------
    data : xarray.Dataset
        What `galdiff.pipeline.write_scores` wrote; the text is empty where it has no reconstructions.
    """
    if "reconstruction_bias" not in data:
        return ""
    magnitude, panels = data["reconstruction_bin_magnitude"].to_numpy(), []
    for measure in data["measure"].to_numpy().tolist():
        bias, scatter = (data[f"reconstruction_{part}"].sel(measure=measure).to_numpy() for part in ("bias", "scatter"))
        unit = str(data["unit"].sel(measure=measure).item())
        lines: list[dict[str, Any]] = [
            {"x": magnitude, "y": np.zeros_like(magnitude), "label": "real", "color": COLORS["floor"], "style": "--"},
            {"x": magnitude, "y": bias, "low": bias - scatter, "high": bias + scatter}
            | {"label": "reconstructed", "color": COLORS["generated"]},
        ]
        label = f"difference [{unit}]" if unit else "difference"
        panels.append({"title": _NAMES[measure], "xlabel": "magnitude", "ylabel": label, "lines": lines})
    styles = {"real": "real", "decoded": "generated", "residual": "floor"}
    labels = {"real": "real", "decoded": "reconstructed", "residual": "left out by the mean"}
    for band in data["band"].to_numpy().tolist():
        lines = [
            {
                "x": data["reconstruction_k"].to_numpy(),
                "y": data[f"reconstruction_power_{which}"].sel(band=band).to_numpy(),
            }
            | {"label": labels[which], "color": COLORS[style], "style": "--" if which == "residual" else "-"}
            for which, style in styles.items()
        ]
        panel = {"title": f"spectrum, band {band}", "xlabel": "k [rad / pixel]", "ylabel": "power", "lines": lines}
        panels.append({**panel, "xscale": "log", "yscale": "log", "legend": band == data["band"].to_numpy()[0]})
    return curves(panels)

"""Pictures: images for eyes, grids, and the curves of a report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from galdiff.atomic import atomic_write

__all__ = ["curves", "grid", "lupton_rgb", "png", "render", "save_grid"]

COLORS = {"real": "#1f6f8b", "generated": "#d1603d", "floor": "#8a8a8a"}


def render(pixels: np.ndarray, unit: str) -> np.ndarray:
    """Render pixel values ``(n, band, y, x)`` for eyes, uint8 ``(n, y, x, 3)``.

    Display units are shown as they are, bands red, green, blue. Others, whose bands go from blue to red, are shown by
    `lupton_rgb` with one scaling for all images together, so that brightness can be compared: one band is gray, of two
    green is the mean, of more than three the last, middle and first are red, green and blue.
    """
    x = np.asarray(pixels, dtype=np.float64)
    bands = x.shape[1]
    if unit == "display":
        x = x[:, [0, 0, 0] if bands == 1 else [0, 1, min(bands, 3) - 1]]
        return (np.clip(x, 0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    green = x.mean(axis=1) if bands == 2 else x[:, bands // 2]
    return lupton_rgb(np.stack([x[:, -1], green, x[:, 0]], axis=1))


def lupton_rgb(
    images: np.ndarray, *, sky: np.ndarray | None = None, high: np.ndarray | None = None, q: float = 10.0
) -> np.ndarray:
    r"""Render three bands so that color does not depend on brightness (Lupton et al. 2004, PASP 116, 133).

    With the bands freed of their sky and divided by their bright end, and I their mean, red is
    :math:`r f(I) / I` (their Equation 2) with :math:`f(I) = \mathrm{asinh}(q I) / \mathrm{asinh}(q)`; where the
    brightest of the three exceeds one, all three are divided by it, which keeps the color. A picture for eyes: it
    cannot be undone, and nothing is trained on it.

    Parameters
    ----------
    images : numpy.ndarray
        Red, green, blue in any unit, ``(n, 3, y, x)``.
    sky : numpy.ndarray, optional
        Level shown as black, one a band; by default the medians over all images.
    high : numpy.ndarray, optional
        Level shown at full brightness, one a band; by default the 99.8th percentiles, so that mean colors are gray.
    q : float
        Larger shows fainter light.

    Returns
    -------
    numpy.ndarray
        uint8 ``(n, y, x, 3)``.
    """
    x = np.asarray(images, dtype=np.float64)
    low = np.median(x, axis=(0, 2, 3)) if sky is None else np.asarray(sky, dtype=np.float64)
    top = np.quantile(x, 0.998, axis=(0, 2, 3)) if high is None else np.asarray(high, dtype=np.float64)
    x = (x - low[:, None, None]) / np.maximum(top - low, 1e-30)[:, None, None]
    intensity = x.mean(axis=1, keepdims=True).clip(min=0)
    shown = np.arcsinh(q * intensity) / np.arcsinh(q)
    x = x.clip(min=0) * np.divide(shown, intensity, out=np.zeros_like(shown), where=intensity > 0)
    x /= x.max(axis=1, keepdims=True).clip(min=1)
    return (x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def grid(images: np.ndarray, columns: int, *, gap: int = 1) -> np.ndarray:
    """Lay rendered images ``(n, y, x, 3)`` out row by row; cells that are left over are mid-gray."""
    n, h, w, _ = images.shape
    rows = -(-n // columns) if n else 1
    out = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 60, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        out[y : y + h, x : x + w] = image
    return out


def png(image: np.ndarray) -> bytes:
    """Encode uint8 ``(y, x, 3)`` as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_grid(path: Path, images: np.ndarray, *, columns: int) -> None:
    """Write a grid of rendered images as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(png(grid(images, columns)))


def curves(panels: Sequence[Mapping[str, Any]], *, columns: int = 3, size: tuple[float, float] = (3.6, 2.8)) -> str:
    """Draw panels of curves as SVG.

    Parameters
    ----------
    panels : sequence of mapping
        Each with ``title``, ``xlabel``, ``ylabel``, optional ``xscale``, ``yscale`` and ``legend`` (by default the
        first panel has one), and ``lines``: mappings with ``x``, ``y``, ``label``, ``color`` and optional ``low``,
        ``high`` (a band), ``style`` and ``alpha``.
    columns : int
        Panels a row.
    size : pair of float
        Of a panel in inches.
    """
    rows = -(-len(panels) // columns)
    width = min(columns, len(panels))
    figure = Figure(figsize=(size[0] * width, size[1] * rows), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, width, number + 1)
        axes.set_facecolor("none")
        for line in panel["lines"]:
            style = {"color": line["color"], "lw": 1.4, "ls": line.get("style", "-"), "alpha": line.get("alpha", 1.0)}
            axes.plot(line["x"], line["y"], label=line["label"], **style)
            if "low" in line:
                axes.fill_between(line["x"], line["low"], line["high"], color=line["color"], alpha=0.15, lw=0)
        axes.set(title=panel["title"], xlabel=panel["xlabel"], ylabel=panel["ylabel"])
        axes.set_yscale(panel.get("yscale", "linear"))
        if panel.get("xscale") == "log":  # of about one decade, which the default would label at one place or none
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        if panel.get("legend", number == 0):
            axes.legend(frameon=False, fontsize="small")
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "galdiff"}):  # equal curves give equal files
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]

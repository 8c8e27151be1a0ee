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
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from galdiff.atomic import atomic_write
from galdiff.metrics.rendering import Rendering

__all__ = ["curves", "empty_figure", "grid", "jpeg", "png", "render", "save_grid", "svg"]

COLORS = {"real": "#1f6f8b", "generated": "#d1603d", "floor": "#8a8a8a"}


def render(pixels: np.ndarray, unit: str) -> np.ndarray:
    """Render pixel values ``(n, band, y, x)`` for eyes, uint8 ``(n, y, x, 3)``, with one scaling for all of them.

    Which band has which color is the affair of `galdiff.metrics.Rendering`.
    """
    return Rendering.fit(pixels, unit)(pixels)


def grid(images: np.ndarray, columns: int, *, gap: int = 1) -> np.ndarray:
    """Lay rendered images ``(n, y, x, 3)`` out row by row; cells that are left over are dark gray."""
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


def jpeg(image: np.ndarray) -> bytes:
    """Encode uint8 ``(y, x, 3)`` as JPEG: colors as fine as the light, errors of about 2 of 255 in noise."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=95, subsampling=0, optimize=True)
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
        ``high`` (a band), ``style``, ``marker`` and ``alpha``.
    columns : int
        Panels a row.
    size : pair of float
        Of a panel in inches.
    """
    rows = -(-len(panels) // columns)
    width = min(columns, len(panels))
    figure = empty_figure(size[0] * width, size[1] * rows)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, width, number + 1)
        axes.set_facecolor("none")
        for line in panel["lines"]:
            style = {"color": line["color"], "lw": 1.4, "ls": line.get("style", "-"), "alpha": line.get("alpha", 1.0)}
            axes.plot(line["x"], line["y"], label=line["label"], marker=line.get("marker", ""), ms=3.5, **style)
            if "low" in line:
                axes.fill_between(line["x"], line["low"], line["high"], color=line["color"], alpha=0.15, lw=0)
        axes.set(title=panel["title"], xlabel=panel["xlabel"], ylabel=panel["ylabel"])
        positive = any((np.asarray(line["y"]) > 0).any() for line in panel["lines"])
        axes.set_yscale(panel.get("yscale", "linear") if positive else "linear")  # zeros have no logarithm
        if panel.get("xscale") == "log":  # of about one decade, which the default would label at one place or none
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.locator_params(axis="x", nbins=5)
        axes.spines[["top", "right"]].set_visible(False)
        if panel.get("legend", number == 0):
            # A long name may reach into the next panel; it does not take the curves their room.
            axes.legend(frameon=False, fontsize="small").set_in_layout(False)
    return svg(figure)


def empty_figure(width: float, height: float) -> Figure:
    """Make a figure of inches that stands on any paper."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08), facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def svg(figure: Figure) -> str:
    """Write a figure as an ``svg`` element."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "galdiff"}):  # equal curves give equal files
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]

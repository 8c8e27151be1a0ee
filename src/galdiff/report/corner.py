"""The report's corner plot of morphology: every statistic, and every two of them, of real and generated images.

Contours hold 39 and 86 % of the objects, which are one and two sigma of a Gaussian in two dimensions.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.ndimage import gaussian_filter

from galdiff.report.plots import COLORS, empty_figure, svg

__all__ = ["corner_plot"]

_FIRST = ("gini", "m20", "concentration", "asymmetry", "sersic_index", "r50")
_NAMES = {"gini": "Gini", "m20": "M20", "sersic_index": "Sérsic index", "r50": "half-light radius"}
_SHARES = (0.865, 0.393)
_BINS = 40
_FEW = 20


def corner_plot(data: xr.Dataset) -> str:
    """Draw up to six statistics of real and generated images as SVG.

    Parameters
    ----------
    data : xarray.Dataset
        ``morphology`` ``(set, sample, statistic)`` with its coordinates, NaN where there is no measurement; the text is
        empty where there is none.
    """
    if "morphology" not in data:
        return ""
    there = data["statistic"].to_numpy().tolist()
    wanted = [name for name in _FIRST if name in there] or there[: len(_FIRST)]
    sets = [which for which in ("real", "generated") if which in data["set"].to_numpy().tolist()]
    table = {which: data["morphology"].sel(set=which, statistic=wanted).to_numpy() for which in sets}
    measured = [np.isfinite(x).sum(0) >= _FEW for x in table.values()]
    usable = np.flatnonzero(np.all(measured, axis=0)) if sets else np.array([], int)
    if not len(usable):
        return ""
    table = {which: x[:, usable] for which, x in table.items()}
    limits = [_limits(np.concatenate([x[:, k] for x in table.values()])) for k in range(len(usable))]
    n = len(usable)
    figure = empty_figure(1.75 * n, 1.7 * n)
    for row in range(n):
        for column in range(row + 1):
            axes = figure.add_subplot(n, n, row * n + column + 1)
            axes.set_facecolor("none")
            for which, x in table.items():
                if row == column:
                    _histogram(axes, x[:, row], limits[row], which)
                else:
                    _contours(axes, x[:, column], x[:, row], limits[column], limits[row], which)
            _dress(axes, row, column, n, [_NAMES.get(wanted[k], wanted[k]) for k in usable])
            axes.set_xlim(limits[column])
            if row != column:
                axes.set_ylim(limits[row])
    legend = figure.axes[0].legend(loc="upper left", bbox_to_anchor=(1.1, 1.0), frameon=False)
    legend.set_in_layout(False)  # it stands where a corner plot is empty
    return svg(figure)


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (0.5, 99.5))
    margin = 0.08 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _histogram(axes: Axes, x: np.ndarray, limits: tuple[float, float], which: str) -> None:
    x, color = x[np.isfinite(x)], COLORS[which]
    bins = int(np.clip(2 * np.cbrt(len(x)), 8, _BINS))
    axes.hist(x, bins=bins, range=limits, density=True, histtype="step", lw=1.3, color=color, label=which)


def _contours(
    axes: Axes, x: np.ndarray, y: np.ndarray, along: tuple[float, float], up: tuple[float, float], which: str
) -> None:
    known = np.isfinite(x) & np.isfinite(y)
    counts, *edges = np.histogram2d(x[known], y[known], bins=_BINS, range=(along, up))
    widths = [_bandwidth(v[known], limits) for v, limits in ((y, up), (x, along))]
    density = gaussian_filter(counts.T, widths)
    ranked = np.sort(density.ravel())[::-1]
    held = np.cumsum(ranked)
    levels = [float(ranked[np.searchsorted(held, share * held[-1])]) for share in _SHARES]
    if not 0 < levels[0] < levels[1] < ranked[0]:
        return
    centers = [(e[1:] + e[:-1]) / 2 for e in edges]
    if which == "real":
        axes.contourf(*centers, density, [*levels, ranked[0]], colors=COLORS[which], alpha=0.18)
    axes.contour(*centers, density, levels, colors=COLORS[which], linewidths=1.1)


def _bandwidth(values: np.ndarray, limits: tuple[float, float]) -> float:
    """Scott's rule in two dimensions, in bins, of a width that outliers do not set."""
    sigma = np.subtract(*np.percentile(values, (84, 16))) / 2
    return float(sigma * len(values) ** (-1 / 6) * _BINS / (limits[1] - limits[0]))


def _dress(axes: Axes, row: int, column: int, n: int, names: list[str]) -> None:
    """Label what stands at the left and the bottom, and nothing else."""
    axes.tick_params(labelsize="small", labelbottom=row == n - 1, labelleft=column == 0 and row > 0)
    axes.locator_params(nbins=4)
    if row == n - 1:
        axes.set_xlabel(names[column], fontsize="medium")
    if row == column:
        axes.set_yticks([])
        axes.spines[["left"]].set_visible(False)
    elif column == 0:
        axes.set_ylabel(names[row], fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)

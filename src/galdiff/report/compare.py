"""Runs side by side: figures, curves, and pictures of the same asks and seeds, as a table and as a static page.

Figures are compared only where their protocols and counts are the same, since distances of other features or of fewer
images are other numbers; and runs are ranked only where they were judged by the same real images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from galdiff.atomic import refuse_missing_folder, write_text
from galdiff.errors import DataError
from galdiff.metrics.figure import Figure, Verdict, judge
from galdiff.report.files import load_group, load_json
from galdiff.report.page import curve_panels, fill_page
from galdiff.report.pictures import picture
from galdiff.report.plots import COLORS, render
from galdiff.report.verdicts import SIGNS, number, plain_name, read_figures, summary

__all__ = ["Row", "compare", "rows_of"]

_HUES = ("#d1603d", "#6a51a3", "#2b8a3e", "#b8860b", "#c2255c", "#0b7285", "#5c4033", "#4c6ef5")
_SEEDS = 16


@dataclass(frozen=True)
class Row:
    """One figure of several runs.

    Attributes
    ----------
    name : str
        Of the figure.
    figures : tuple of Figure or None
        One a run.
    verdicts : tuple of Verdict or None
        One a run.
    best : frozenset of int
        The runs that are closest to the ideal, all that are so within the error bars; none where that is all of them,
        or nothing is ranked.
    why_not : str
        Why the figures are not compared; "" where they are.
    """

    name: str
    figures: tuple[Figure | None, ...]
    verdicts: tuple[Verdict | None, ...]
    best: frozenset[int]
    why_not: str


def rows_of(pages: Sequence[Sequence[Figure]], *, ranked: bool = True) -> list[Row]:
    """Put the figures of several evaluations side by side.

    Parameters
    ----------
    pages : sequence of sequence of Figure
        Every run's.
    ranked : bool
        Whether the best is to be marked.
    """
    judged = [dict(zip((f.name for f in page), judge(page), strict=True)) for page in pages]
    by_name = [{figure.name: figure for figure in page} for page in pages]
    rows = []
    for name in dict.fromkeys(figure.name for page in pages for figure in page):
        figures = tuple(page.get(name) for page in by_name)
        why_not = _why_not([figure for figure in figures if figure is not None])
        best = _best(figures) if ranked and not why_not else frozenset[int]()
        rows.append(Row(name, figures, tuple(verdicts.get(name) for verdicts in judged), best, why_not))
    return rows


def _why_not(figures: Sequence[Figure]) -> str:
    for key, what in (("protocol", "protocols differ"), ("n", "numbers of images differ")):
        values = dict.fromkeys(str(getattr(figure, key)) for figure in figures if figure.status == "ok")
        if len(values) > 1:
            return f"not compared, {what}: {' / '.join(values)}"
    return ""


def _best(figures: Sequence[Figure | None]) -> frozenset[int]:
    found = {
        k: (f.departure, f.error or 0.0) for k, f in enumerate(figures) if f is not None and f.departure is not None
    }
    if len(found) < 2:
        return frozenset()
    least, error = min(found.values())
    best = frozenset(k for k, (departure, own) in found.items() if departure - least <= hypot(own, error))
    return best if len(best) < len(found) else frozenset()


def compare(runs: Sequence[str | Path], output: str | Path) -> str:
    """Compare runs, or folders of evaluations.

    Parameters
    ----------
    runs : sequence of path-like
        Two or more folders with an ``evaluation.json``; their curves and ``samples.zarr`` are shown too.
    output : path-like
        The HTML file to write: self-contained, for screens light and dark and for paper.

    Returns
    -------
    str
        A plain table for a terminal.

    Raises
    ------
    DataError, StoreError
        For fewer than two runs, or one that has no evaluation or a damaged one.
    ResourceError
        Where the page's folder is not there; before anything is read.
    """
    folders, output = [Path(run).expanduser() for run in runs], Path(output)
    if len(folders) < 2:
        raise DataError("one run has nothing to be compared with", remedy="Name two or more")
    refuse_missing_folder(output)
    pages = [read_figures(folder) for folder in folders]
    records = [load_json(folder / "evaluation.json") for folder in folders]
    units = {str(record.get("unit", "display")) for record in records}
    unit = units.pop() if len(units) == 1 else ""
    same = len({record.get("real") for record in records}) == 1
    warning = "" if same else "The runs were not judged by the same real images: none is marked as the best."
    rows, names = rows_of(pages, ranked=same), _names(folders)
    data = [load_group(folder / "evaluation.zarr") for folder in folders]
    context = {
        "names": names,
        "folders": folders,
        "rows": rows,
        "tallies": [summary(judge(page)) for page in pages],
        "warning": warning,
        "curves": _curves(data, names, unit),
        "asks": _grids(folders, names, unit) + _examples(data, names, unit),
    }
    write_text(output, fill_page("compare.html", unit, context))
    return _table(rows, names, unit, warning)


def _names(folders: Sequence[Path]) -> list[str]:
    """Name runs by as many of the last parts of their paths as tell them apart."""
    paths = [folder.absolute().parts for folder in folders]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def _table(rows: Sequence[Row], names: Sequence[str], unit: str, warning: str) -> str:
    cells = [["figure", *names]]
    for row in rows:
        values = [_cell(row, k) for k in range(len(names))]
        cells.append([plain_name(row.name, unit), *values])
        if row.why_not:
            cells.append([f"  {row.why_not}"])
    widths = [max(len(line[k]) for line in cells if len(line) > 1) for k in range(len(names) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in cells]
    notes = [
        "* best, or as good within the error bars; unmarked rows are even; floors in brackets",
        *([warning] if warning else []),
    ]
    return "\n".join([*lines, *notes])


def _cell(row: Row, k: int) -> str:
    figure, verdict = row.figures[k], row.verdicts[k]
    if figure is None or verdict is None:
        return ""
    if figure.value is None:
        return figure.status
    error = "" if figure.error is None else f" ± {number(figure.error, 2)}"
    floor = "" if figure.floor is None else f" ({number(figure.floor)})"
    return f"{SIGNS[verdict]} {number(figure.value)}{error}{floor}{' *' if k in row.best else ''}"


def _curves(data: Sequence[xr.Dataset], names: Sequence[str], unit: str) -> str:
    """Mean profiles, spectra and residual spectra of all runs, over those of the first one's real images."""
    first = next((curve for curve in data if "profile" in curve), xr.Dataset())

    def lines(name: str, axis: str, band: str) -> list[dict[str, Any]]:
        sets = [(first, "real", "real", COLORS["real"])]
        hues = cycle(_HUES)
        sets += [(curve, "generated", title, hue) for curve, title, hue in zip(data, names, hues, strict=False)]
        drawn = []
        for curve, which, title, hue in sets:
            if name in curve and band in curve["band"].to_numpy():
                line = {"x": curve[axis].to_numpy(), "y": curve[name].sel({"set": which, "band": band}).to_numpy()}
                drawn.append({**line, "label": title, "color": hue})
        return drawn

    return curve_panels(first, unit, lines)


def _grids(folders: Sequence[Path], names: Sequence[str], unit: str) -> list[dict[str, Any]]:
    """Pictures of the asks, seeds and guidance that runs have in common."""
    grids = {name: load_group(folder / "samples.zarr", "grid") for name, folder in zip(names, folders, strict=True)}
    grids = {name: data for name, data in grids.items() if "image" in data}
    sections = []
    for ask in dict.fromkeys(ask for data in grids.values() for ask in data["ask"].to_numpy().tolist()):
        having = {name: data for name, data in grids.items() if ask in data["ask"].to_numpy()}
        weights = [set(data["guidance"].to_numpy()[data["ask"].to_numpy() == ask].tolist()) for data in having.values()]
        common = set.intersection(*weights)
        if len(having) < 2 or not common:
            continue
        weight, chosen = max(common), {}
        for name, data in having.items():
            wanted = (data["ask"].to_numpy() == ask) & (data["guidance"].to_numpy() == weight)
            chosen[name] = data["image"].to_numpy()[wanted & (data["seed"].to_numpy() < _SEEDS)]
        sections.append(
            {"name": f"{ask}, guidance {weight:g}, seeds 0 to {_SEEDS - 1}", "pictures": _row(chosen, unit)}
        )
    return sections


def _examples(data: Sequence[xr.Dataset], names: Sequence[str], unit: str) -> list[dict[str, Any]]:
    """Pictures of evaluations that are not of runs."""
    key = "example_generated"
    shown = {name: d[key].to_numpy()[:_SEEDS] for name, d in zip(names, data, strict=True) if key in d}
    return [{"name": "examples, drawn at random", "pictures": _row(shown, unit)}] if shown else []


def _row(images: Mapping[str, np.ndarray], unit: str) -> list[dict[str, Any]]:
    """Render images of several runs, in one scaling where they are of one shape."""
    shapes = {x.shape[1:] for x in images.values()}
    if len(shapes) == 1:
        together = render(np.concatenate(list(images.values())), unit)
        rendered = np.split(together, np.cumsum([len(x) for x in images.values()])[:-1])
    else:
        rendered = [render(x, unit) for x in images.values()]
    return [{**picture(x, 8, name), "caption": name} for name, x in zip(images, rendered, strict=True)]

"""The report: one static HTML file, drawn from the files of a run directory and from nothing else."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr

from galdiff.atomic import read_json_lines, write_text
from galdiff.metrics.figure import RULE, judge
from galdiff.report.asked import asked_curves
from galdiff.report.corner import corner_plot
from galdiff.report.distances import distances
from galdiff.report.files import load_group, load_json
from galdiff.report.memorisation import closest_pairs
from galdiff.report.pictures import example_grids, grids, picture, reconstructions, sweeps
from galdiff.report.plots import COLORS, curves, render
from galdiff.report.reconstruction import reconstruction_curves
from galdiff.report.verdicts import SIGNS, number, plain_name, read_figures
from galdiff.training.log import read_metrics

__all__ = ["curve_panels", "fill_page", "write_report"]

_LABELS = {"real": "real", "generated": "generated", "floor": "other real (floor)"}
_STAGES = ("cutouts", "autoencoder", "latents", "denoiser", "samples", "evaluation", "report")
_CURVES = (
    ("profile", "profile_radius", "linear", "radius [pixel]"),
    ("spectrum", "spectrum_k", "log", "k [rad / pixel]"),
    ("residual_spectrum", "residual_spectrum_k", "log", "k [rad / pixel]"),
)
_COUNTED = ("images", "images_per_second", "skipped_steps")
_SKIPPED_SHOWN = 10


def write_report(folder: str | Path) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    folder : path-like
        A run directory, or the folder of another evaluation; parts that are not there are left out, those of every
        run with a note.

    Returns
    -------
    Path
        The report: self-contained, for screens light and dark and for paper.
    """
    folder = Path(folder)
    evaluation = load_json(folder / "evaluation.json")
    data = load_group(folder / "evaluation.zarr")
    unit = str(evaluation.get("unit", _unit(folder)))
    drawn = {group: load_group(folder / "samples.zarr", group) for group in ("grid", "real", "sweep")}
    figures = read_figures(folder) if "figures" in evaluation else []
    context = {
        "name": folder.name,
        "figures": figures,
        "verdicts": (verdicts := judge(figures)),
        "judged": list(zip(figures, verdicts, strict=True)),
        "distances": distances(figures, verdicts, data),
        "sources": evaluation.get("sources", {}),
        "versions": evaluation.get("versions", {}),
        "asks": grids(drawn["grid"], drawn["real"], unit) or example_grids(data, unit),
        "sweeps": sweeps(drawn["sweep"], drawn["real"], unit),
        "pairs": closest_pairs(data, unit),
        "feature_pairs": closest_pairs(data, unit, "feature_pair"),
        "votes": asked_curves(data, "votes"),
        "numbers": asked_curves(data, "numbers"),
        "corner": corner_plot(data),
        "reconstructions": reconstructions(data, unit),
        "kept": reconstruction_curves(data),
        "losses": _losses(folder),
        "levels": _levels(data, unit),
        "curves": _curves(data, unit),
        "skipped": _skipped(folder / "cutouts.skipped.jsonl"),
        "compute": _compute(folder, evaluation.get("seconds")),
        "catalog": (folder / "catalog.yaml").read_text() if (folder / "catalog.yaml").is_file() else "",
    }
    write_text(folder / "report.html", fill_page("page.html", unit, context))
    return folder / "report.html"


def fill_page(template: str, unit: str, context: Mapping[str, Any]) -> str:
    """Render a page of this folder in the common style; figures are named as befits the unit."""
    read = importlib.resources.files("galdiff.report").joinpath
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": number, "plain": lambda name: plain_name(name, unit)}
    page = environment.from_string(read(template).read_text())
    return page.render(context, style=read("style.css").read_text(), signs=SIGNS, rule=RULE)


def _unit(folder: Path) -> str:
    return str(load_json(folder / "denoiser" / "spec.json").get("format", {}).get("unit", "display"))


def _losses(folder: Path) -> str:
    panels = []
    for stage, figures in (("autoencoder", ("loss", "mse", "kl", "perplexity")), ("denoiser", ("loss",))):
        lines = read_metrics(folder / "metrics.jsonl", stage)
        for figure in figures:
            points = [(line["images"], line[figure]) for line in lines if figure in line]
            if len(points) < 2:
                continue
            x, y = np.asarray(points).T
            smooth = _smooth(y)
            raw = {"x": x, "y": y, "label": "logged", "color": COLORS["floor"], "alpha": 0.5}
            mean = {"x": x, "y": smooth, "label": "smoothed", "color": COLORS["generated"]}
            panels.append(
                {"title": f"{stage}: {figure}", "xlabel": "images seen", "ylabel": figure, "lines": [raw, mean]}
            )
    return curves(panels) if panels else ""


def _smooth(y: np.ndarray) -> np.ndarray:
    """Average over a tenth of the points around each, fewer at the ends, so that it lags behind nothing."""
    window = np.ones(2 * (len(y) // 20) + 1)
    return np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")


def _levels(data: xr.Dataset, unit: str) -> dict[str, Any]:
    if "noise_loss" not in data:
        return {}
    level, loss = data["noise_level"].to_numpy(), data["noise_loss"].to_numpy()
    line = {"x": level, "y": loss, "label": "held out", "color": COLORS["generated"]}
    panel = {
        "title": "loss by noise level",
        "xlabel": "share of noise in the variance",
        "ylabel": "loss",
        "lines": [line],
    }
    pictures = []
    for i, value in enumerate(level):
        both = np.concatenate([data["prediction_noised"].to_numpy()[i], data["prediction_clean"].to_numpy()[i]])
        images = render(both, unit)
        text = f"noise share {value:g}: what the denoiser is given (above) and what it predicts (below), both decoded"
        pictures.append({**picture(images, len(images) // 2, text), "caption": text})
    return {"plot": curves([panel], columns=1), "pictures": pictures}


def _curves(data: xr.Dataset, unit: str) -> str:
    def lines(name: str, axis: str, band: str) -> list[dict[str, Any]]:
        drawn = []
        for which in ("floor", "real", "generated"):
            at = {"set": which, "band": band}
            line: dict[str, Any] = {"x": data[axis].to_numpy(), "y": data[name].sel(at).to_numpy()}
            line |= {"label": _LABELS[which], "color": COLORS[which]}
            if which == "floor":
                line["style"] = "--"
            else:
                line |= {"low": data[f"{name}_low"].sel(at), "high": data[f"{name}_high"].sel(at)}
            drawn.append(line)
        return drawn

    return curve_panels(data, unit, lines)


def curve_panels(data: xr.Dataset, unit: str, lines: Callable[[str, str, str], Sequence[Mapping[str, Any]]]) -> str:
    """Draw mean profiles, spectra, and spectra of the residuals after axisymmetric profiles, a panel a band.

    Parameters
    ----------
    data : xarray.Dataset
        Says which curves and bands there are.
    unit : str
        Of the pixel values.
    lines : callable
        From the names of curve, axis and band to what is drawn.
    """
    panels = []
    for name, axis, scale, label in _CURVES:
        for band in data["band"].to_numpy().tolist() if name in data else ():
            title = name.replace("_", " ")
            quantity = ("surface brightness", unit) if name == "profile" else ("power", _squared(unit))
            panel = {"title": f"{title}, band {band}", "xlabel": label, "ylabel": _labeled(*quantity)}
            panel |= {"xscale": scale, "yscale": "linear" if name == "profile" else "log"}
            panels.append({**panel, "lines": lines(name, axis, band)})
    return curves(panels) if panels else ""


def _skipped(listed: Path) -> dict[str, Any]:
    """Count what the cutouts leave out, and show the first of it, each with its reason."""
    lines = read_json_lines(listed)
    return {"count": len(lines), "first": lines[:_SKIPPED_SHOWN], "file": listed.name}


def _squared(unit: str) -> str:
    """Name the unit of power, which is that of the pixel values squared, times an area."""
    return unit and f"{unit if unit.isalpha() else f'({unit})'}² pixel²"


def _labeled(quantity: str, unit: str) -> str:
    return f"{quantity} [{unit}]" if unit else quantity


def _compute(folder: Path, seconds: float | None) -> list[dict[str, Any]]:
    """Return what every stage took; an evaluation of other images has no stages, and its own seconds."""
    rows = []
    for path in (folder / "stages" / f"{stage}.json" for stage in _STAGES):
        if not path.is_file():
            continue
        lines = read_metrics(folder / "metrics.jsonl", path.stem)
        last: Sequence[dict[str, Any]] = [line for line in lines if "images_per_second" in line][-1:]
        row = {"stage": path.stem, "seconds": load_json(path).get("seconds")}
        rows.append(row | {key: last[0].get(key) if last else None for key in _COUNTED})
    if not rows and seconds is not None:
        rows.append({"stage": "evaluation", "seconds": seconds, **dict.fromkeys(_COUNTED)})
    return rows

"""The report: one static HTML file, drawn from the files of a run directory and from nothing else."""

from __future__ import annotations

import base64
import importlib.resources
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr

from galdiff.atomic import write_text
from galdiff.metrics.figure import RULE, Figure, judge
from galdiff.report.plots import COLORS, curves, grid, png, render
from galdiff.report.reconstruction import reconstruction_curves
from galdiff.report.verdicts import SIGNS, number, plain_name
from galdiff.training.log import read_metrics

__all__ = ["curve_panels", "fill_page", "load_group", "load_json", "picture", "write_report"]

_LABELS = {"real": "real", "generated": "generated", "floor": "other real (floor)"}
_CURVES = (
    ("profile", "profile_radius", "linear", "radius [pixel]"),
    ("spectrum", "spectrum_k", "log", "k [rad / pixel]"),
)


def write_report(folder: str | Path) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    folder : path-like
        A run directory, or the folder of another evaluation; parts that are not there are left out with a note.

    Returns
    -------
    Path
        The report: self-contained, for screens light and dark and for paper.
    """
    folder = Path(folder)
    evaluation = load_json(folder / "evaluation.json")
    data = load_group(folder / "evaluation.zarr")
    unit = str(evaluation.get("unit", _unit(folder)))
    figures = [Figure.from_dict(record) for record in evaluation.get("figures", [])]
    context = {
        "name": folder.name,
        "figures": figures,
        "verdicts": judge(figures),
        "sources": evaluation.get("sources", {}),
        "versions": evaluation.get("versions", {}),
        "asks": _grids(folder, unit) or _examples(data, unit),
        "reconstructions": _reconstructions(data, unit),
        "kept": reconstruction_curves(data),
        "losses": _losses(folder),
        "levels": _levels(data, unit),
        "curves": _curves(data, unit),
        "compute": _compute(folder),
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


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is no file."""
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def load_group(path: Path, group: str | None = None) -> xr.Dataset:
    """Load a Zarr group; empty where there is none."""
    if not (path / (group or "") / "zarr.json").is_file():
        return xr.Dataset()
    return xr.open_zarr(path, group=group, consolidated=False).load()


def _unit(folder: Path) -> str:
    return str(load_json(folder / "denoiser" / "spec.json").get("format", {}).get("unit", "display"))


def picture(images: np.ndarray, columns: int, alt: str) -> dict[str, Any]:
    """Put rendered images on a sheet, as what an ``img`` element needs."""
    sheet = grid(images, columns)
    return {
        "src": "data:image/png;base64," + base64.b64encode(png(sheet)).decode(),
        "alt": alt,
        "width": sheet.shape[1],
    }


def _grids(folder: Path, unit: str) -> list[dict[str, Any]]:
    drawn, real = load_group(folder / "samples.zarr", "grid"), load_group(folder / "samples.zarr", "real")
    if "image" not in drawn:
        return []
    sections = []
    weights = sorted(set(drawn["guidance"].to_numpy().tolist()), reverse=True)
    for ask in dict.fromkeys(drawn["ask"].to_numpy().tolist()):
        pictures = []
        if "image" in real:
            like = real["image"].to_numpy()[real["ask"].to_numpy() == ask]
            shown = f"{len(like)} real, held out"
            if len(like):
                pictures.append({**picture(render(like, unit), 8, f"real {ask}"), "caption": shown})
        for weight in weights:
            chosen = (drawn["ask"].to_numpy() == ask) & (drawn["guidance"].to_numpy() == weight)
            images = render(drawn["image"].to_numpy()[chosen], unit)
            caption = f"generated, guidance {weight:g}, seeds 0 to {chosen.sum() - 1}"
            pictures.append({**picture(images, 8, f"generated {ask} at guidance {weight:g}"), "caption": caption})
        sections.append({"name": ask, "pictures": pictures})
    return sections


def _examples(data: xr.Dataset, unit: str) -> list[dict[str, Any]]:
    """Real and generated images of an evaluation without a run, in one scaling."""
    if "example_real" not in data:
        return []
    both = [data[f"example_{role}"].to_numpy() for role in ("real", "generated")]
    images = render(np.concatenate(both), unit)
    parts = {"real": images[: len(both[0])], "generated": images[len(both[0]) :]}
    pictures = [{**picture(x, 8, name), "caption": f"{len(x)} {name}, drawn at random"} for name, x in parts.items()]
    return [{"name": "examples", "pictures": pictures}]


def _reconstructions(data: xr.Dataset, unit: str) -> list[dict[str, Any]]:
    names = {
        "reconstruction_input": "held-out images",
        "reconstruction_mean": "reconstructed, mean image",
        "reconstruction_noisy": "reconstructed, with a draw of the sky noise",
    }
    if "reconstruction_input" not in data:
        return []
    stacked = np.concatenate([data[name].to_numpy() for name in names])
    images = render(stacked, unit)
    each = len(images) // len(names)
    return [
        {**picture(images[i * each : (i + 1) * each], each, text), "caption": text}
        for i, text in enumerate(names.values())
    ]


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


def _smooth(y: np.ndarray, share: float = 0.8) -> np.ndarray:
    out = np.array(y, dtype=float)
    for i in range(1, len(out)):
        out[i] = share * out[i - 1] + (1 - share) * out[i]
    return out


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
    """Draw mean profiles and spectra, a panel a band.

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
            quantity = "surface brightness" if name == "profile" else "power"
            panel = {"title": f"{name}, band {band}", "xlabel": label, "ylabel": f"{quantity} [{unit}]"}
            panel |= {"xscale": scale, "yscale": "linear" if name == "profile" else "log"}
            panels.append({**panel, "lines": lines(name, axis, band)})
    return curves(panels) if panels else ""


def _compute(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for path in sorted((folder / "stages").glob("*.json"), key=lambda p: p.stat().st_mtime):
        if path.name.endswith(".begun.json"):
            continue
        lines = read_metrics(folder / "metrics.jsonl", path.stem)
        last: Sequence[dict[str, Any]] = [line for line in lines if "images_per_second" in line][-1:]
        row = {"stage": path.stem, "seconds": load_json(path).get("seconds")}
        for key in ("images", "images_per_second", "skipped_steps"):
            row[key] = last[0].get(key) if last else None
        rows.append(row)
    return rows

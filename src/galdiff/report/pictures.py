"""The report's pictures: grids of what was asked for beside real images, sweeps, examples, reconstructions."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics.rendering import Rendering
from galdiff.report.plots import grid, jpeg, png, render

__all__ = ["example_grids", "grids", "picture", "reconstructions", "sweeps"]

_COLUMNS = 8
_ROWS = 8
_LARGE = 2**17  # pixels of a sheet from which on noise, which no lossless code shortens, would fill the page
_SHOWN = 400  # CSS pixels that a sheet is at least shown at
_ALL = 7_000_000  # pixels of all grids: some 4 MB of JPEG


def picture(images: np.ndarray, columns: int, alt: str) -> dict[str, Any]:
    """Put rendered images on a sheet, as what an ``img`` element needs; a large one is a JPEG of high quality."""
    sheet = grid(images, columns)
    large = sheet.shape[0] * sheet.shape[1] > _LARGE
    kind, code = ("jpeg", jpeg(sheet)) if large else ("png", png(sheet))
    return {
        "src": f"data:image/{kind};base64,{base64.b64encode(code).decode()}",
        "alt": alt,
        "large": sheet.shape[1] > _SHOWN,
    }


def grids(drawn: xr.Dataset, real: xr.Dataset, unit: str) -> list[dict[str, Any]]:
    """Put every ask's grids side by side: the nearest real images, then samples by falling guidance.

    All of them have one scaling, the real images' where there are any, and as many rows as the page has room for.

    Parameters
    ----------
    drawn, real : xarray.Dataset
        The groups ``grid`` and ``real`` of ``samples.zarr``, empty where there are none.
    unit : str
        Of the pixel values.
    """
    if "image" not in drawn:
        return []
    rendering = _rendering(drawn, real, unit)
    weights = sorted(set(drawn["guidance"].to_numpy().tolist()), reverse=True)
    asks = list(dict.fromkeys(drawn["ask"].to_numpy().tolist()))
    height, width = drawn["image"].shape[-2:]
    row = len(asks) * (len(weights) + 1) * _COLUMNS * height * width
    shown = _COLUMNS * max(1, min(_ROWS, _ALL // row))
    sections = []
    for ask in asks:
        pictures = []
        if "image" in real:
            like = real["image"].to_numpy()[real["ask"].to_numpy() == ask][:shown]
            if len(like):
                caption = f"real, held out: the {len(like)} nearest in their conditions, nearest first"
                pictures.append({**picture(rendering(like), _COLUMNS, f"real {ask}"), "caption": caption})
        for weight in weights:
            chosen = (drawn["ask"].to_numpy() == ask) & (drawn["guidance"].to_numpy() == weight)
            images = drawn["image"].to_numpy()[chosen][:shown]
            sheet = picture(rendering(images), _COLUMNS, f"generated {ask} at guidance {weight:g}")
            caption = f"generated, guidance {weight:g}, seeds 0 to {len(images) - 1}"
            pictures.append({**sheet, "caption": caption})
        sections.append({"name": ask, "pictures": pictures})
    return sections


def sweeps(drawn: xr.Dataset, real: xr.Dataset, unit: str) -> list[dict[str, Any]]:
    """Lay sweeps out, a row a seed and a column a step.

    Parameters
    ----------
    drawn, real : xarray.Dataset
        The groups ``sweep`` and ``real`` of ``samples.zarr``, empty where there are none; real images set the scaling.
    unit : str
        Of the pixel values.
    """
    if "image" not in drawn:
        return []
    rendering, sections = _rendering(drawn, real, unit), []
    for name in dict.fromkeys(drawn["sweep"].to_numpy().tolist()):
        one = drawn.isel(sample=np.flatnonzero(drawn["sweep"].to_numpy() == name))
        one = one.isel(sample=np.lexsort((one["step"].to_numpy(), one["seed"].to_numpy())))
        seeds = np.unique(one["seed"].to_numpy())
        steps = one.sizes["sample"] // len(seeds)
        sheet = picture(rendering(one["image"].to_numpy()), steps, f"sweep of {name}")
        caption = f"a row is one seed, {seeds[0]} to {seeds[-1]}; guidance {float(one['guidance'][0]):g}"
        labels = one["value"].to_numpy()[:steps].tolist()
        sections.append({**sheet, "name": name, "labels": labels, "caption": caption})
    return sections


def example_grids(data: xr.Dataset, unit: str) -> list[dict[str, Any]]:
    """Real and generated images of an evaluation without a run, in one scaling."""
    if "example_real" not in data:
        return []
    both = [data[f"example_{role}"].to_numpy() for role in ("real", "generated")]
    images = render(np.concatenate(both), unit)
    parts = {"real": images[: len(both[0])], "generated": images[len(both[0]) :]}
    pictures = [
        {**picture(x, _COLUMNS, name), "caption": f"{len(x)} {name}, drawn at random"} for name, x in parts.items()
    ]
    return [{"name": "examples", "pictures": pictures}]


def reconstructions(data: xr.Dataset, unit: str) -> list[dict[str, Any]]:
    """Held-out images over what the autoencoder makes of them."""
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


def _rendering(drawn: xr.Dataset, real: xr.Dataset, unit: str) -> Rendering:
    """One scaling for what is to be compared."""
    reference = real if "image" in real and real.sizes["sample"] else drawn
    return Rendering.fit(reference["image"].to_numpy(), unit)

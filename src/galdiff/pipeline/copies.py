"""Memorisation of a run: how near its samples are to the training images, and pictures of the closest pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from galdiff.latents import CutoutStore
from galdiff.metrics import Figure, memorisation
from galdiff.metrics.neighbours import pose
from galdiff.pipeline.sets import Evaluation

__all__ = ["copies"]

_PAIRS = 8
_SEARCHED = 2000
"""Samples, and as many held-out images, whose neighbors are looked for: the threshold at 0.1 % needs a thousand."""
_CANDIDATES = 16  # finds a copy as 50 do, and the very nearest of unrelated images nine times in ten
_MINIMUM = 50
_IDEAL = {"median_ratio": 1.0, "first_percentile_ratio": 1.0, "replication_rate": None}
_NOTES = {
    "median_ratio": "below 1 samples are copies or merely smoother than real images",
    "first_percentile_ratio": "below 1 the closest samples are copies or merely smoother than real images",
    "replication_rate": "share of samples closer to a training image than all but 0.1 % of held-out ones",
}


@dataclass(frozen=True)
class _Stretched:
    """Training images as networks see them: faint structure counts as well as bright cores."""

    store: CutoutStore
    stretch: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.store)

    def images(self, rows: np.ndarray) -> np.ndarray:
        return self.stretch(self.store.images(rows).astype(np.float32))


def copies(
    generated: np.ndarray,
    held_out: np.ndarray,
    cutouts: CutoutStore,
    *,
    stretch: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
) -> Evaluation:
    """Measure memorisation (`galdiff.metrics.memorisation`), in stretched pixels and against the whole training split.

    Parameters
    ----------
    generated, held_out : numpy.ndarray
        Pixel values ``(n, band, y, x)``.
    cutouts : CutoutStore
        With the training images, read in blocks.
    stretch : callable
        From pixel values to those that are compared.
    seed : int
        Of the held-out images that are looked at, where there are many, and of the bootstrap.

    Returns
    -------
    Evaluation
        ``memorisation_<figure>``; and of the closest pairs their pictures ``pair_generated`` (turned and shifted to
        match) and ``pair_training``, ``pair_distance``, and those of the held-out images, ``pair_held_out_distance``.
    """
    generated = generated[:_SEARCHED]
    held_out = held_out[np.random.default_rng(seed).permutation(len(held_out))[: len(generated)]]
    protocol = "rms of stretched pixels to the nearest training image in the best of 8 turns and shifts up to 2 pixels"
    rows, n = cutouts.rows("train"), min(len(generated), len(held_out))
    if min(n, len(rows)) < _MINIMUM:
        note = f"{n} images and {len(rows)} training images, {_MINIMUM} needed"
        return Evaluation([_figure(name, (None,) * 4, n, protocol, status="too few", note=note) for name in _IDEAL])
    training = _Stretched(cutouts, stretch)
    found = memorisation(
        stretch(generated), stretch(held_out), training, rows=rows, pairs=_PAIRS, candidates=_CANDIDATES, seed=seed
    )
    figures = []
    for name in _IDEAL:
        numbers = [float(found[key].sel(figure=name)) for key in ("value", "error", "floor", "floor_error")]
        known = tuple(x if np.isfinite(x) else None for x in numbers)
        note = "; ".join(filter(None, (_NOTES[name], found.attrs["note"] if name == "replication_rate" else "")))
        figures.append(_figure(name, known, n, protocol, note=note))
    posed = [
        pose(generated[[sample]], int(turn), tuple(shift.tolist()))[0].numpy()
        for sample, turn, shift in zip(
            found["pair_sample"].to_numpy(),
            found["pair_transform"].to_numpy(),
            found["pair_shift"].to_numpy(),
            strict=True,
        )
    ]
    dims = ("pair", "band", "y", "x")
    curves = {
        "pair_generated": (dims, np.stack(posed).astype(np.float32)),
        "pair_training": (dims, cutouts.images(found["pair_index"].to_numpy()).astype(np.float32)),
        "pair_distance": ("pair", found["pair_distance"].to_numpy()),
        "pair_held_out_distance": ("held_out", np.sort(found["held_out_distance"].to_numpy())),
    }
    return Evaluation(figures, xr.Dataset(curves))


def _figure(name: str, numbers: tuple[float | None, ...], n: int, protocol: str, **more: Any) -> Figure:
    value, error, floor, floor_error = numbers
    return Figure(
        f"memorisation_{name}", value, error, floor, n, protocol, floor_error=floor_error, ideal=_IDEAL[name], **more
    )

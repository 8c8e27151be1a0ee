"""Memorisation of a run: how near its samples are to the training images, and pictures of the closest pairs.

In pixels every training image is compared in every pose; in features, which see two galaxies that are alike without a
pixel in common, every training image or as many as may be encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from galdiff.latents import CutoutStore
from galdiff.metrics import FeatureSpace, Figure, authentic_share, memorisation
from galdiff.metrics.blocks import Blocks
from galdiff.metrics.neighbours import pose
from galdiff.pipeline.sets import Evaluation

__all__ = ["copies", "copies_in_features"]

_PAIRS = 8
_SEARCHED = 2000
"""Samples, and as many held-out images, whose neighbors are looked for: the threshold at 0.1 % needs a thousand."""
_ENCODED = 1000  # of each in features
_CANDIDATES = 16  # finds a copy as 50 do, and the very nearest of unrelated images nine times in ten
_SHIFT = 2
_MINIMUM = 50
_DRAWS = 200
_IDEAL = {"median_ratio": 1.0, "first_percentile_ratio": 1.0, "replication_rate": None}
_NOTES = {
    "median_ratio": "below 1 samples are copies or merely smoother than real images",
    "first_percentile_ratio": "below 1 the closest samples are copies or merely smoother than real images",
    "replication_rate": "share of samples closer to a training image than all but 0.1 % of held-out ones",
}
Stretch = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Stretched:
    """Training images as networks see them: faint structure counts as well as bright cores."""

    training: CutoutStore | np.ndarray
    stretch: Stretch

    def __len__(self) -> int:
        return len(self.training)

    def images(self, rows: np.ndarray) -> np.ndarray:
        return self.stretch(_images(self.training, rows).astype(np.float32))


def copies(
    generated: np.ndarray,
    held_out: np.ndarray,
    training: CutoutStore | np.ndarray,
    *,
    stretch: Stretch,
    seed: int = 0,
) -> Evaluation:
    """Measure memorisation (`galdiff.metrics.memorisation`), in stretched pixels and against all training images.

    Parameters
    ----------
    generated, held_out : numpy.ndarray
        Pixel values ``(n, band, y, x)``.
    training : CutoutStore or numpy.ndarray
        The training images, of a store its training split, read in blocks.
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
    generated, held_out = _as_many(generated, held_out, _SEARCHED, seed)
    shift = min(_SHIFT, (generated.shape[-1] - 1) // 4)  # as far as the search goes on a small stamp
    poses = f"8 turns and shifts up to {shift} pixels"
    protocol = f"rms of stretched pixels to the nearest training image in the best of {poses}"
    rows = np.arange(len(training)) if isinstance(training, np.ndarray) else training.rows("train")
    if few := _too_few(generated, held_out, rows, protocol):
        return few
    search: dict[str, Any] = {"rows": rows, "shift": shift, "candidates": _CANDIDATES}
    search |= {"draws": _DRAWS, "pairs": _PAIRS, "seed": seed}
    found = memorisation(stretch(generated), stretch(held_out), _Stretched(training, stretch), **search)
    posed = [
        pose(generated[[sample]], int(turn), tuple(moved.tolist()))[0].numpy()
        for sample, turn, moved in zip(
            found["pair_sample"].to_numpy(),
            found["pair_transform"].to_numpy(),
            found["pair_shift"].to_numpy(),
            strict=True,
        )
    ]
    pictures = {"generated": np.stack(posed), "training": _images(training, found["pair_index"].to_numpy())}
    return Evaluation(_figures(found, protocol), _pairs(found, pictures, "pair"))


def copies_in_features(
    generated: np.ndarray,
    held_out: np.ndarray,
    training: CutoutStore | np.ndarray,
    space: FeatureSpace,
    *,
    rows: np.ndarray | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure memorisation in a feature space: nearest training image by its features.

    Parameters
    ----------
    generated, held_out : numpy.ndarray
        Pixel values ``(n, band, y, x)``.
    training : CutoutStore or numpy.ndarray
        Training images, whose features are measured in blocks.
    space : FeatureSpace
        Fitted on real images; distances are Euclidean, in its scale.
    rows : numpy.ndarray, optional
        Of the training images; all by default.
    limit : int, optional
        Training images that are measured, drawn at random; all by default.
    seed : int
        Of what is drawn, and of the bootstrap.

    Returns
    -------
    Evaluation
        ``memorisation_<figure>[<space>]``, ``authentic_share[<space>]`` (`galdiff.metrics.authentic_share`), and
        ``feature_pair_…`` as of `copies`, the samples as they are.
    """
    generated, held_out = _as_many(generated, held_out, _ENCODED, seed)
    every = np.arange(len(training)) if rows is None else rows
    chosen = np.sort(np.random.default_rng(seed).permutation(every)[:limit])
    among = f"{len(chosen)} of {len(every)}" if len(chosen) < len(every) else f"all {len(every)}"
    protocol = f"{space.protocol}; distance to the nearest of {among} training images"
    if few := _too_few(generated, held_out, chosen, protocol, f"[{space.name}]"):
        authentic = replace(few.figures[-1], name=f"authentic_share[{space.name}]")
        return Evaluation([*few.figures, authentic])
    known = np.concatenate([space(np.asarray(images, np.float32)) for _, images in Blocks(training, chosen)])
    near, real = space(generated), space(held_out)
    found = memorisation(near, real, known, pairs=_PAIRS, draws=_DRAWS, seed=seed)
    sample, nearest = found["pair_sample"].to_numpy(), chosen[found["pair_index"].to_numpy()]
    pictures = {"generated": generated[sample], "training": _images(training, nearest)}
    figures = [*_figures(found, protocol, f"[{space.name}]"), _authentic(near, real, known, protocol, space.name)]
    return Evaluation(figures, _pairs(found, pictures, "feature_pair"))


def _images(training: CutoutStore | np.ndarray, rows: np.ndarray) -> np.ndarray:
    return training[rows] if isinstance(training, np.ndarray) else training.images(rows)


def _as_many(generated: np.ndarray, held_out: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generated = generated[:most]
    return generated, held_out[np.random.default_rng(seed).permutation(len(held_out))[: len(generated)]]


def _too_few(
    generated: np.ndarray, held_out: np.ndarray, rows: np.ndarray, protocol: str, space: str = ""
) -> Evaluation | None:
    n = min(len(generated), len(held_out))
    if min(n, len(rows)) >= _MINIMUM:
        return None
    note = f"{n} images and {len(rows)} training images, {_MINIMUM} needed"
    few = [Figure.too_few(f"memorisation_{name}{space}", n, protocol, note, ideal=_IDEAL[name]) for name in _IDEAL]
    return Evaluation(few)


def _figures(found: xr.Dataset, protocol: str, space: str = "") -> list[Figure]:
    figures, n = [], min(found.sizes["sample"], found.sizes["held_out"])
    for name, ideal in _IDEAL.items():
        numbers = (float(found[key].sel(figure=name)) for key in ("value", "error", "floor", "floor_error"))
        value, error, floor, floor_error = numbers
        note = "; ".join(filter(None, (_NOTES[name], found.attrs["note"] if name == "replication_rate" else "")))
        known: dict[str, Any] = {"note": note, "floor_error": floor_error, "ideal": ideal, "freedom": _DRAWS - 1}
        figures.append(Figure(f"memorisation_{name}{space}", value, error, floor, n, protocol, **known))
    return figures


def _authentic(near: np.ndarray, real: np.ndarray, known: np.ndarray, protocol: str, space: str) -> Figure:
    """Return the share of samples that are authentic, with held-out images as its floor."""
    shares = [authentic_share(known, features) for features in (near, real)]
    # A bootstrap over samples, in closed form.
    errors = [(p * (1 - p) / len(rows)) ** 0.5 for p, rows in zip(shares, (near, real), strict=True)]
    (value, floor), (error, floor_error), n = shares, errors, min(len(near), len(real))
    protocol = f"{protocol}: share whose neighbor has a training image closer by (AuthPct / 100)"
    note = "below the floor samples are copies, above it farther from the training images than real ones are"
    more: dict[str, Any] = {"note": note, "floor_error": floor_error, "ideal": None, "freedom": n - 1}
    return Figure(f"authentic_share[{space}]", value, error, floor, n, protocol, **more)


def _pairs(found: xr.Dataset, pictures: dict[str, np.ndarray], prefix: str) -> xr.Dataset:
    curves: dict[str, Any] = {
        f"{prefix}_{which}": ((prefix, "band", "y", "x"), images.astype(np.float32))
        for which, images in pictures.items()
    }
    curves[f"{prefix}_distance"] = (prefix, found["pair_distance"].to_numpy())
    curves[f"{prefix}_held_out_distance"] = (f"{prefix}_held_out", np.sort(found["held_out_distance"].to_numpy()))
    return xr.Dataset(curves)

"""Simulated galaxies with one known defect each, for tests of what figures see.

Simulated galaxies (64 pixels, float16 in the cache) are dealt out as the training split of the judges (30 %), real
images, further real images for the floor and "generated" ones (20 % each), and a reserve (10 %). All are reflected
until their arms turn counterclockwise, so that mirrored spirals are a defect. Defects, one at a time, of the generated
images:

- blur: a Gaussian of 1 pixel, of the picture;
- flux: light above the sky x 1.03, in linear units, to which the rendering is inverted (clipped cores stay clipped);
- bars: 10 % of the barred galaxies are unbarred disks instead, their conditions still ask for bars;
- class: edge-on disks are other galaxies instead, their conditions still ask for edge-on disks;
- copies: 1 % are training images, turned or reflected;
- noise: sky noise of the picture x 1.1, by noise of the same grain added in quadrature, in linear units;
- mirrored: every image is reflected;
- color: red light above the sky x 1.03, in linear units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from galdiff.schema.trees import GZ2_TREE, QuestionTree
from galdiff.simulate import simulate_galaxies
from galdiff.simulate.camera import SKY_LEVEL, SOFTENING, lupton, sky_noise
from galdiff.simulate.galaxies import BANDS, NOISE_SMOOTHING
from galdiff.simulate.population import draw_population
from galdiff.simulate.volunteers import answer_probabilities, vote

SEED, SIZE, CHUNK = 2, 64, 1000
SHARES = {"train": 0.3, "real": 0.2, "floor": 0.2, "generated": 0.2, "reserve": 0.1}
TREE = QuestionTree.from_dict(
    {
        "name": "bars and arms",
        "questions": {
            "bar": [["bar_yes", "bar", None], ["bar_no", "no_bar", None]],
            "arms": [["arms_left", "left", None], ["arms_right", "right", None], ["arms_none", "none", None]],
        },
        "mirror": [["left", "right"]],
    }
)
VOLUNTEERS = 10  # to whom the arms of a galaxy are shown; they agree

Images = NDArray[np.float32]


class Galaxies(NamedTuple):
    """Pictures, what they were drawn from, and the votes on them, columns as `TREE`."""

    images: Images
    truth: pd.DataFrame
    votes: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> Galaxies:
        return Galaxies(self.images[rows], self.truth.iloc[rows], self.votes[rows])


def galaxies(n: int, cache: Path) -> dict[str, Galaxies]:
    """Simulate, or read from the cache, and deal out."""
    cache.mkdir(parents=True, exist_ok=True)
    images = np.empty((n, len(BANDS), SIZE, SIZE), np.float16)
    for start in range(0, n, CHUNK):
        path = cache / f"galaxies-{SEED}-{start:06d}.npy"
        if not path.exists():
            np.save(path, simulate_galaxies(CHUNK, seed=SEED, size=SIZE, start=start)[0].astype(np.float16))
        images[start : start + CHUNK] = np.load(path)[: n - start]
    index = np.arange(n)
    truth = draw_population(index, seed=SEED, size=SIZE)
    clockwise = truth["handedness"].to_numpy() < 0
    images[clockwise] = images[clockwise, ..., ::-1]
    bars = vote(answer_probabilities(truth), index, seed=SEED).count[:, [GZ2_TREE.find("bar")[1] + k for k in (0, 1)]]
    arms = np.stack([truth["has_spiral"], np.zeros(n), ~truth["has_spiral"]], axis=1) * VOLUNTEERS
    votes = np.hstack([bars, arms]).astype(np.float64)
    edges = (np.cumsum([0.0, *SHARES.values()]) * n).round().astype(int)
    return {
        name: Galaxies(images[a:b].astype(np.float32), truth.iloc[a:b], votes[a:b])
        for name, a, b in zip(SHARES, edges[:-1], edges[1:], strict=True)
    }


def linear(images: Images) -> Images:
    """Undo the rendering, but for what it clipped."""
    mean = images.mean(axis=1, keepdims=True)
    softened = np.float32(SOFTENING) * mean
    return images * np.sinh(softened) / np.maximum(softened, np.float32(1e-6))


def rendered(light: Images) -> Images:
    """Render every picture."""
    return np.stack([lupton(one) for one in light])


def brightened(images: Images, factor: tuple[float, float, float]) -> Images:
    """Multiply the light above the sky, band by band."""
    sky = SKY_LEVEL[:, None, None]
    return rendered(sky + np.array(factor, np.float32)[:, None, None] * (linear(images) - sky))


def noisier(galaxies: Galaxies, factor: float, rng: np.random.Generator) -> Images:
    """Multiply the sky noise, by noise that is added in quadrature."""
    white = rng.standard_normal((len(galaxies.images), 1 + len(BANDS), SIZE, SIZE), dtype=np.float32)
    added = np.stack([sky_noise(one, NOISE_SMOOTHING) for one in white])
    sigma = galaxies.truth["noise"].to_numpy(np.float32) * np.float32((factor**2 - 1) ** 0.5)
    return rendered(linear(galaxies.images) + sigma[:, None, None, None] * added)


def _blur(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    return gaussian_filter(sets["generated"].images, (0, 0, 1, 1), mode="nearest")


def _flux(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    return brightened(sets["generated"].images, (1.03, 1.03, 1.03))


def _color(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    return brightened(sets["generated"].images, (1.03, 1.0, 1.0))


def _noise(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    return noisier(sets["generated"], 1.1, rng)


def _mirrored(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    return sets["generated"].images[..., ::-1].copy()


def _copies(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    images, train = sets["generated"].images.copy(), sets["train"].images
    # Every hundredth, so that also the figures that see the first images alone see 1 %.
    for row in range(0, len(images), 100):
        copy = np.rot90(train[rng.integers(len(train))], rng.integers(4), axes=(1, 2))
        images[row] = copy[..., ::-1] if rng.integers(2) else copy
    return images


def _bars(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    barred = np.flatnonzero(sets["generated"].truth["has_bar"])
    reserve = sets["reserve"].truth
    return _replaced(sets, barred[::10], (reserve["kind"] == "disk") & ~reserve["has_bar"] & ~reserve["edge_on"], rng)


def _class(sets: Mapping[str, Galaxies], rng: np.random.Generator) -> Images:
    return _replaced(sets, np.flatnonzero(sets["generated"].truth["edge_on"]), ~sets["reserve"].truth["edge_on"], rng)


def _replaced(
    sets: Mapping[str, Galaxies], rows: NDArray[np.int64], others: pd.Series, rng: np.random.Generator
) -> Images:
    images = sets["generated"].images.copy()
    images[rows] = sets["reserve"].images[rng.permutation(np.flatnonzero(others))[: len(rows)]]
    return images


DEFECTS: dict[str, Callable[[Mapping[str, Galaxies], np.random.Generator], Images]] = {
    "none": lambda sets, rng: sets["generated"].images,
    "copies": _copies,
    "bars": _bars,
    "class": _class,
    "mirrored": _mirrored,
    "blur": _blur,
    "noise": _noise,
    "color": _color,
    "flux": _flux,
}

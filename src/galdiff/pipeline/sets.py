"""The three sets of images of an evaluation, and how a statistic of them becomes a figure."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from galdiff.metrics import FeatureSpace, Figure

__all__ = ["SETS", "Evaluation", "Sets", "Statistic", "bootstrap"]

SETS = ("real", "generated", "floor")
"""Names of the sets, as the curves' coordinate has them."""

Statistic = Callable[[np.ndarray, np.ndarray], float]
"""A number that says how one set of rows differs from another."""


def bootstrap(name: str, statistic: Callable[[np.ndarray], float], n: int, *, seed: int = 0, draws: int = 100) -> float:
    """Return the standard deviation of a statistic of n rows, which takes the numbers of those that were drawn."""
    rng = _generator(seed, name)
    return float(np.std([statistic(rng.integers(0, n, n)) for _ in range(draws)]))


def _generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of a figure's own: another figure beside it changes nothing."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Evaluation:
    """Figures, and the curves behind them as an xarray Dataset."""

    figures: list[Figure]
    curves: xr.Dataset = field(default_factory=xr.Dataset)


@dataclass(frozen=True)
class Sets:
    """Generated and real images, and other real images as the floor: as many of each.

    Attributes
    ----------
    images : mapping of str to numpy.ndarray
        Pixel values ``(n, band, y, x)`` of every one of `SETS`.
    spaces : sequence of FeatureSpace
        Fitted on real images; the physical features first.
    bands : tuple of str
        Names of the bands.
    unit : str
        "display", or that of the pixel values.
    seed, draws : int
        Of the bootstrap.
    minimum : int
        Images below which a mean is "too few".
    """

    images: Mapping[str, np.ndarray]
    spaces: Sequence[FeatureSpace]
    bands: tuple[str, ...]
    unit: str = "display"
    seed: int = 0
    draws: int = 20
    minimum: int = 50
    _measured: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    def map(self, measure: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        """Apply a function to the images of every set."""
        return {name: measure(self.images[name]) for name in SETS}

    def measured(self, space: FeatureSpace) -> dict[str, np.ndarray]:
        """Return every set's features in their own units, ``(n, width)``, measured once."""
        if space.name not in self._measured:
            self._measured[space.name] = self.map(space.measure)
        return self._measured[space.name]

    def features(self, space: FeatureSpace) -> dict[str, np.ndarray]:
        """Return every set's features in the scale in which distances are taken."""
        return {name: space.scale(measured) for name, measured in self.measured(space).items()}

    def figure(
        self,
        name: str,
        statistic: Statistic,
        values: Mapping[str, np.ndarray],
        protocol: str,
        *,
        needed: int | None = None,
        ideal: float | None = 0.0,
        note: str = "",
    ) -> Figure:
        """Compare the sets by a statistic; the floor is that of random halves of all real images.

        Parameters
        ----------
        name, protocol, ideal, note
            As in `Figure`.
        statistic : callable
            Of the rows of two sets.
        values : mapping of str to numpy.ndarray
            One row an image, of every set.
        needed : int, optional
            Images below which there are too few; `minimum` by default.
        """
        real, generated, floor = (values[which] for which in SETS)
        n, needed = len(real), self.minimum if needed is None else needed
        if n < needed:
            note = f"{n} images, {needed} needed"
            return Figure(name, None, None, None, n, protocol, status="too few", note=note, ideal=ideal)

        rng = _generator(self.seed, name)
        picks = [(rng.integers(0, n, n), rng.integers(0, n, n)) for _ in range(self.draws)]
        error = float(np.std([statistic(generated[i], real[j]) for i, j in picks]))
        # A bootstrap, with its doubles, would overstate how distances of real images scatter.
        both = np.concatenate([real, floor])
        orders = [rng.permutation(2 * n) for _ in range(self.draws)]
        splits = [statistic(both[order[:n]], both[order[n:]]) for order in orders]
        return Figure(
            name,
            statistic(generated, real),
            error,
            float(np.mean(splits)),
            n,
            protocol,
            note=note,
            floor_error=float(np.std(splits)),
            ideal=ideal,
        )

"""The three sets of images of an evaluation, and how a statistic of them becomes a figure."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from galdiff.metrics import FeatureSpace, Figure
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["COMPARED", "SETS", "Evaluation", "Labeled", "Sets", "Statistic", "Statistics", "bootstrap"]

SETS = ("real", "generated", "floor")
"""Names of the sets, as the curves' coordinate has them."""
COMPARED = SETS[1:]
"""Those that are compared with the real images."""

Statistic = Callable[[np.ndarray, np.ndarray], float]
"""A number that says how one set of rows differs from another."""
Statistics = Callable[[np.ndarray, np.ndarray], Sequence[float]]
"""Several of them, which are measured together."""


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
class Labeled:
    """Pixel values ``(n, band, y, x)`` with what is known of them."""

    images: np.ndarray
    conditions: Conditions

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> Labeled:
        """Return rows, int64."""
        return Labeled(self.images[rows], self.conditions[torch.from_numpy(rows)])

    def where_known(self, name: str) -> Labeled:
        """Return those whose condition of a name is known."""
        known = self.conditions.masks[name]
        return self if known.all() else self[np.flatnonzero(known.numpy())]

    def numbers(self, name: str) -> np.ndarray:
        """Return the values of a scalar condition, float64, NaN where it is unknown."""
        values, known = self.conditions.values[name], self.conditions.masks[name]
        return np.where(known.numpy(), values.numpy(), np.nan)


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
    lenses : bool
        Whether the images are of strong lenses, less the light of the lens.
    ellipsoids : int
        Lenses of each set that are fitted by an isothermal ellipsoid.
    schema : ConditionSchema
        What is known of all of them.
    conditions : mapping of str to Conditions
        Of every one of `SETS`: what real objects are, and what was asked of generated ones.
    """

    images: Mapping[str, np.ndarray]
    spaces: Sequence[FeatureSpace]
    bands: tuple[str, ...]
    unit: str = "display"
    seed: int = 0
    draws: int = 20
    minimum: int = 50
    lenses: bool = False
    ellipsoids: int = 0
    schema: ConditionSchema = field(default_factory=ConditionSchema)
    conditions: Mapping[str, Conditions] = field(default_factory=dict)
    _measured: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def map(self, measure: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        """Apply a function to the images of every set."""
        return {name: measure(self.images[name]) for name in SETS}

    def once(self, name: str, measure: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        """Apply a function that has a name to the images of every set, the first time it is asked for."""
        if name not in self._measured:
            self._measured[name] = self.map(measure)
        return self._measured[name]

    def measured(self, space: FeatureSpace) -> dict[str, np.ndarray]:
        """Return every set's features in their own units, ``(n, width)``, measured once."""
        return self.once(space.name, space.measure)

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
        remedy: str = "",
        ideal: float | None = 0.0,
        note: str = "",
    ) -> Figure:
        """Compare the sets by a statistic; the arguments are those of `figures`."""

        def one(a: np.ndarray, b: np.ndarray) -> list[float]:
            return [statistic(a, b)]

        known: dict[str, Any] = {"needed": needed, "remedy": remedy, "ideal": ideal, "notes": [note]}
        return self.figures([name], one, values, protocol, **known)[0]

    def figures(
        self,
        names: Sequence[str],
        statistics: Statistics,
        values: Mapping[str, np.ndarray],
        protocol: str,
        *,
        needed: int | None = None,
        remedy: str = "",
        ideal: float | None = 0.0,
        notes: Sequence[str] = (),
        doubles: bool = True,
    ) -> list[Figure]:
        """Compare the sets by statistics; the floor is that of random halves of all real images.

        Parameters
        ----------
        names, protocol, ideal, notes
            As in `Figure`, a name and a note each.
        statistics : callable
            Of the rows of two sets, a number a name.
        values : mapping of str to numpy.ndarray
            One row an image, of every set; sets may have lost different numbers of images.
        needed : int, optional
            Images below which there are too few; `minimum` by default.
        remedy : str
            What to do then.
        doubles : bool
            Whether the statistics bear rows that are there twice, as a bootstrap draws them. The error is that over
            random halves without doubles otherwise (a delete-half jackknife; Shao & Wu 1989, Ann. Stat. 17, 1176).
        """
        real, generated, floor = (values[which] for which in SETS)
        n, needed = min(map(len, (real, generated, floor))), self.minimum if needed is None else needed
        notes = notes or [""] * len(names)
        if n < needed:
            return [Figure.too_few(name, n, protocol, remedy, needed=needed, ideal=ideal) for name in names]

        rng = _generator(self.seed, names[0])

        def pick(rows: np.ndarray) -> np.ndarray:
            many = len(rows)
            return rows[rng.integers(0, many, many) if doubles else rng.permutation(many)[: many // 2]]

        with np.errstate(divide="ignore", invalid="ignore"):  # a figure says itself where it is undefined
            drawn = [statistics(pick(generated), pick(real)) for _ in range(self.draws)]
            # A bootstrap, with its doubles, would overstate how distances of real images scatter.
            both = np.concatenate([real, floor])
            orders = [rng.permutation(len(both)) for _ in range(self.draws)]
            splits = [statistics(*np.split(both[order[: 2 * n]], [n])) for order in orders]
            found = statistics(generated, real), np.std(drawn, axis=0), np.mean(splits, axis=0), np.std(splits, axis=0)
        known: dict[str, Any] = {"ideal": ideal, "freedom": self.draws - 1}
        return [
            Figure(name, float(v), float(e), float(f), n, protocol, note=note, floor_error=float(fe), **known)
            for name, v, e, f, fe, note in zip(names, *found, notes, strict=True)
        ]

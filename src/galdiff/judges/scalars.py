"""Numbers by a judge: what images say of a scalar condition, and whether samples say what was asked for.

A judge that was trained on real images alone is read on generated ones, whose numbers are what was asked for. It draws
towards the mean what images do not tell, so that slopes are below one: every figure's floor is the same judge on
held-out real images, whose numbers are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.errors import DataError
from galdiff.judges.body import Body, train
from galdiff.metrics.figure import Figure
from galdiff.metrics.recovery import recovery
from galdiff.nn.dihedral import dihedral
from galdiff.randomness import integers
from galdiff.schema.conditions import Scalar

__all__ = ["ScalarJudge", "recovery_figures"]

MINIMUM = 50
"""Pairs, on either side, below which figures are "too few"."""
_PROTOCOLS = {
    "slope": "slope of the recovered on the asked-for values, Huber's M-estimator; the floor has the same attenuation",
    "bias": "median of recovered minus asked for{unit}",
    "scatter": "1.4826 median absolute deviations about the line{unit}",
}


class ScalarJudge(nn.Module):
    """Convolutional judge of numbers that turns and reflections leave as they are.

    Parameters
    ----------
    bands : int
        Bands of the images.
    fields : sequence of Scalar
        What is read, a column each; means and standard deviations are theirs.
    width : int
        Channels of the first level.

    Raises
    ------
    DataError
        For an angle, which a turn changes, or no field.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, bands: int, fields: Sequence[Scalar], *, width: int = 32) -> None:
        super().__init__()
        if not fields or any(field.angle for field in fields):
            raise DataError("a judge of numbers reads one or more, and no angles")
        self.body = Body(bands, width=width)
        self.head = nn.Linear(self.body.outputs, len(fields))
        self.register_buffer("mean", torch.tensor([float(field.mean) for field in fields]))
        self.register_buffer("std", torch.tensor([float(field.std) for field in fields]))

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised numbers ``(n, fields)`` of stretched images."""
        return self.head(self.body(x))

    def fit(
        self,
        images: Any,
        values: Any,
        *,
        seed: int = 0,
        seen: int = 16_000,
        batch: int = 64,
        learning_rate: float = 2e-3,
    ) -> ScalarJudge:
        """Train by Huber's loss, with turned and reflected images.

        Parameters
        ----------
        images : array_like
            Stretched images ``(n, band, y, x)``, square.
        values : array_like
            Numbers ``(n, fields)`` in the fields' units, NaN where unknown.
        seed, seen, batch, learning_rate
            As in `Classifier.fit`.

        Returns
        -------
        ScalarJudge
            Self, in evaluation mode.

        Raises
        ------
        DataError
            For numbers that do not go with the images or the fields.
        """
        x, y = torch.as_tensor(np.asarray(images)), torch.as_tensor(np.asarray(values)).float()
        if y.shape != (len(x), len(self.mean)):
            raise DataError(f"numbers {tuple(y.shape)} are not {len(self.mean)} for each of {len(x)} images")
        target = (y - self.mean) / self.std

        def loss(rows: Tensor, positions: Tensor) -> Tensor:
            found, wanted = self(dihedral(x[rows].float(), integers(seed, "judge", positions, 8))), target[rows]
            known = wanted.isfinite()
            missed = functional.smooth_l1_loss(found[known], wanted[known], reduction="sum")
            return missed / known.sum().clamp_min(1)

        train(self, len(x), loss, seed=seed, seen=seen, batch=batch, learning_rate=learning_rate)
        return self

    @torch.no_grad()
    def predict(self, images: Any) -> np.ndarray:
        """Return numbers in the fields' units, float64 ``(n, fields)``."""
        parts = torch.as_tensor(np.asarray(images)).split(256)
        return torch.cat([self(part.float()) * self.std + self.mean for part in parts]).double().numpy()


def recovery_figures(
    recovered: Any,
    asked: Any,
    recovered_real: Any,
    truth: Any,
    name: str,
    *,
    reader: str,
    unit: str = "",
    seed: int = 0,
    draws: int = 200,
) -> list[Figure]:
    """Measure how numbers read off samples follow those that were asked for, beside real images and their own.

    Parameters
    ----------
    recovered, asked : array_like
        Of generated images ``(n,)``; NaN where there is none.
    recovered_real, truth : array_like
        The same of held-out real images: the floor.
    name : str
        What was asked for.
    reader : str
        By what it was recovered, for the protocol.
    unit : str
        Of the numbers.
    seed, draws : int
        Of the bootstrap over images (`galdiff.metrics.recovery`).

    Returns
    -------
    list of Figure
        ``recovered_slope[<name>]``, ``recovered_bias[<name>]`` and ``recovered_scatter[<name>]``.
    """
    value, floor = (recovery(*pair, seed=seed, draws=draws) for pair in ((asked, recovered), (truth, recovered_real)))
    n = int(min(value["n"], floor["n"]))
    null = f"{float(value['null_slope']):.2g} ± {float(value['null_slope_error']):.2g}"
    note = f"{float(value['invalid']):.2g} of the samples have none; slope of numbers dealt out at random {null}"
    figures = []
    for statistic, text in _PROTOCOLS.items():
        title = f"recovered_{statistic}[{name}]"
        protocol = f"{reader}; {text.format(unit=f' [{unit}]' if unit else '')}"
        numbers = [float(d[key]) for d in (value, floor) for key in (statistic, f"{statistic}_error")]
        if n < MINIMUM or not np.isfinite(numbers).all():
            few: dict[str, Any] = {"needed": MINIMUM} if n < MINIMUM else {"note": "one value was asked of all"}
            figures.append(Figure.too_few(title, n, protocol, **few))
            continue
        number, error, low, low_error = numbers
        known: dict[str, Any] = {"note": note, "floor_error": low_error, "ideal": None, "freedom": draws - 1}
        figures.append(Figure(title, number, error, low, n, protocol, **known))
    return figures

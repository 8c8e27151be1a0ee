r"""Averages of the weights: the plain exponential one, and power functions whose length is chosen after training.

The power-function average (Karras et al. 2024, arXiv:2312.02696, Section 3) weighs the weights of step :math:`\tau` at
step t by

.. math:: p(\tau) = \frac{\gamma + 1}{t^{\gamma + 1}}\, \tau^\gamma, \qquad 0 < \tau \le t,

so that its memory grows with the training. It is updated with :math:`\beta_t = (1 - 1/t)^{\gamma + 1}` and named by its
*length*, the standard deviation of the profile in units of t,

.. math:: \sigma = \sqrt{\gamma + 1}\, (\gamma + 2)^{-1} (\gamma + 3)^{-1/2} .

Snapshots of a few traces on the way are a basis of profiles: the average of any other length is the linear combination
of snapshots whose profile is nearest to the wanted one by least squares (their Appendix C), and whose weights sum to
one. The inner products have the closed form, for :math:`t_a \le t_b`,

.. math:: \langle p_a, p_b \rangle = \frac{(\gamma_a + 1)(\gamma_b + 1)}{\gamma_a + \gamma_b + 1}\,
          \frac{1}{t_b} \Bigl(\frac{t_a}{t_b}\Bigr)^{\gamma_b} .
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from galdiff.errors import CheckpointError, GaldiffError
from galdiff.weights import load_weights, save_weights

__all__ = [
    "LONGEST",
    "PlainAverage",
    "PowerAverage",
    "Snapshots",
    "build_average",
    "build_snapshots",
    "exponent_of",
    "inner_products",
    "length_of",
    "posthoc",
    "posthoc_weights",
]

LONGEST = 0.28
"""Just below the length of the average over all steps alike, 1 / sqrt(12)."""
_POOR = 0.1
_TYPES = {"float16": torch.float16, "float32": torch.float32}


def length_of(exponent: float) -> float:
    """Return the length of a power function."""
    return math.sqrt(exponent + 1) / (exponent + 2) / math.sqrt(exponent + 3)


def exponent_of(length: float) -> float:
    """Return the exponent of a power function of some length, the inverse of `length_of`.

    Raises
    ------
    GaldiffError
        For a length out of (0, `LONGEST`].
    """
    if not 0 < length <= LONGEST:
        raise GaldiffError(f"an average of length {length:g} is not in (0, {LONGEST}]", remedy="0.05 to 0.15 is usual")
    # (g + 2)^2 (g + 3) = (g + 1) / length^2 has one root above zero.
    a = length**-2
    return float(np.roots([1, 7, 16 - a, 12 - a]).real.max())


class PlainAverage:
    """Exponential average of decay ``min(decay, (1 + k) / (10 + k))`` at step k.

    Parameters
    ----------
    parameters : sequence of Tensor
        What is averaged; the average starts at their values.
    decay : float
        The largest decay.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.decay, self.main = decay, [p.detach().clone() for p in parameters]
        self.traces: dict[str, list[Tensor]] = {"ema": self.main}

    def update(self, parameters: Sequence[Tensor], step: int) -> None:
        """Take in the weights after step ``step``, counted from 0."""
        torch._foreach_lerp_(self.main, list(parameters), 1 - min(self.decay, (1 + step) / (10 + step)))


class PowerAverage:
    """Power-function averages of some lengths.

    Parameters
    ----------
    parameters : sequence of Tensor
        What is averaged.
    lengths : sequence of float
        Of the averages; the first is the `main` one.
    """

    def __init__(self, parameters: Sequence[Tensor], lengths: Sequence[float]) -> None:
        self.exponents = {length: exponent_of(length) for length in lengths}
        self.traces: dict[str, list[Tensor]] = {}
        for length in lengths:
            self.traces[f"ema@{length!r}"] = [p.detach().clone() for p in parameters]
        self.main = next(iter(self.traces.values()))

    def update(self, parameters: Sequence[Tensor], step: int) -> None:
        """Take in the weights after step ``step``, counted from 0."""
        for trace, exponent in zip(self.traces.values(), self.exponents.values(), strict=True):
            beta = (1 - 1 / (step + 1)) ** (exponent + 1)
            torch._foreach_lerp_(trace, list(parameters), 1 - beta)


def build_average(ema: float | Mapping[str, Any], parameters: Sequence[Tensor]) -> PlainAverage | PowerAverage:
    """Build the plain average of a decay, or power functions of ``{"lengths": […]}``."""
    return PowerAverage(parameters, ema["lengths"]) if isinstance(ema, Mapping) else PlainAverage(parameters, ema)


class Snapshots:
    """Files with the averages at steps on the way, ``snapshot-<images>.safetensors``, each whole or absent.

    Parameters
    ----------
    folder : Path
        Where they are.
    count : int
        How many there will be, evenly spaced.
    precision : {"float16", "float32"}
        In which the weights are stored; half precision rounds a weight by 5e-4 of itself at most.
    """

    def __init__(self, folder: Path, *, count: int = 40, precision: str = "float16") -> None:
        self.folder, self.count, self.type = folder, count, _TYPES[precision]

    def save(self, average: PowerAverage, names: Sequence[str], *, images: int, step: int) -> None:
        """Write a snapshot after ``step`` steps and ``images`` images."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{length!r}/{name}": value.to(self.type)
            for length, trace in zip(average.exponents, average.traces.values(), strict=True)
            for name, value in zip(names, trace, strict=True)
        }
        notes = {"step": step, "images": images, "lengths": list(average.exponents)}
        save_weights(self.folder / f"snapshot-{images:012d}.safetensors", tensors, notes)

    def rewind(self, images: int) -> None:
        """Drop the snapshots past a position: what a resumed training will write again."""
        for path in self.folder.glob("snapshot-*.safetensors"):
            if int(path.stem.partition("-")[2]) > images:
                path.unlink()
        for abandoned in self.folder.glob(".snapshot-*.tmp"):
            abandoned.unlink()


def build_snapshots(ema: float | Mapping[str, Any], folder: Path) -> Snapshots | None:
    """Build the snapshots of ``{"lengths": …, "snapshots": 40, "precision": "float16"}``; a plain average has none."""
    if not isinstance(ema, Mapping):
        return None
    names = {"snapshots": "count", "precision": "precision"}
    return Snapshots(folder, **{names[key]: value for key, value in ema.items() if key in names})


def inner_products(steps: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return the inner products of all pairs of profiles, ``(n, n)`` for ``n`` steps and exponents."""
    t, g = np.asarray(steps, float), np.asarray(exponents, float)
    late = t[:, None] >= t
    t_late, g_late = np.where(late, t[:, None], t), np.where(late, g[:, None], g)
    total = g[:, None] + g + 1
    return (g[:, None] + 1) * (g + 1) / total / t_late * (np.minimum(t[:, None], t) / t_late) ** g_late


def posthoc_weights(
    steps: np.ndarray, exponents: np.ndarray, *, step: float, exponent: float
) -> tuple[np.ndarray, float]:
    """Combine profiles into another one.

    Parameters
    ----------
    steps, exponents : numpy.ndarray
        Of the profiles that there are, ``(n,)``.
    step, exponent : float
        Of the profile that is wanted.

    Returns
    -------
    weights : numpy.ndarray
        ``(n,)``, of sum one: the nearest combination in the mean square.
    error : float
        Its distance to the wanted profile, over the norm of that.
    """
    products = inner_products(np.append(steps, step), np.append(exponents, exponent))
    basis, wanted, norm = products[:-1, :-1], products[:-1, -1], products[-1, -1]
    n = len(basis)
    # The sum is held at one by a Lagrange multiplier.
    system = np.block([[basis, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    weights = np.linalg.lstsq(system, np.append(wanted, 1.0), rcond=None)[0][:-1]
    missed = norm - 2 * weights @ wanted + weights @ basis @ weights
    return weights, math.sqrt(max(0.0, missed) / norm)


def posthoc(folder: Path, length: float, *, images: int | None = None) -> dict[str, Tensor]:
    """Reconstruct the average of a length from the snapshots of a training.

    Parameters
    ----------
    folder : Path
        Where the snapshots are.
    length : float
        Of the average.
    images : int, optional
        At the snapshot of this position; by default the last one.

    Returns
    -------
    dict of str to Tensor
        Averaged parameters by name, float32.

    Raises
    ------
    CheckpointError
        Where there are no snapshots (that early), or one is damaged.
    GaldiffError
        For a length that the snapshots cannot give.
    """
    exponent = exponent_of(length)
    paths = sorted(folder.glob("snapshot-*.safetensors"))
    if not paths:
        remedy = "Train with denoiser.ema: {lengths: [0.05, 0.10]}"
        raise CheckpointError("there are no snapshots of weight averages", where=folder, remedy=remedy)
    path = folder
    try:
        headers = {}
        for path in paths:
            with safetensors.safe_open(path, framework="pt") as file:
                headers[path] = json.loads(file.metadata()["galdiff"])
        if images is not None:
            headers = {path: header for path, header in headers.items() if header["images"] <= images}
            if not headers:
                raise CheckpointError(f"there is no snapshot of the first {images} images", where=folder)
        traces = [(path, h["step"], other) for path, h in headers.items() for other in h["lengths"]]
        steps = np.array([step for _, step, _ in traces], float)
        exponents = np.array([exponent_of(other) for *_, other in traces])
        weights, error = posthoc_weights(steps, exponents, step=steps.max(), exponent=exponent)
        if error > _POOR:
            kept = next(iter(headers.values()))["lengths"]
            remedy = f"Ask for a length nearer to {', '.join(f'{x:g}' for x in kept)}"
            raise GaldiffError(f"the snapshots give length {length:g} to {error:.0%} only", where=folder, remedy=remedy)
        out: dict[str, Tensor] = {}
        for path, header in headers.items():
            for key, tensor in load_weights(path)[0].items():
                trace, _, name = key.partition("/")
                value = tensor.float() * weights[traces.index((path, header["step"], float(trace)))]
                out[name] = out[name].add_(value) if name in out else value
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as problem:
        raise CheckpointError(f"a snapshot cannot be read: {problem}", where=path) from problem
    return out

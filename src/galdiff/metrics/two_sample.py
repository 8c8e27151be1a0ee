r"""Do two sets of images differ? Tests of whole curves, with what they cost in false alarms.

A statistic gives every image a vector (a profile, a spectrum, its morphology). For each, three tests of "both sets come
from one population":

- ``max_z``: the largest :math:`|z|` of its bins, for a difference in a few of them;
- ``hotelling``: :math:`\delta^T C^{-1} \delta`, for a small difference along many; the correlations in C are shrunk
  towards none by what they are uncertain (Schäfer & Strimmer 2005, *Stat. Appl. Genet. Mol. Biol.* 4, 32), so that more
  bins than images are allowed;
- ``energy``: the energy distance, for any difference of the distributions; how far two images are apart is the sum of
  the distance of their standardised vectors and of that with C divided out, each over its mean: the former follows what
  the bins have in common, the latter what they do not.

Their p-values are shares of random relabelings of the images that give as much (Phipson & Smyth 2010,
arXiv:1603.05766): exact for any distribution and any correlation of the bins. The same relabelings serve all
statistics. The p-values of the family are corrected together (Holm 1979, or Benjamini & Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from galdiff.errors import DataError
from galdiff.metrics.rows import as_pair

__all__ = ["TESTS", "adjusted_p", "two_sample_test"]

TESTS = ("max_z", "hotelling", "energy")
"""The tests of every statistic."""
Correction = Literal["holm", "benjamini-hochberg"]
_CHUNK = 250  # Relabelings that are in memory at a time.


def two_sample_test(
    a: Any,
    b: Any,
    *,
    alpha: float = 0.01,
    correction: Correction = "holm",
    permutations: int = 9999,
    bootstrap: int = 1000,
    energy_rows: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """Test whether two sets of images have one distribution of some statistics.

    Parameters
    ----------
    a, b : array_like or mapping of str to array_like
        A statistic ``(image, bin)`` of each set, or several by name: the same names and numbers of bins in both, the
        same images in all statistics of a set. Finite.
    alpha : float
        Share of false alarms of the whole family that is accepted.
    correction : {"holm", "benjamini-hochberg"}
        Holm bounds the chance of any false alarm, Benjamini-Hochberg the share of false ones among the alarms.
    permutations : int
        Random relabelings.
    bootstrap : int
        Resamplings of the images, for the covariance of the difference.
    energy_rows : int
        Images of each set that the energy distance looks at: its cost is their square.
    seed : int
        Of relabelings and resamplings.

    Returns
    -------
    xarray.Dataset
        Along ``statistic`` and ``test``: ``observed``, ``p``, ``p_adjusted`` over all of them, ``differs`` (at alpha).
        Along ``bin``, all statistics one after another (``bin_statistic`` names them): ``difference`` of the means a -
        b, its bootstrap ``error``, ``z`` = difference / error (NaN where all images are equal), ``p_bin`` (corrected
        for the bins of its statistic, by the relabelings' largest z), and ``covariance`` (bin, other_bin). Attributes:
        ``passes`` (1 if nothing differs), the counts, and every option.

    Raises
    ------
    DataError
        For names or numbers of images or bins that do not match, fewer than two images, values that are not finite, or
        so few relabelings that nothing could differ at this alpha.
    """
    pairs = _pairs(a, b)
    family, n = len(TESTS) * len(pairs), {side: len(next(iter(pairs.values()))[i]) for i, side in enumerate("ab")}
    if not 0 < alpha < 1 or (permutations + 1) * alpha < family:
        raise DataError(
            f"{permutations} relabelings cannot give a p-value of {alpha:g} over {family} tests",
            remedy=f"Ask for {int(np.ceil(family / alpha)) - 1} permutations or more",
        )
    if bootstrap < 2 or energy_rows < 2:
        raise DataError(f"{bootstrap} resamplings and {energy_rows} rows: two are needed at least")
    standard = {name: _standardised(*pair) for name, pair in pairs.items()}
    observed, p, p_bin = _permuted(standard, n["a"], n["b"], permutations, energy_rows, seed)
    adjusted = adjusted_p(p, correction)
    difference = torch.cat([x.mean(dim=0) - y.mean(dim=0) for x, y in pairs.values()]).cpu().numpy()
    covariance = _bootstrap(pairs, bootstrap, seed)
    error = np.sqrt(covariance.diagonal())
    varies = torch.cat([(z != 0).any(dim=0) for z in standard.values()]).cpu().numpy()
    z = np.divide(difference, error, out=np.full_like(error, np.nan), where=varies & (error > 0))
    differs = adjusted <= alpha
    width = {name: x.shape[1] for name, (x, _) in pairs.items()}
    coords = {
        "statistic": np.array(list(pairs), dtype=object),
        "test": np.array(TESTS, dtype=object),
        "bin_statistic": ("bin", np.array([name for name, d in width.items() for _ in range(d)], dtype=object)),
        "bin_number": ("bin", np.concatenate([np.arange(d) for d in width.values()])),
    }
    both = ("statistic", "test")
    data = {
        "observed": (both, observed),
        "p": (both, p),
        "p_adjusted": (both, adjusted),
        "differs": (both, differs),
        "difference": ("bin", difference),
        "error": ("bin", error),
        "z": ("bin", z),
        "p_bin": ("bin", np.where(varies, p_bin, np.nan)),
        "covariance": (("bin", "other_bin"), covariance),
    }
    options = {"alpha": alpha, "correction": correction, "permutations": permutations, "bootstrap": bootstrap}
    options |= {"energy_rows": energy_rows, "seed": seed, "count_a": n["a"], "count_b": n["b"]}
    return xr.Dataset(data, coords=coords, attrs={"passes": int(not differs.any()), **options})


def adjusted_p(p: np.ndarray, correction: Correction = "holm") -> np.ndarray:
    """Correct p-values of a family for their number, in any shape; compare with alpha what is returned.

    Raises
    ------
    DataError
        For an unknown correction, or values that are not in [0, 1].
    """
    p = np.asarray(p, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("p-values are not in [0, 1]")
    flat, count = p.ravel(), p.size
    order = flat.argsort(kind="stable")
    rank = np.arange(1, count + 1)
    if correction == "holm":
        steps = np.maximum.accumulate(flat[order] * (count - rank + 1))
    elif correction == "benjamini-hochberg":
        steps = np.minimum.accumulate((flat[order] * count / rank)[::-1])[::-1]
    else:
        raise DataError(f"unknown correction '{correction}'", remedy="Known: holm, benjamini-hochberg")
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(steps, 1)
    return corrected.reshape(p.shape)


def _pairs(a: Any, b: Any) -> dict[str, tuple[Tensor, Tensor]]:
    if not isinstance(a, Mapping) and not isinstance(b, Mapping):
        a, b = {"statistic": a}, {"statistic": b}
    if not isinstance(a, Mapping) or not isinstance(b, Mapping) or set(a) != set(b) or not a:
        raise DataError("both sets need the same statistics by name")
    pairs = {str(name): as_pair(a[name], b[name], minimum=2) for name in a}
    if len({(len(x), len(y)) for x, y in pairs.values()}) > 1:
        counts = ", ".join(f"{name}: {len(x)} and {len(y)}" for name, (x, y) in pairs.items())
        raise DataError(f"statistics are of different images ({counts})")
    return pairs


def _standardised(a: Tensor, b: Tensor) -> Tensor:
    """Pooled rows over their mean and standard deviation, zero where they are constant."""
    pooled = torch.cat([a, b])
    centered = pooled - pooled.mean(dim=0)
    std = centered.square().mean(dim=0).sqrt()
    varies = pooled.amax(dim=0) > pooled.amin(dim=0)
    return torch.where(varies, centered / std.clamp_min(torch.finfo(std.dtype).tiny), 0.0)


def _unrelated(z: Tensor) -> Tensor:
    """Rows that the shrunk correlation of standardised rows has been divided out of."""
    n = len(z)
    correlation = z.T @ z / n
    off = ~torch.eye(len(correlation), dtype=torch.bool, device=z.device)
    # Variance of every correlation's estimate: that of the products it is the mean of.
    squares = z.square()
    variance = (squares.T @ squares / n - correlation.square()) / (n - 1)
    total = correlation[off].square().sum()
    share = float((variance[off].sum() / total).clamp(0, 1)) if total > 0 else 1.0
    shrunk = torch.where(off, (1 - share) * correlation, 1.0)
    values, vectors = torch.linalg.eigh(shrunk)
    # Bins that are copies of one another count once, if nothing is shrunk.
    kept = values > len(values) * 1e-12 * values[-1]
    return z @ (vectors[:, kept] / values[kept].sqrt())


def _permuted(
    standard: dict[str, Tensor], n: int, m: int, permutations: int, energy_rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the observed values and the p-values ``(statistic, test)``, and the p-values of bins."""
    device = next(iter(standard.values())).device
    unrelated = {name: _unrelated(z) for name, z in standard.items()}
    # Rows that the energy distance looks at: any, since they are relabeled among themselves.
    rng = np.random.default_rng([seed, 1])
    chosen = [rng.permutation(n)[:energy_rows], n + rng.permutation(m)[:energy_rows]]
    few = torch.from_numpy(np.concatenate(chosen)).to(device)
    distance = {name: _apart(z[few]) + _apart(unrelated[name][few]) for name, z in standard.items()}
    scale = (1 / n + 1 / m) ** 0.5
    found = []
    of_all = _labels(n, m, permutations, [seed, 2])
    of_few = _labels(len(chosen[0]), len(chosen[1]), permutations, [seed, 3])
    for labels, few_labels in zip(of_all, of_few, strict=True):
        weight, few_weight = labels.to(device), few_labels.to(device)
        tests = [
            torch.stack(
                [
                    (weight @ z).abs().amax(dim=1) / scale,
                    (weight @ unrelated[name]).square().sum(dim=1) / scale**2,
                    -((few_weight @ distance[name]) * few_weight).sum(dim=1),
                ],
                dim=1,
            )
            for name, z in standard.items()
        ]
        found.append(torch.stack(tests, dim=1))
    values = torch.cat(found)  # (1 + permutations, statistic, test), the observed first
    p = _share_above(values, values[0])
    bins = [(z[:n].mean(dim=0) - z[n:].mean(dim=0)).abs() / scale for z in standard.values()]
    p_bin = torch.cat([_share_above(values[:, i, :1], one) for i, one in enumerate(bins)])
    return values[0].cpu().numpy(), p.cpu().numpy(), p_bin.cpu().numpy()


def _apart(x: Tensor) -> Tensor:
    """Distances of all pairs of rows, over their mean."""
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return distance / distance.mean().clamp_min(torch.finfo(x.dtype).tiny)


def _share_above(values: Tensor, observed: Tensor) -> Tensor:
    """Share that is as large; those that are equal must not be lost to rounding."""
    return (values >= observed - 1e-12 * (1 + observed.abs())).double().mean(dim=0)


def _labels(n: int, m: int, permutations: int, seed: list[int]) -> Iterator[Tensor]:
    """Yield weights ``(relabeling, n + m)``: 1 / n for images called a, -1 / m for b; the true labels are the first."""
    rng = np.random.default_rng(seed)
    true = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    for start in range(0, 1 + permutations, _CHUNK):
        weights = np.tile(true, (min(_CHUNK, 1 + permutations - start), 1))
        rng.permuted(weights[int(start == 0) :], axis=1, out=weights[int(start == 0) :])
        yield torch.from_numpy(weights)


def _bootstrap(pairs: dict[str, tuple[Tensor, Tensor]], draws: int, seed: int) -> np.ndarray:
    """Covariance of the difference of means ``(bin, bin)`` over resamplings of the images."""
    rng = np.random.default_rng([seed, 4])
    means = []
    for side in (0, 1):
        x = torch.cat([pair[side] for pair in pairs.values()], dim=1)
        # Deviations, so that large values with small differences lose no digits.
        x = x - x.mean(dim=0)
        n = len(x)
        parts = [rng.multinomial(n, np.full(n, 1 / n), size=min(_CHUNK, draws - s)) for s in range(0, draws, _CHUNK)]
        means.append(torch.cat([torch.from_numpy(part / n).to(x.device) @ x for part in parts]))
    return np.atleast_2d(np.cov((means[0] - means[1]).cpu().numpy(), rowvar=False))

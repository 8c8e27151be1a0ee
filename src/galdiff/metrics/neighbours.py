r"""Nearest training images, whatever way up and wherever on the stamp; and nearest rows of any features.

The distance of two images is the root mean square difference of their pixels, of the best pose: one of the eight
symmetries of the square and a shift of some whole pixels, over the training image's inner pixels, so that no pose has
more of them than another,

.. math:: d^2(g, t) = \min_{T, s} \frac{1}{|C|} \sum_{y \in C} \left(t_y - (T g)_{y - s}\right)^2 .

It is searched in two passes over the training images: by a lower bound of it, then exactly among the best.

1. Images are averaged over 4 pixels or so, to 15 a side, and projected on their 128 leading principal components, as
   far as there are; both only make distances smaller. Every second shift, as the black squares of a chessboard, and
   all symmetries of the samples are compared with every training image, a matrix product.
2. The best 50 are compared at full resolution in all poses, another product; the best pose's distance is in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional

from galdiff.errors import DataError
from galdiff.metrics.arrays import as_images, as_square_images
from galdiff.metrics.blocks import Blocks

__all__ = ["nearest_neighbours", "pose"]

_SIDE = 15
_COMPONENTS = 128
_FIT_BLOCKS = 8
_SAMPLES = 32  # searched at once: their poses' products with a block stay in the cache
_BLOCK = 1024
_BANK = 2**28  # bytes of candidates at once


def pose(images: Any, transform: int, shift: tuple[int, int] = (0, 0)) -> Tensor:
    """Turn and shift images as `nearest_neighbours` found them to fit.

    Parameters
    ----------
    images : array_like
        ``(sample, band, y, x)``, square.
    transform : int
        0…7: a reflection along x where it is 4 or more, then ``transform % 4`` quarter turns, counterclockwise in an
        array whose rows run downwards.
    shift : tuple of int
        Rows and columns towards larger ones; what is moved in is 0.
    """
    x = _turned(as_square_images(images), transform)
    dy, dx = shift
    size = x.shape[-1]
    return functional.pad(x, (size, size, size, size))[..., size - dy : 2 * size - dy, size - dx : 2 * size - dx]


def nearest_neighbours(
    generated: Any,
    training: Any,
    *,
    k: int = 1,
    rows: Any = None,
    turns: bool = True,
    shift: int = 2,
    candidates: int = 50,
) -> xr.Dataset:
    """Find the training images, or rows of features, that are closest to each sample.

    Parameters
    ----------
    generated : array_like
        Images ``(sample, band, y, x)``, or features ``(sample, d)``; on the device where to search. Stretched values
        see faint structure, pixel values bright cores.
    training : array_like or store
        The same of the training set, read in blocks: an array, a Zarr or Dask array, or a store with ``images(rows)``.
    k : int
        Neighbors of each sample.
    rows : array_like of int, optional
        The rows of ``training`` to search, such as ``store.rows("train")``; all by default.
    turns : bool
        Under the eight symmetries of the square. Of images alone.
    shift : int
        Whole pixels, in any direction, up to which images may be shifted. Of images alone.
    candidates : int
        How many, at least, are compared exactly.

    Returns
    -------
    xarray.Dataset
        Along ``(sample, neighbor)``, the nearest first: ``index`` (row of ``training``) and ``distance`` (float64, rms
        difference in the images' unit, or Euclidean in features). Of images also ``transform`` and ``shift``, along
        ``axis`` too: ``pose(generated[i], transform, shift)`` is what resembles ``training[index]``.

    Raises
    ------
    DataError
        For shapes that do not fit, values that are not finite, fewer than k training rows, a shift of a quarter of the
        side or more.
    """
    source = Blocks(training, rows, size=_BLOCK)
    if not 1 <= k <= len(source):
        raise DataError(f"{k} neighbors are asked for among {len(source)} training rows")
    if np.ndim(generated) == 2:
        return _dataset(*_feature_search(_features(generated, "sample"), source, training, k, candidates))
    x = as_square_images(generated).float()
    if not 0 <= shift < x.shape[-1] / 4:
        raise DataError(f"a shift of {shift} pixels is not within a quarter of {x.shape[-1]}")
    count = min(max(candidates, k), len(source))
    found = _Coarse.fit(source, x, shift, turns).search(x, source, count)
    group = max(1, _BANK // (count * x[0].numel() * x.element_size()))
    pairs = zip(x.split(group), found.split(group), strict=True)
    parts = [_exact(g, candidates_, training, shift, turns) for g, candidates_ in pairs]
    distance, best = (torch.cat(column) for column in zip(*parts, strict=True))
    order = distance.argsort(dim=1, stable=True)[:, :k]
    return _dataset(*(value.gather(1, order) for value in (found, distance, best)), lags=2 * shift + 1)


def _dataset(index: Tensor, distance: Tensor, best: Tensor | None = None, *, lags: int = 1) -> xr.Dataset:
    dims = ("sample", "neighbor")
    data: dict[str, Any] = {"index": (dims, index.cpu().numpy()), "distance": (dims, distance.cpu().numpy())}
    if best is None:
        return xr.Dataset(data)
    transform, row, column = np.unravel_index(best.cpu().numpy(), (8, lags, lags))
    # What the window begins later, its content moves towards smaller rows.
    moved = lags // 2 - np.stack([row, column], axis=-1)
    data |= {"transform": (dims, transform), "shift": ((*dims, "axis"), moved, {"units": "pixel"})}
    return xr.Dataset(data, coords={"axis": np.array(["y", "x"], dtype=object)})


def _features(values: Any, name: str, like: Tensor | None = None) -> Tensor:
    x = values.double() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, dtype=np.float64))
    if x.ndim != 2 or 0 in x.shape or (like is not None and x.shape[1] != like.shape[1]):
        wanted = "(sample, d)" if like is None else f"(n, {like.shape[1]})"
        raise DataError(f"{name} features have shape {tuple(x.shape)}, not {wanted}")
    if not torch.isfinite(x).all():
        raise DataError(f"{name} features are not finite")
    return x if like is None else x.to(like.device)


def _feature_search(x: Tensor, source: Blocks, training: Any, k: int, candidates: int) -> tuple[Tensor, Tensor]:
    best = _Best.empty(len(x), min(max(k, candidates), len(source)), x.device, x.dtype)
    for rows, values in source:
        other = _features(values, "training", x)
        best = best.merge(other.square().sum(dim=1) - 2 * x @ other.T, torch.from_numpy(rows).to(x.device))
    # Products cancel; differences do not, and the distance of a copy is 0.
    wanted, place = best.row.unique(return_inverse=True)
    bank = torch.cat([_features(values, "training", x) for _, values in Blocks(training, wanted.cpu().numpy())])
    distance = torch.stack([(bank[at] - row).norm(dim=1) for row, at in zip(x, place, strict=True)])
    order = distance.argsort(dim=1, stable=True)[:, :k]
    return best.row.gather(1, order), distance.gather(1, order)


class _Best(NamedTuple):
    """The lowest costs so far and their rows, ``(sample, count)``, in ascending order."""

    cost: Tensor
    row: Tensor

    @classmethod
    def empty(cls, n: int, count: int, device: torch.device, dtype: torch.dtype) -> _Best:
        shape = (n, count)
        return cls(torch.full(shape, torch.inf, dtype=dtype, device=device), torch.full(shape, -1, device=device))

    def merge(self, cost: Tensor, rows: Tensor) -> _Best:
        """Add a block ``(sample, row)``."""
        count = self.cost.shape[1]
        here, at = cost.topk(min(count, cost.shape[1]), dim=1, largest=False)
        both, every = torch.cat([self.cost, here], 1), torch.cat([self.row, rows[at]], 1)
        order = both.argsort(dim=1, stable=True)[:, :count]
        return _Best(both.gather(1, order), every.gather(1, order))


def _turned(x: Tensor, transform: int) -> Tensor:
    return torch.rot90(x.flip(-1) if transform >= 4 else x, transform % 4, (-2, -1))


def _training_images(rows: np.ndarray, values: Any, like: Tensor) -> Tensor:
    where = f"training rows {rows[0]} to {rows[-1]}"
    try:
        x = as_images(values)
    except DataError as error:
        raise DataError(error.message, where=where, remedy=error.remedy) from None
    if x.shape[1:] != like.shape[1:]:
        raise DataError(f"images have shape {tuple(x.shape[1:])}, samples {tuple(like.shape[1:])}", where=where)
    return x.to(like)


class _Coarse(NamedTuple):
    """The first pass: averaged, projected inner stamps."""

    mean: Tensor
    components: Tensor
    shift: int
    turns: bool

    @classmethod
    def fit(cls, source: Blocks, like: Tensor, shift: int, turns: bool) -> _Coarse:
        """Measure principal components on blocks from all over the training set."""
        blocks = [_training_images(*block, like) for block in source.sample(_FIT_BLOCKS)]
        vectors = torch.cat([_averaged(block, [shift], shift)[0] for block in blocks]).double()
        mean = vectors.mean(dim=0)
        _, axes = torch.linalg.eigh((vectors - mean).T @ (vectors - mean))
        return cls(mean.float(), axes[:, -_COMPONENTS:].float(), shift, turns)

    def project(self, x: Tensor, starts: list[int]) -> Tensor:
        """Return projections of every second of the windows that begin there, ``(window, sample, component)``."""
        # There is an odd number of starts: all others are a pixel away from one that is kept.
        return (_averaged(x, starts, self.shift)[::2] - self.mean) @ self.components

    def search(self, x: Tensor, source: Blocks, count: int) -> Tensor:
        """Return the rows of the training images with the smallest distance in any pose, ``(sample, count)``."""
        # |t - g|^2 = |t|^2 - 2 (t, 1) . (g, -|g|^2 / 2): the best pose has the largest product.
        starts = list(range(2 * self.shift + 1))
        queries = []
        for part in x.split(_SAMPLES):
            g = torch.cat([self.project(_turned(part, t), starts) for t in range(8 if self.turns else 1)])
            queries.append(torch.cat([g, -0.5 * g.square().sum(-1, keepdim=True)], dim=-1))
        best = _Best.empty(len(x), count, x.device, x.dtype)
        for rows, values in source:
            t = self.project(_training_images(rows, values, x), [self.shift])[0]
            norm = t.square().sum(dim=1)
            t = torch.cat([t, torch.ones_like(t[:, :1])], dim=1)
            products = [(t @ g.flatten(0, 1).T).view(len(t), *g.shape[:2]).amax(dim=1) for g in queries]
            best = best.merge(norm - 2 * torch.cat(products, dim=1).T, torch.from_numpy(rows).to(x.device))
        return best.row


def _averaged(x: Tensor, starts: list[int], shift: int) -> Tensor:
    """Return averages of square windows, orthonormal in the pixels, ``(window, sample, value)``."""
    inner = x.shape[-1] - 2 * shift
    width = max(1, round(inner / _SIDE))
    side = inner // width
    matrix = x.new_zeros(x.shape[-1], len(starts), side)
    for i, start in enumerate(starts):
        for j in range(side):
            matrix[start + j * width : start + (j + 1) * width, i, j] = width**-0.5
    pooled = matrix.flatten(1).T @ x @ matrix.flatten(1)
    every = pooled.unflatten(-1, (len(starts), side)).unflatten(-3, (len(starts), side))
    return every.permute(2, 4, 0, 1, 3, 5).flatten(3).flatten(0, 1)


def _exact(x: Tensor, found: Tensor, training: Any, shift: int, turns: bool) -> tuple[Tensor, Tensor]:
    """Return distance and number of the best pose of every sample and candidate."""
    wanted, place = found.unique(return_inverse=True)
    size = x.shape[-1]
    inner = size - 2 * shift
    center = slice(shift, size - shift)
    bank = x.new_empty(len(wanted), x[0, :, center, center].numel())
    filled = 0
    for rows, values in Blocks(training, wanted.cpu().numpy(), size=_BLOCK):
        bank[filled : filled + len(rows)] = _training_images(rows, values, x)[..., center, center].flatten(1)
        filled += len(rows)
    distances, poses = [], []
    for image, at in zip(x, place, strict=True):
        turned = torch.stack([_turned(image, t) for t in range(8 if turns else 1)])
        windows = turned.unfold(2, inner, 1).unfold(3, inner, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, bank.shape[1])
        level, candidates = windows.mean(), bank[at]  # with the level off, less cancels
        windows = windows - level
        score = (candidates - level) @ windows.T - 0.5 * windows.square().sum(dim=1)
        best = score.argmax(dim=1)
        difference = (candidates - level).double() - windows[best].double()
        distances.append(difference.square().mean(dim=1).sqrt())
        poses.append(best)
    return torch.stack(distances), torch.stack(poses)

"""Features and moments of images that do not fit in memory, block by block over Dask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics.moments import Moments
from galdiff.metrics.rows import as_features

__all__ = ["features_of", "moments_of"]

_FAN = 8  # Moments that are merged at a time.


def features_of(images: Any, extractor: Callable[[np.ndarray], Any], *, batch: int = 256, rows: int = 1024) -> Any:
    """Return the features of images as a Dask array, computed when it is asked for.

    Parameters
    ----------
    images : array_like
        ``(sample, …)``: a Zarr array, a Dask array, a DataArray of one, or anything with a shape and slices. Of the
        stores of a run: ``store.array("image")``.
    extractor : callable
        From images ``(n, …)`` to features ``(n, d)``, tensor or array: `galdiff.metrics.physical_features`, an encoder.
        Called from several threads at once.
    batch : int
        Images that it is given at a time.
    rows : int
        Images of a block, rounded up to whole batches; two blocks or so a worker are in memory. Best whole chunks, or
        shards, of the store.

    Returns
    -------
    dask.array.Array
        float64 ``(sample, d)``; the same numbers as from images in memory cut into the same batches.

    Raises
    ------
    DataError
        For no images or a batch of none; when computed, for features that are not finite or not one row an image.

    Notes
    -----
    The number of features is found by extracting those of the first image.
    """
    import dask.array as da

    if batch < 1 or rows < 1:
        raise DataError(f"batches of {batch} images in blocks of {rows}: one is needed at least")
    source = images.data if isinstance(images, xr.DataArray) else images
    shape = tuple(getattr(source, "shape", ()))
    if len(shape) < 2 or 0 in shape:
        raise DataError(f"images have shape {shape}, not (sample, …)")
    rows = -(-rows // batch) * batch
    chunks = (rows, *source.shape[1:])
    blocks = source.rechunk(chunks) if isinstance(source, da.Array) else da.from_array(source, chunks=chunks)
    width = _extract(np.asarray(blocks[:1].compute()), extractor, batch).shape[1]
    return blocks.map_blocks(
        _extract,
        extractor,
        batch,
        dtype=np.float64,
        chunks=(blocks.chunks[0], (width,)),
        drop_axis=list(range(2, blocks.ndim)),
        meta=np.empty((0, 0)),
    )


def moments_of(features: Any) -> Moments:
    """Compute the moments of a Dask array of features, for `galdiff.metrics.frechet_distance`.

    Parameters
    ----------
    features : dask.array.Array
        ``(n, d)``, from `features_of`; blocks are of rows.

    Returns
    -------
    Moments
        Merged pairwise, in order: the same for any number of workers.

    Raises
    ------
    DataError
        For another rank, and for features that are not finite.
    """
    import dask

    if features.ndim != 2:
        raise DataError(f"features have shape {features.shape}, not (sample, feature)")
    blocks = features.rechunk({1: -1}).to_delayed().ravel().tolist()
    measured = [dask.delayed(Moments.of, pure=False)(block) for block in blocks]
    while len(measured) > 1:
        measured = [dask.delayed(_merged, pure=False)(measured[i : i + _FAN]) for i in range(0, len(measured), _FAN)]
    return measured[0].compute()


def _extract(images: np.ndarray, extractor: Callable[[np.ndarray], Any], batch: int) -> np.ndarray:
    parts = [as_features(extractor(images[i : i + batch])).cpu().numpy() for i in range(0, len(images), batch)]
    features = np.concatenate(parts)
    if len(features) != len(images):
        raise DataError(f"the extractor gave {len(features)} rows of features for {len(images)} images")
    return features


def _merged(parts: list[Moments]) -> Moments:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole

"""Stage: encode the cutout cache into the latent store, shard by shard, here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.autoencoder import Autoencoder
from galdiff.errors import ResourceError
from galdiff.imageformat import ImageFormat
from galdiff.latents import CutoutStore, LatentStore
from galdiff.latents.place import Target
from galdiff.nn import dihedral
from galdiff.progress import stage_progress

__all__ = ["write_latents"]


def write_latents(
    cutouts: CutoutStore,
    autoencoder: Autoencoder,
    path: Target,
    *,
    image_format: ImageFormat,
    device: torch.device,
    batch: int = 256,
    views: int = 1,
    workers: int = 1,
    scheduler: str = "threads",
    autoencoder_hash: str,
    attrs: dict[str, Any] | None = None,
) -> LatentStore:
    """Encode every cutout; finished shards, and a finished store, are kept when it is run again.

    Every shard is encoded and written by one worker, in batches that start where the shard does: neither the number of
    workers nor how a run was interrupted can change a bit.

    Parameters
    ----------
    cutouts : CutoutStore
        The cache; on a cluster, where its workers see it too.
    autoencoder : Autoencoder
        Trained, on ``device``.
    path : path-like or zarr.abc.store.Store
        The store to write.
    image_format : ImageFormat
        With the stretch.
    device : torch.device
        Where to encode.
    batch : int
        Cutouts at once; by default the rows of a chunk.
    views : {1, 8}
        Encode every image as it is, or in all its symmetries.
    workers : int
        Threads that encode shards, beside the one thread each that reads ahead.
    scheduler : str
        "threads", or the address of a ``dask.distributed`` cluster such as ``tcp://host:8786``.
    autoencoder_hash : str
        SHA-256 of the autoencoder's weights; a denoiser refuses a store of another one.
    attrs : dict, optional
        Further attributes of the store.

    Raises
    ------
    ResourceError
        Where the cluster cannot be reached or ``distributed`` is not installed.
    """
    side = image_format.size // autoencoder.factor
    store = LatentStore.create(
        path,
        shape=(autoencoder.latent_channels, side, side),
        ids=cutouts.ids,
        split=cutouts.split,
        conditions=cutouts.conditions(),
        schema=cutouts.schema,
        views=views,
        attrs={"autoencoder": {"sha256": autoencoder_hash, "spec": autoencoder.spec}, **(attrs or {})},
    )
    if store.complete:  # by a run that was killed before it made a note of it
        return store
    here = scheduler == "threads"
    with (
        stage_progress("latents", total=len(cutouts), unit="images") as bar,
        _executor(scheduler, workers) as executor,
    ):
        encoder = _Encoder(cutouts, autoencoder, store, image_format, device, batch, tell=bar.update if here else None)
        missing = list(store.missing_shards())
        bar.update(len(cutouts) - sum(_length(store, k) for k in missing))
        for future in as_completed([executor.submit(encoder, k) for k in missing]):
            k = future.result()
            if not here:
                bar.update(_length(store, k))
    store.finish()
    return LatentStore.open(store.place)


@dataclass(frozen=True)
class _Encoder:
    """Encodes and writes a shard; may be sent to another process."""

    cutouts: CutoutStore
    autoencoder: Autoencoder
    store: LatentStore
    image_format: ImageFormat
    device: torch.device
    batch: int
    tell: Callable[[int], None] | None
    """Told of every batch; it cannot be sent to another process."""

    @torch.no_grad()
    def __call__(self, k: int) -> int:
        rows = self.store.shard_rows(k)
        parts = torch.arange(rows.start, rows.stop).split(self.batch)
        encoded = []
        for images in _ahead(lambda p: self.cutouts.images(p.numpy()), parts):
            encoded.append(self._encode(images))
            if self.tell is not None:
                self.tell(len(images))
        mean, log_var = (torch.cat(pieces).numpy() for pieces in zip(*encoded, strict=True))
        self.store.write_shard(k, mean=mean, log_var=log_var)
        return k

    def _encode(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = self.image_format.stretch(torch.from_numpy(images).to(self.device).float())
        if self.store.views == 1:
            posterior = self.autoencoder.encode(pixels)
            return posterior.mean.cpu(), posterior.log_var.cpu()
        turned = (dihedral(pixels, torch.full((len(pixels),), e, device=self.device)) for e in range(8))
        views = [self.autoencoder.encode(x) for x in turned]
        return torch.stack([v.mean for v in views], 1).cpu(), torch.stack([v.log_var for v in views], 1).cpu()


def _length(store: LatentStore, k: int) -> int:
    rows = store.shard_rows(k)
    return int(rows.stop - rows.start)


@contextmanager
def _executor(scheduler: str, workers: int) -> Iterator[Executor]:
    """Open what runs the shards' tasks: threads here, or the workers of a cluster."""
    if scheduler == "threads":
        with ThreadPoolExecutor(workers) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return
    try:
        from distributed import Client
    except ModuleNotFoundError:
        remedy = "pip install galdiff[distributed]"
        raise ResourceError("a cluster needs dask.distributed", where=scheduler, remedy=remedy) from None
    try:
        client = Client(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        remedy = "Give 'threads', or the address that the cluster's scheduler says when it starts"
        raise ResourceError(f"the cluster cannot be reached: {error}", where=scheduler, remedy=remedy) from error
    with client, client.get_executor(pure=False) as pool:
        yield pool


def _ahead(read: Callable[[Tensor], np.ndarray], parts: Sequence[Tensor]) -> Iterator[np.ndarray]:
    """Yield what is read of every part, reading one ahead."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, parts[0])
        for part in parts[1:]:
            images, coming = coming.result(), reader.submit(read, part)
            yield images
        yield coming.result()

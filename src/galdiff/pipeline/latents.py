"""Stage: encode the cutout cache into the latent store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galdiff.autoencoder import Autoencoder
from galdiff.latents import CutoutStore, LatentStore
from galdiff.model import ImageFormat
from galdiff.progress import stage_progress

__all__ = ["write_latents"]


@torch.no_grad()
def write_latents(
    cutouts: CutoutStore,
    autoencoder: Autoencoder,
    path: Path,
    *,
    image_format: ImageFormat,
    device: torch.device,
    batch: int = 256,
    autoencoder_hash: str,
    attrs: dict[str, Any] | None = None,
) -> LatentStore:
    """Encode every cutout; finished shards are kept when it is run again.

    Parameters
    ----------
    cutouts : CutoutStore
        The cache.
    autoencoder : Autoencoder
        Trained, on ``device``.
    path : Path
        The store to write.
    image_format : ImageFormat
        With the stretch.
    device : torch.device
        Where to encode.
    batch : int
        Cutouts at once; batches start at shard boundaries, so that nothing depends on how a run was interrupted.
    autoencoder_hash : str
        SHA-256 of the autoencoder's weights; a denoiser refuses a store of another one.
    attrs : dict, optional
        Further attributes of the store.
    """
    side = image_format.size // autoencoder.factor
    store = LatentStore.create(
        path,
        shape=(autoencoder.latent_channels, side, side),
        ids=cutouts.ids,
        split=cutouts.split,
        conditions=cutouts.conditions(),
        schema=cutouts.schema,
        attrs={"autoencoder": {"sha256": autoencoder_hash, "spec": autoencoder.spec}, **(attrs or {})},
    )
    with stage_progress("latents", total=len(cutouts.ids), unit="images") as bar:
        for shard in store.missing_shards():
            rows = torch.arange(len(cutouts.ids))[store.shard_rows(shard)]
            means, log_vars = [], []
            parts = rows.split(batch)
            for part, images in zip(parts, _ahead(lambda part: cutouts.images(part.numpy()), parts), strict=True):
                pixels = torch.from_numpy(images).to(device).float()
                posterior = autoencoder.encode(image_format.stretch(pixels))
                means.append(posterior.mean.cpu())
                log_vars.append(posterior.log_var.cpu())
                bar.update(len(part))
            store.write_shard(shard, mean=torch.cat(means).numpy(), log_var=torch.cat(log_vars).numpy())
        store.finish()
    return LatentStore.open(path)


def _ahead(read: Callable[[Tensor], np.ndarray], parts: Sequence[Tensor]) -> Iterator[np.ndarray]:
    """Yield what is read of every part, reading one ahead."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, parts[0])
        for part in parts[1:]:
            images, coming = coming.result(), reader.submit(read, part)
            yield images
        yield coming.result()

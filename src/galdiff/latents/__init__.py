"""Stores: the cutout cache and the latents."""

from galdiff.latents.cutouts import CutoutStore
from galdiff.latents.readers import LatentBatch, LatentBlocks, LatentTable, SplitIds
from galdiff.latents.rows import RowStore
from galdiff.latents.store import LatentStore

__all__ = ["CutoutStore", "LatentBatch", "LatentBlocks", "LatentStore", "LatentTable", "RowStore", "SplitIds"]

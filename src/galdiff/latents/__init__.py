"""Stores: the cutout cache and the latents."""

from galdiff.latents.cutouts import CutoutStore
from galdiff.latents.rows import RowStore
from galdiff.latents.store import LatentStore, LatentTable

__all__ = ["CutoutStore", "LatentStore", "LatentTable", "RowStore"]

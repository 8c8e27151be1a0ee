"""Loaders: astronomers' files as they are, into pixel values, conditions and ids."""

from galdiff.data.dataset import CutoutDataset
from galdiff.data.deeplense import DeepLenseDataset
from galdiff.data.geometry import RadiusCrop
from galdiff.data.gz2 import GZ2Dataset
from galdiff.data.imagefolder import ImageFolderDataset
from galdiff.data.splits import split_by_hash, split_rows
from galdiff.data.stretch import Asinh, Linear, Sqrt, Stretch

__all__ = [
    "Asinh",
    "CutoutDataset",
    "DeepLenseDataset",
    "GZ2Dataset",
    "ImageFolderDataset",
    "Linear",
    "RadiusCrop",
    "Sqrt",
    "Stretch",
    "split_by_hash",
    "split_rows",
]

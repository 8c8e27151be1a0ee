"""Loaders: astronomers' files as they are, into pixel values, conditions and ids."""

from galdiff.data.dataset import CutoutDataset
from galdiff.data.deeplense import DeepLenseDataset
from galdiff.data.fits import FITSDataset
from galdiff.data.fits_files import StampHeader
from galdiff.data.geometry import RadiusCrop
from galdiff.data.gz2 import GZ2Dataset
from galdiff.data.hdf5 import HDF5Dataset
from galdiff.data.idx import IDXDataset
from galdiff.data.imagefolder import ImageFolderDataset
from galdiff.data.splits import split_by_hash, split_rows
from galdiff.data.stretch import Linear, Sqrt, Stretch
from galdiff.data.stretches import Asinh, Log, Percentile

__all__ = [
    "Asinh",
    "CutoutDataset",
    "DeepLenseDataset",
    "FITSDataset",
    "GZ2Dataset",
    "HDF5Dataset",
    "IDXDataset",
    "ImageFolderDataset",
    "Linear",
    "Log",
    "Percentile",
    "RadiusCrop",
    "Sqrt",
    "StampHeader",
    "Stretch",
    "split_by_hash",
    "split_rows",
]

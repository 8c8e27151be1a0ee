"""Catalog files: read, validated, checked, and run."""

from galdiff.config.build import again, build_dataset, fit_settings, run, train
from galdiff.config.load import catalog_path, dump, load, packaged_catalogs
from galdiff.config.spec import RunSpec

__all__ = [
    "RunSpec",
    "again",
    "build_dataset",
    "catalog_path",
    "dump",
    "fit_settings",
    "load",
    "packaged_catalogs",
    "run",
    "train",
]

"""The cutout cache keeps what the loader knew of every pixel."""

import numpy as np
from astropy.io import fits

from galdiff.data import FITSDataset
from galdiff.pipeline.cutouts import write_cutouts
from galdiff.progress import quiet

SPLIT = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_masks_of_invalid_pixels_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.normal(size=(2, 12, 12)).astype(np.float32)
        pixels[0, i, 3] = np.nan
        fits.writeto(tmp_path / f"{i}.fits", pixels)
    dataset = FITSDataset(tmp_path, size=12)
    with quiet():
        store = write_cutouts(dataset, tmp_path / "cutouts.zarr", split=SPLIT)
    masks = store.masks()
    assert masks.shape == store.images().shape
    for i in range(5):
        assert np.array_equal(masks[i], dataset.mask(i))
        assert not masks[i, 0, i, 3]
        assert masks[i].sum() == masks[i].size - 1

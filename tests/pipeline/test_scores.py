"""Figures of images on which a measurement finds nothing."""

import numpy as np
import xarray as xr

from galdiff.atomic import write_json
from galdiff.pipeline.scores import _axis_ratios


def test_rings_have_no_axis_ratio_and_that_can_be_written(tmp_path):
    r = np.hypot(*(np.mgrid[:32, :32] - 15.5))
    images = np.stack([np.exp(-((r - radius) ** 2))[None] for radius in (9, 10, 11)]).astype(np.float32)
    ask = xr.DataArray(np.array(["ring", "ring", "blob"], dtype=object), dims="sample")
    images[2] = np.exp(-((r / 4) ** 2))
    grid = xr.Dataset({"image": (("sample", "band", "y", "x"), images), "ask": ask, "guidance": ("sample", np.ones(3))})
    for group in ("grid", "real"):
        grid.to_zarr(tmp_path / "samples.zarr", group=group, mode="a", zarr_format=3, consolidated=False)
    ring, blob = _axis_ratios(tmp_path)
    assert (ring.value, ring.status) == (None, "too few")
    assert blob.value > 0.9
    assert blob.status == "ok"
    assert blob.freedom == 0  # of one object
    write_json(tmp_path / "figures.json", [ring.to_dict(), blob.to_dict()])

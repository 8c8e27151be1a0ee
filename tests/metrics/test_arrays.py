"""What metrics take as images, and what they refuse."""

import numpy as np
import pytest
import torch
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics import morphology, power_spectrum, radial_profile
from galdiff.metrics.arrays import as_images, as_numbers

RAGGED = [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize("measure", [radial_profile, power_spectrum, morphology])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (xr.DataArray(np.ones(5)), "shape"),
        (xr.DataArray(1.0), "shape"),
        ("galaxy", "not real numbers"),
        (np.full((1, 1, 8, 8), "1"), "not real numbers"),
        (np.full((1, 1, 8, 8), None), "not real numbers"),
        (RAGGED, "not of one shape"),
        (np.ones((1, 1, 8, 8), complex), "not real numbers"),
        (torch.ones(1, 1, 8, 8, dtype=torch.complex64), "not real numbers"),
    ],
)
def test_what_is_no_image(measure, images, message):
    with pytest.raises(DataError, match=message):
        measure(images)


@pytest.mark.parametrize("value", ["one", RAGGED, 1j])
def test_what_is_no_number(value):
    with pytest.raises(DataError, match=r"not real numbers|not of one shape"):
        as_numbers(value, torch.device("cpu"))


class TestNames:
    IMAGES = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)

    @pytest.mark.parametrize("names", [("sample", "band", "y", "x"), ("object", "filter", "row", "column")])
    def test_dimensions_in_order_and_of_other_names(self, names):
        assert np.array_equal(as_images(xr.DataArray(self.IMAGES, dims=names)), self.IMAGES)

    @pytest.mark.parametrize(
        "names", [("sample", "y", "x", "band"), ("sample", "band", "x", "y"), ("a", "b", "c", "y")]
    )
    def test_dimensions_in_another_order(self, names):
        with pytest.raises(DataError, match=rf"{names[2]}, {names[3]}") as error:
            as_images(xr.DataArray(self.IMAGES, dims=names))
        assert "sample, band, y, x" in str(error.value)

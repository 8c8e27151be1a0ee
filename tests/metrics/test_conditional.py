"""Distances by class and over a label see swapped classes and a drift with the label, where the whole is equal."""

import numpy as np
import pytest
import torch
import xarray as xr

from galdiff.errors import DataError
from galdiff.metrics import class_distances, frechet_distance, sliding_distances, squared_mmd

rng = np.random.default_rng(0)
LABELS = np.repeat(["bar", "ring"], 100)
CENTERS = np.where(LABELS == "bar", 0.0, 4.0)[:, None]
ONE, OTHER = CENTERS + rng.normal(size=(200, 3)), CENTERS + rng.normal(size=(200, 3))


def test_swapped_classes_are_far_by_class_and_near_as_a_whole():
    swapped = OTHER[::-1]
    found = class_distances(ONE, LABELS, swapped, LABELS)
    assert found["class"].values.tolist() == ["bar", "ring"]
    assert found["count_a"].values.tolist() == [100, 100]
    for name, value in zip(found["class"].values, found["distance"].values, strict=True):
        mask = name == LABELS
        assert value == pytest.approx(frechet_distance(ONE[mask], swapped[mask]), rel=1e-12)
        assert value > 20
    assert frechet_distance(ONE, swapped) < 2


def test_a_class_of_one_set_alone_and_a_small_one_have_no_distance():
    labels = LABELS.astype(object)
    labels[:14] = "spiral"
    labels[14:29] = "edge-on"
    found = class_distances(ONE, labels, OTHER, labels).distance
    assert np.isnan(found.sel({"class": "spiral"}))
    assert np.isfinite(found.sel({"class": "edge-on"}))
    missing = class_distances(ONE, labels, OTHER, LABELS)
    assert np.isnan(missing.distance.sel({"class": "edge-on"}))
    assert missing["count_b"].sel({"class": "edge-on"}) == 0
    few = class_distances(ONE, labels, OTHER, labels, distance=squared_mmd, minimum=10)
    assert np.isfinite(few.distance).all()


def test_windows_slide_over_the_label():
    label = np.linspace(0, 1, 400)
    one, other = (label[:, None] * 5 + rng.normal(size=(400, 2)) for _ in range(2))
    drift = other + np.where(label > 0.8, 3.0, 0.0)[:, None]
    found = sliding_distances(one, label, drift, label, windows=9, width=0.2)
    assert found["center"].values == pytest.approx(np.linspace(0.1, 0.9, 9))
    inside = label <= 0.2
    assert found["distance"][0] == pytest.approx(frechet_distance(one[inside], drift[inside]))
    assert found["distance"][-1] > 10 * found["distance"][0]
    values = found["distance"].values
    assert (found.attrs["mean"], found.attrs["std"]) == pytest.approx((values.mean(), values.std()))
    # Neighbors overlap by half: 9 windows of a fifth.
    assert sliding_distances(one, label, other, label, windows=9).attrs["width"] == pytest.approx(0.2)


def test_windows_without_enough_rows_are_not_a_number():
    label = np.r_[np.linspace(0, 0.4, 100), 1.0]
    x = rng.normal(size=(101, 2))
    found = sliding_distances(x, label, x, label, windows=4)
    assert np.isnan(found["distance"].values[-1])
    assert np.isfinite(found.attrs["mean"])
    assert np.isnan(sliding_distances(x, label, x, label, minimum=1000).attrs["mean"])


@pytest.mark.parametrize(
    ("labels", "words"), [(np.zeros(200), "slide"), (np.zeros(3), "200 rows"), (np.full(200, np.nan), "not finite")]
)
def test_bad_labels(labels, words):
    with pytest.raises(DataError, match=words):
        sliding_distances(ONE, labels, OTHER, labels)


def test_text_and_numbers_are_not_mixed():
    with pytest.raises(DataError, match="text in one set"):
        class_distances(ONE, LABELS, OTHER, np.arange(200))
    with pytest.raises(DataError, match="not numbers"):
        sliding_distances(ONE, LABELS, OTHER, LABELS)
    as_tensors = class_distances(ONE, torch.arange(200) % 2, torch.from_numpy(OTHER), np.arange(200) % 2 == 1)
    assert as_tensors["class"].values.tolist() == [0, 1]


def test_results_are_kept_in_zarr(tmp_path):
    found = class_distances(ONE, LABELS, OTHER, LABELS)
    found.to_zarr(tmp_path / "distances.zarr", zarr_format=3, consolidated=False)
    again = xr.open_zarr(tmp_path / "distances.zarr", consolidated=False).load()
    xr.testing.assert_equal(again, found)
    assert again.attrs == found.attrs

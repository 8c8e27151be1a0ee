"""Columns of a table as conditions."""

import numpy as np
import pandas as pd
import pytest
import torch

from galdiff.data.labels import class_column, scalar_columns
from galdiff.nn import ConditionFeatures
from galdiff.schema.conditions import Conditions, ConditionSchema


def test_labels_of_one_name_are_one_class():
    labels = pd.Series([0, 1, 2, 1], name="ans")
    classes = {0: "smooth", 1: "spiral", 2: "spiral"}
    column = class_column(labels, "morphology", where="table.csv", ids=range(4), classes=classes)
    assert column.field.classes == ("smooth", "spiral")
    assert column.values.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("constant", [0.1, 0.3, 21.7, -1e5, 0.0])
def test_a_constant_number_is_within_the_networks_range(constant):
    """Rounding gives a thousand times 0.1 a deviation of 1e-17."""
    [column] = scalar_columns(pd.DataFrame({"z": np.full(1000, constant)}), ["z"], where="table.csv")
    schema = ConditionSchema([column.field])
    known = Conditions({"z": column.values}, {"z": column.mask})
    features = ConditionFeatures(schema)(known, len(known), torch.device("cpu"))
    assert features.abs().max() < 1.01


def test_numbers_that_differ_a_little_are_told_apart():
    [column] = scalar_columns(pd.DataFrame({"z": 100 + 1e-3 * np.arange(9.0)}), ["z"], where="table.csv")
    assert column.field.std == pytest.approx(1e-3 * np.arange(9.0).std())

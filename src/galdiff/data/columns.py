"""Conditions from the columns of a table: a class from a column of labels, a scalar from a column of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from galdiff.data.tables import find_column
from galdiff.errors import DataError
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar

__all__ = ["column_conditions"]


def column_conditions(
    table: pd.DataFrame,
    *,
    label: str | None,
    name: str,
    classes: Mapping[Any, str] | None,
    mirror: Sequence[Sequence[str]],
    scalars: Sequence[str],
    source: Path,
) -> tuple[ConditionSchema, Conditions]:
    """Build the fields and their values for all rows.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an object.
    label : str, optional
        Column of labels; an empty cell is unknown.
    name : str
        Name of the class field.
    classes : mapping, optional
        From labels to names; by default the labels as they are, in order.
    mirror : sequence of pairs
        Classes that are each other's mirror image.
    scalars : sequence of str
        Columns of numbers; what is not finite is unknown.
    source : Path
        The table's file, for errors.

    Raises
    ------
    DataError
        For a missing column, an unknown label, or a scalar that is no number.
    """
    fields: list[Class | Scalar] = []
    values, masks = {}, {}
    if label is not None:
        text, known = _labels(table[find_column(table, label, source)])
        index = {v: i for i, v in enumerate(_order(text[known]) if classes is None else map(_text, classes))}
        for row in np.flatnonzero(known):
            if text[row] not in index:
                message = f"'{table.iloc[row, 0]}': label '{text[row]}' in column '{label}' is not known"
                raise DataError(message, where=source, remedy=f"Known labels: {', '.join(index)}")
        if index:
            names = tuple(index) if classes is None else tuple(map(str, classes.values()))
            fields.append(Class(name, names, tuple((str(a), str(b)) for a, b in mirror)))
            values[name] = torch.tensor([index.get(v, 0) for v in text], dtype=torch.int64)
            masks[name] = torch.from_numpy(known)
    for column in scalars:
        number = _numbers(table, find_column(table, column, source), source)
        known = np.isfinite(number)
        mean, std = (float(number[known].mean()), float(number[known].std())) if known.any() else (0.0, 1.0)
        fields.append(Scalar(column, mean=mean, std=std or 1.0))
        values[column] = torch.from_numpy(np.where(known, number, mean).astype(np.float32))
        masks[column] = torch.from_numpy(known)
    return ConditionSchema(fields), Conditions(values, masks)


def _labels(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    text = np.array(["" if pd.isna(v) else _text(v) for v in column], dtype=object)
    return text, text != ""


def _text(value: Any) -> str:
    """Labels as text; a column with gaps turns 3 into 3.0, which is still class 3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _order(labels: np.ndarray) -> list[str]:
    """Sort numbers as numbers, then texts."""
    return sorted(set(labels), key=lambda v: (0, int(v), "") if v.lstrip("-").isdecimal() else (1, 0, v))


def _numbers(table: pd.DataFrame, column: str, source: Path) -> np.ndarray:
    try:
        return table[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"column '{column}' is not of numbers: {error}", where=source) from error

"""From columns of a table to conditions: labels become classes, numbers become scalars, and gaps become masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from galdiff.data.tables import find_column
from galdiff.errors import DataError, all_at_once
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Field, Scalar

__all__ = ["Column", "class_column", "join_columns", "label_column", "scalar_columns"]

_CONSTANT = 1e-6  # deviation of a column over its mean below which it is constant


class Column(NamedTuple):
    """A condition field with its values and mask for all rows."""

    field: Field
    values: Tensor
    mask: Tensor


def label_column(frame: pd.DataFrame, name: str, *, where: Any) -> pd.Series:
    """Return a column of labels that was asked for by its name.

    Raises
    ------
    DataError
        Where it is absent, or no row has a label.
    """
    labels = frame[find_column(frame, name, where)]
    if not _known(labels).any():
        raise DataError(f"column '{name}' is empty", where=where, remedy="Leave it out, or choose other rows")
    return labels


def class_column(
    labels: pd.Series,
    name: str,
    *,
    where: object,
    ids: Sequence[Any] | np.ndarray,
    classes: Mapping[Any, str] | None = None,
    mirror: Sequence[Sequence[str]] = (),
) -> Column | None:
    """Turn labels into a `Class` condition.

    Parameters
    ----------
    labels : pandas.Series
        Numbers or text; a gap is an unknown class.
    name : str
        Name of the condition.
    where : path-like
        The file, for messages.
    ids : sequence
        Ids of the rows, for messages.
    classes : mapping, optional
        From labels to names, in the order of the classes, a name for one label or for several; by default the labels
        as they are, sorted.
    mirror : sequence of pairs
        Names of classes that are each other's mirror image.

    Returns
    -------
    Column or None
        None where no row has a label.

    Raises
    ------
    DataError
        For a label that is not among the classes.
    """
    known = _known(labels)
    values = sorted(labels[known].unique(), key=lambda v: (isinstance(v, str), v))
    if classes is None:
        classes = {value: _text(value) for value in values}
    if not classes:
        return None
    names = tuple(dict.fromkeys(map(str, classes.values())))
    index = {_text(label): names.index(str(class_)) for label, class_ in classes.items()}
    text = [_text(v) if k else "" for v, k in zip(labels, known, strict=True)]
    for row, (value, k) in enumerate(zip(text, known, strict=True)):
        if k and value not in index:
            message = f"'{ids[row]}': label '{value}' in column '{labels.name}' is not known"
            raise DataError(message, where=where, remedy=f"Known labels: {', '.join(index)}")
    for pair in mirror:
        if isinstance(pair, str) or len(pair) != 2:
            raise DataError(f"{pair!r} is no pair of classes", where="mirror", remedy="Write it like [[left, right]]")
    field = Class(name, names, tuple((str(a), str(b)) for a, b in mirror))
    coded = torch.tensor([index.get(v, 0) for v in text], dtype=torch.int64)
    return Column(field, coded, torch.from_numpy(known.copy()))


def scalar_columns(frame: pd.DataFrame, scalars: Sequence[str] | Mapping[str, str], *, where: Any) -> list[Column]:
    """Turn numeric columns into `Scalar` conditions, standardized by the mean and standard deviation of their rows.

    Parameters
    ----------
    frame : pandas.DataFrame
        The table.
    scalars : sequence or mapping
        Names of columns, or from names to units.
    where : Path
        The file, for messages.

    Raises
    ------
    DataError
        For a column that is absent, holds no numbers, or none at all that is finite.
    """
    units = dict(scalars) if isinstance(scalars, Mapping) else dict.fromkeys(scalars, "")
    columns = []
    with all_at_once() as part:
        for name, unit in units.items():
            with part():
                columns.append(_scalar_column(frame[find_column(frame, name, where)], name, str(unit), where))
    return columns


def _scalar_column(column: pd.Series, name: str, unit: str, where: Any) -> Column:
    try:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"column '{name}' does not hold numbers: {error}", where=where) from error
    with np.errstate(over="ignore"):
        known = np.isfinite(numbers.astype(np.float32))
    if not known.any():
        raise DataError(f"column '{name}' holds not one finite number", where=where)
    mean, std = float(numbers[known].mean()), float(numbers[known].std())
    # Of a constant rounding leaves a deviation too, by which its float32 values must not be divided.
    field = Scalar(name, unit, mean, std if std > _CONSTANT * abs(mean) else 1.0)
    values = torch.from_numpy(np.where(known, numbers, 0.0).astype(np.float32))
    return Column(field, values, torch.from_numpy(known))


def join_columns(columns: Sequence[Column | None]) -> tuple[ConditionSchema, Conditions]:
    """Join columns into the schema and the conditions of a data set; what is None is left out."""
    present = [column for column in columns if column is not None]
    values = {column.field.name: column.values for column in present}
    masks = {column.field.name: column.mask for column in present}
    return ConditionSchema(column.field for column in present), Conditions(values, masks)


def _known(labels: pd.Series) -> np.ndarray:
    """Whether a row has a label; FITS tables have no gaps: what is unknown there is an empty text."""
    return labels.notna().to_numpy(dtype=bool) & (labels.astype(str).str.strip() != "").to_numpy(dtype=bool)


def _text(value: Any) -> str:
    """Labels as text; a column with gaps turns 3 into 3.0, which is still class 3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

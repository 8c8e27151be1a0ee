"""CelebA's table of attributes, ``list_attr_celeba.txt``, as it comes.

The first line is the number of rows, the second the names of the attributes; every other line is a file and, for each
attribute, 1 or -1 (Liu et al. 2015, ICCV, section 5).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from galdiff.errors import DataError

__all__ = ["ANSWERS", "FILE", "read_attributes"]

FILE = "file"
"""Name of the column of files, which the table itself does not name."""
ANSWERS = {-1: "no", 1: "yes"}
"""What the numbers mean: the classes of every attribute."""


def read_attributes(path: Path) -> pd.DataFrame:
    """Read the table: the column ``file`` and an int8 column of -1 and 1 for every attribute.

    Raises
    ------
    DataError
        Where the file cannot be read, is not of this kind, or a row is not complete, with its line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as a table: {error}", where=path) from error
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        remedy = "Save other tables as CSV, parquet or FITS"
        raise DataError("the first line is not the number of rows, as CelebA's is", where=path, remedy=remedy)
    names = lines[1].split()
    rows = [line.split() for line in lines[2:] if line.strip()]
    if lines[0].strip() != str(len(rows)):
        raise DataError(f"the first line says {lines[0].strip()[:20]} rows, the file has {len(rows)}", where=path)
    if len({FILE, *names}) != len(names) + 1:
        raise DataError("line 2 names an attribute twice", where=path)
    for number, row in enumerate(rows, start=3):
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"-1", "1"}:
            raise DataError(f"line {number} is not a file and {len(names)} of -1 or 1", where=path)
    values = np.array([row[1:] for row in rows], dtype=np.int8).reshape(len(rows), len(names))
    return pd.DataFrame({FILE: [row[0] for row in rows], **dict(zip(names, values.T, strict=True))})

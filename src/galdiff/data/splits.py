"""Splits that never move: a row's split is a function of its id alone."""

from __future__ import annotations

import hashlib

import numpy as np

from galdiff.errors import DataError

__all__ = ["split_by_hash"]


def split_by_hash(ids: np.ndarray, train: float = 0.8, validation: float = 0.1, test: float = 0.1) -> np.ndarray:
    """Assign rows to splits by the SHA-256 of their ids.

    Parameters
    ----------
    ids : numpy.ndarray
        int64 or str ``(n,)``.
    train, validation, test : float
        Shares; they sum to one.

    Returns
    -------
    numpy.ndarray
        str ``(n,)``: "train", "validation" or "test". Adding, removing or shuffling rows moves no row.

    Raises
    ------
    DataError
        Where the shares do not sum to one or are negative.
    """
    if min(train, validation, test) < 0 or abs(train + validation + test - 1) > 1e-6:
        raise DataError(f"split shares {train:g}, {validation:g}, {test:g} do not sum to one")
    digests = (hashlib.sha256(str(i).encode()).digest() for i in np.asarray(ids).tolist())
    u = np.fromiter((int.from_bytes(d[:8], "big") / 2**64 for d in digests), float, count=len(ids))
    names = np.array(["train", "validation", "test"])
    return names[np.digitize(u, [train, train + validation])]

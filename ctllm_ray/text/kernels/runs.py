"""Finds runs of equal rows in sorted columns."""

from __future__ import annotations

import numpy as np


def starts_of(*columns: np.ndarray) -> np.ndarray:
    """int64: the start of each run of equal rows, over columns of one length."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)


def places_in(column: np.ndarray) -> np.ndarray:
    """int64: the position of each row within its run of equal rows, from 0."""
    starts = starts_of(column)
    places: np.ndarray = np.arange(len(column)) - np.repeat(starts, np.diff(starts, append=len(column)))
    return places

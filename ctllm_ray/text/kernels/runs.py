"""Runs of equal rows: what a sort leaves side by side."""

from __future__ import annotations

import numpy as np


def starts_of(*columns: np.ndarray) -> np.ndarray:
    """int64: where each run of equal rows begins, of columns of one length."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)


def places_in(column: np.ndarray) -> np.ndarray:
    """int64: the place of each row in its run of equal rows, from 0 on."""
    starts = starts_of(column)
    places: np.ndarray = np.arange(len(column)) - np.repeat(starts, np.diff(starts, append=len(column)))
    return places

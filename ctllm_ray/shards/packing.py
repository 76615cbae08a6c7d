"""Packing: documents of many lengths become rows of one width, and every target stands in exactly one row.

The unit of packing is a list of documents given by their numbers of targets (ids less one: BOS is never a
target). A row is made of pieces; a piece is a stretch of one document's targets, so no label ever crosses
from one document into another. How documents are dealt to rows is a packer (shards/packers/): a function of
the lengths and a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Pieces:
    """The pieces of one row in order: targets `ids[begins[k] : begins[k] + counts[k]]`
    of document `documents[k]`."""

    documents: np.ndarray  # int [pieces], numbers within the unit
    begins: np.ndarray  # int [pieces], index of the first target, at least 1
    counts: np.ndarray  # int [pieces], targets, at least 1


@dataclass(frozen=True)
class Fills:
    """The number of targets of each row, run-length encoded: most rows are full, so runs are few."""

    ends: np.ndarray  # int64 [runs], the row after the run
    targets: np.ndarray  # int64 [runs], targets of each row in the run

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def total(self) -> int:
        """The number of targets in all rows."""
        return int((np.diff(self.ends, prepend=0) * self.targets).sum())


class Packing(Protocol):
    """A packed unit."""

    fills: Fills
    nbytes: int  # size of its arrays

    def pieces(self, row: int) -> Pieces:
        """The pieces of a row. Their targets sum to the row's fill."""

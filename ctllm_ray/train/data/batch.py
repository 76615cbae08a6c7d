"""A batch: what the order of the data hands to the model, as plain numpy arrays.

Shapes: B sequences, T positions (`train.sequence_tokens`), P pieces of the row that has most of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

IGNORED = -100  # the label of a position that is not trained: padding


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents. Labels are already shifted: `labels[b, t]` is the token after `input_ids[b,
    t]`."""

    input_ids: np.ndarray  # int64 [B, T]
    labels: np.ndarray  # int64 [B, T], IGNORED in padding
    positions: (
        np.ndarray
    )  # int64 [B, T], from 0 at each document piece where documents are kept apart, else 0..T-1
    documents: (
        np.ndarray
    )  # int32 [B, T], number of the piece within its row, -1 in padding; all 0 where not kept apart
    references: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    # float32 [B, P]: log-probability that the reference gives each piece, nats; NaN where a row has fewer; P
    # is 0 but for preference pairs

    @property
    def target_tokens(self) -> int:
        """How many positions are trained."""
        return int((self.labels != IGNORED).sum())


def blank(rows: int, width: int, pad: int, apart: bool, references: int = 0) -> Batch:
    """A batch that is all padding. Where documents are kept apart, padding is a piece of its own with number
    -1.

    It has room for so many references in each row.
    """
    return Batch(
        np.full((rows, width), pad, np.int64),
        np.full((rows, width), IGNORED, np.int64),
        np.tile(np.arange(width, dtype=np.int64), (rows, 1)),
        np.full((rows, width), -1 if apart else 0, np.int32),
        np.full((rows, references), np.nan, np.float32),
    )

"""A batch as plain numpy arrays, as the data order gives it to the model.

Shapes: B sequences, T positions (`train.sequence_tokens`), P pieces of the row that has most of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

IGNORED = -100  # label of positions that are not trained


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents. Labels are shifted already: `labels[b, t]` is the
    token after `input_ids[b, t]`."""

    input_ids: np.ndarray  # int64 [B, T]
    labels: np.ndarray  # int64 [B, T], IGNORED in padding
    positions: (
        np.ndarray
    )  # int64 [B, T]; from 0 in each document piece if documents are kept apart, else 0..T-1
    documents: (
        np.ndarray
        # int32 [B, T], number of the piece within its row, -1 in padding; all 0 if documents are not kept apart
    )
    references: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    # float32 [B, P]: the reference's log-probability of each piece, nats; NaN if a row has fewer pieces. P is
    # 0 except for preference pairs.

    @property
    def target_tokens(self) -> int:
        """The number of trained positions."""
        return int((self.labels != IGNORED).sum())


def blank(rows: int, width: int, pad: int, apart: bool, references: int = 0) -> Batch:
    """A batch of padding, with room for `references` per row.

    If documents are kept apart, padding is a piece of its own with number -1.
    """
    return Batch(
        np.full((rows, width), pad, np.int64),
        np.full((rows, width), IGNORED, np.int64),
        np.tile(np.arange(width, dtype=np.int64), (rows, 1)),
        np.full((rows, width), -1 if apart else 0, np.int32),
        np.full((rows, references), np.nan, np.float32),
    )

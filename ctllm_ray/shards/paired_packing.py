"""Preference pairs are packed as `best_fit` packs documents, but both sides of a pair stand in one row."""

from __future__ import annotations

import numpy as np

from ctllm_ray.base.errors import InputError
from ctllm_ray.shards.packers.best_fit import BestFit
from ctllm_ray.shards.packing import Pieces


class Paired:
    """Keeps documents 2k and 2k + 1 in one row: `targets` int [documents], rows of `width`, a 64-bit seed.

    Raises `InputError` for a pair that is longer than a row.
    """

    def __init__(self, targets: np.ndarray, width: int, seed: int) -> None:
        both = targets.reshape(-1, 2).sum(1)
        if len(both) and both.max() > width:
            raise InputError(
                f"pair {int(both.argmax())} of these shards has {int(both.max())} targets; a row holds {width}",
                remedy="set tokens.conversations.max_tokens to at most train.sequence_tokens, "
                "or raise train.sequence_tokens",
            )
        self._targets, self._pairs = targets, BestFit(both, width, seed)
        self.fills = self._pairs.fills
        self.nbytes = self._pairs.nbytes + targets.nbytes

    def pieces(self, row: int) -> Pieces:
        """The pieces of a row: first, second, first, second, ... of its pairs, each a complete document."""
        pairs = self._pairs.pieces(row).documents
        documents = np.stack([2 * pairs, 2 * pairs + 1], 1).ravel()
        return Pieces(documents, np.ones_like(documents), self._targets[documents])

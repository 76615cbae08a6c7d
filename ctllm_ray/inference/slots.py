"""Assigns cache slots to sequences and reuses shared prefixes, so that each prefix is computed once.

A slot keeps its tokens after its request has ended, until another sequence needs it; the slot that was left
first is reused first. A new sequence is compared with all slots, in use or free, in one array operation. The
longest shared prefix is copied, which costs much less than computing it. If a running request is still
computing more of the shared prefix, the sequence waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Waiting for a prefix that another request computes pays from about so many tokens on.
WORTH_WAITING_TOKENS = 16


@dataclass(frozen=True)
class Place:
    """A slot for a sequence, and the slot whose first `tokens` it shares (possibly the same one)."""

    slot: int
    source: int
    tokens: int


class Slots:
    """The tokens of each slot. Those before `filled` have keys and values in the cache."""

    def __init__(self, count: int, capacity: int) -> None:
        self.ids_SC = np.full((count, capacity), -1, np.int32)
        self.filled_S = np.zeros(count, np.int64)
        self._promised_S = np.zeros(count, np.int64)  # end of the prompt that is being computed
        self._left_S = np.zeros(count, np.int64)  # when a request left the slot, by a counter; 0: never used
        self._free_S = np.ones(count, bool)
        self._clock = 0

    @property
    def count(self) -> int:
        """The number of slots."""
        return len(self.ids_SC)

    @property
    def free(self) -> int:
        """The number of slots that no request holds."""
        return int(self._free_S.sum())

    @property
    def used_tokens(self) -> int:
        """Filled positions in slots that requests hold."""
        return int(self.filled_S[~self._free_S].sum())

    def find(self, ids: Sequence[int], reusable: int) -> Place | None:
        """Finds a slot for a sequence that may reuse up to
        `reusable` tokens. None: no slot is free, or waiting pays."""
        if not self._free_S.any():
            return None
        shared_S = np.minimum(self._shared_prefixes(ids), reusable)
        ready_S = np.minimum(shared_S, self.filled_S)
        coming = int(np.minimum(shared_S, self._promised_S).max())
        source = int(ready_S.argmax())
        tokens = int(ready_S[source])
        if coming >= tokens + WORTH_WAITING_TOKENS:
            return None
        # If all tokens of a donor are shared (a continued conversation), the donor slot itself is taken.
        if tokens and self._free_S[source] and tokens == self.filled_S[source]:
            return Place(source, source, tokens)
        target = self._oldest(spared=source if tokens else -1)
        return Place(
            target, target if ready_S[target] == tokens else source, tokens
        )  # it may contain them already

    def take(self, place: Place, ids: Sequence[int]) -> None:
        """Assigns the slot to the sequence. The shared tokens count as filled."""
        self.ids_SC[place.slot, : len(ids)] = ids
        self.filled_S[place.slot] = place.tokens
        self._promised_S[place.slot] = len(ids)
        self._free_S[place.slot] = False

    def fill(self, slot: int, tokens: int) -> None:
        """Marks positions of the slot as computed."""
        self.filled_S[slot] = tokens

    def append(self, slot: int, ids: Sequence[int]) -> None:
        """Appends one id to the sequence."""
        self.ids_SC[slot, len(ids) - 1] = ids[-1]

    def leave(self, slot: int) -> None:
        """Frees the slot. Its filled tokens stay for reuse."""
        self._clock += 1
        self._left_S[slot] = self._clock
        self._promised_S[slot] = self.filled_S[slot]
        self._free_S[slot] = True

    def _shared_prefixes(self, ids: Sequence[int]) -> np.ndarray:
        """For each slot, the length of the prefix shared with the sequence, int64 [S]."""
        sequence = np.asarray(ids, np.int32)
        other_SN = self.ids_SC[:, : len(sequence)] != sequence
        return np.where(other_SN.any(axis=1), other_SN.argmax(axis=1), len(sequence))

    def _oldest(self, spared: int) -> int:
        """The free slot that was left first; `spared` only if it is the only one."""
        free = np.flatnonzero(self._free_S)
        others = free[free != spared]
        return int(min(others if len(others) else free, key=lambda slot: self._left_S[slot]))

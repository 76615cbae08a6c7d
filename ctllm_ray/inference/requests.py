"""Requests that an engine's thread computes, and how their results return to callers.

The thread and the callers' event loops meet at two points only: a list of waiting requests under a lock, and
one `call_soon_threadsafe` per step and loop that brings all new tokens (one for each token would wake the
loop 16 times). A caller that reads slowly finds all tokens since it last looked; no more than an answer's
length can pile up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ctllm_ray.base.errors import CtllmError, InputError
from ctllm_ray.inference.attention import SequencePiece
from ctllm_ray.inference.engine import Finish, Token
from ctllm_ray.inference.sampling import Chooser, LogprobQuery


class Inbox:
    """Where a coroutine waits for results of the thread. It belongs to the event
    loop in which it was created."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._tokens: list[Token] = []
        self._finish: Finish = ""
        self._error: CtllmError | None = None

    def deliver(self, tokens: Sequence[Token], finish: Finish, error: CtllmError | None) -> None:
        """Runs in the loop: adds tokens, marks the end, or sets the error."""
        self._tokens += tokens
        self._finish, self._error = finish, error
        self._ready.set()

    async def take(self) -> tuple[tuple[Token, ...], Finish]:
        """All results since the last call: at least one token, except at the end. Raises
        the error set by `deliver`."""
        await self._ready.wait()
        self._ready.clear()
        if self._error is not None:
            raise self._error
        tokens, self._tokens = tuple(self._tokens), []
        return tokens, self._finish


@dataclass(frozen=True)
class Delivery:
    """A result addressed to an inbox."""

    inbox: Inbox
    tokens: Sequence[Token] = ()
    finish: Finish = ""
    error: CtllmError | None = None


def deliver(deliveries: Sequence[Delivery]) -> None:
    """Delivers letters to their inboxes, from any thread."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Delivery]] = defaultdict(list)
    for letter in deliveries:
        by_loop[letter.inbox.loop].append(letter)
    for loop, some in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            loop.call_soon_threadsafe(_deliver_all, some)


def _deliver_all(deliveries: Sequence[Delivery]) -> None:
    for letter in deliveries:
        letter.inbox.deliver(letter.tokens, letter.finish, letter.error)


class Request:
    """Ids to compute in a slot, and which results are needed."""

    patient = False  # others are served before it

    def __init__(self, ids: Sequence[int], inbox: Inbox) -> None:
        self.ids = list(ids)
        self.inbox = inbox
        self.slot = -1  # none
        self.filled = 0  # number of `ids` whose keys and values are in the slot
        self.cached_tokens = 0  # of those, copied from another slot

    @property
    def target(self) -> int:
        """The number of ids to compute, as far as is known."""
        return len(self.ids)

    @property
    def wanted(self) -> int:
        """The first position whose logits are needed. Earlier ones may be copied from another request."""
        return len(self.ids) - 1

    @property
    def answering(self) -> bool:
        """True if the prompt is computed: each step now computes the one id of the step before."""
        return False

    def piece(self, most: int) -> SequencePiece:
        """The next ids to compute, at most `most`."""
        end = min(self.filled + most, self.target)
        rows = max(0, end - max(self.filled, self.wanted))
        return SequencePiece(self.slot, self.filled, self.ids[self.filled : end], rows)

    def add(self, tokens: Sequence[Token]) -> Delivery:
        """Takes the results of a step; returns the letter to the caller."""
        raise NotImplementedError


class GenerateRequest(Request):
    """Continues a prompt by at most `room` ids."""

    def __init__(self, ids: Sequence[int], inbox: Inbox, chooser: Chooser, room: int) -> None:
        super().__init__(ids, inbox)
        self.chooser, self._end = chooser, len(ids) + room
        self._prompt_tokens = len(ids)

    @property
    def answering(self) -> bool:
        """True once the first id came."""
        return len(self.ids) > self._prompt_tokens

    def add(self, tokens: Sequence[Token]) -> Delivery:
        """Takes the next id; returns the letter to the caller."""
        [token] = tokens
        self.ids.append(token.id)
        matcher = self.chooser.matcher
        if matcher is not None and matcher.error:
            what = f"the JSON schema is too complex for this answer: {matcher.error}"
            return Delivery(self.inbox, error=InputError(what, where="grammar", remedy="simplify the schema"))
        if token.id in self.chooser.sampling.stop_ids or (matcher is not None and matcher.ended):
            return Delivery(self.inbox, tokens, "stop")
        return Delivery(self.inbox, tokens, "length" if len(self.ids) == self._end else "")


class ScoreRequest(Request):
    """Computes log-probabilities of ids from `start` on. The last id needs no forward pass.

    Nobody watches them come one by one, as with an answer: they wait for prompts that are to be answered.
    """

    patient = True

    def __init__(
        self, ids: Sequence[int], inbox: Inbox, start: int, top: int, others: Sequence[int] = ()
    ) -> None:
        super().__init__(ids, inbox)
        self._top, self._others = top, tuple(others)
        self._start = start

    def queries(self, piece: SequencePiece) -> list[LogprobQuery]:
        """What to report for each row of a piece."""
        ids = self.ids[piece.end - piece.rows + 1 : piece.end + 1]
        results = [LogprobQuery(id_, self._top) for id_ in ids]
        if results and piece.end == self.target:
            results[-1] = LogprobQuery(ids[-1], self._top, self._others)
        return results

    @property
    def target(self) -> int:
        """All ids except the last."""
        return len(self.ids) - 1

    @property
    def wanted(self) -> int:
        """The position before `start`: it predicts the id at `start`."""
        return self._start - 1

    def add(self, tokens: Sequence[Token]) -> Delivery:
        """Takes more scored ids; returns the letter to the caller."""
        return Delivery(self.inbox, tokens, "stop" if self.filled == self.target else "")

"""An engine that answers from a script: what tests of everything above an engine talk to.

    ScriptedEngine()                              echoes: the answer is the prompt, over and over
    ScriptedEngine([[5, 6, 2], [7]])              these answers in turn, then from the first again; each ends the answer
    ScriptedEngine(delay_s=0.01)                  waits before each token
    ScriptedEngine(fails_after=3)                 raises `EngineFailed` after three tokens of each answer, and in `load`
    ScriptedEngine(slots=2, max_waiting=1)        two at a time, one waits, the next gets `Overloaded`
    ScriptedEngine(full=True)                     `Overloaded` for everyone

`seen` has the prompts and samplings that came, `cancelled` counts answers whose reader went away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import cycle, islice

from ctllm_ray.base.errors import EngineFailed, InputError, Overloaded
from ctllm_ray.inference.engine import EngineLoad, Finish, Output, Sampling, Token


class ScriptedEngine:
    """An `Engine` without a model. The log-probability of an id is -(1 + id % 7) / 4, whatever came
    before."""

    def __init__(
        self,
        answers: Sequence[Sequence[int]] = (),
        *,
        vocab_size: int = 1000,
        context_tokens: int = 64,
        delay_s: float = 0.0,
        fails_after: int | None = None,
        full: bool = False,
        slots: int = 4,
        max_waiting: int = 64,
    ) -> None:
        self.vocab_size, self.context_tokens = vocab_size, context_tokens
        self.seen: list[tuple[list[int], Sampling]] = []
        self.cancelled = 0
        self.delay_s, self.fails_after, self.full = delay_s, fails_after, full
        self._answers = cycle(answers) if answers else None
        self._slots, self._max_waiting = slots, max_waiting
        self._free = asyncio.Semaphore(slots)
        self._running: dict[int, int] = {}  # positions that each running answer fills, by its number
        self._asked = 0  # running and waiting

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """The next answer of the script, a token at a time."""
        self._check(ids, self.context_tokens - 1)
        number = len(self.seen)
        self.seen.append((list(ids), sampling))
        prompt = ids[: len(ids) - sampling.answer_prefix_tokens]
        script = list(next(self._answers) if self._answers else islice(cycle(prompt), self.context_tokens))
        script = script[sampling.answer_prefix_tokens :]
        room = min(sampling.max_tokens, self.context_tokens - len(ids))
        self._asked += 1
        finished = False
        try:
            async with self._free:
                for at, id_ in enumerate(script[:room]):
                    await self._wait(at)
                    self._running[number] = len(ids) + at + 1
                    ended = id_ in sampling.stop_ids or (at + 1 == len(script) < room)
                    finish: Finish = "stop" if ended else "length" if at + 1 == room else ""
                    finished = bool(finish)
                    yield Output((self._token(id_, sampling.top_logprobs),), finish)
                    if finish:
                        return
        finally:
            self._asked -= 1
            self._running.pop(number, None)
            self.cancelled += not finished

    async def logprobs(
        self, ids: Sequence[int], start: int = 1, top: int = 0, others: Sequence[int] = ()
    ) -> list[Token]:
        """Log-probabilities by the rule above."""
        self._check(ids, self.context_tokens)
        await self._wait(0)
        found = [self._token(id_, top) for id_ in ids[start:]]
        last = [replace(token, top=(*token.top, *((i, _logprob(i)) for i in others))) for token in found[-1:]]
        return [*found[:-1], *last]

    async def load(self) -> EngineLoad:
        """What the script has running."""
        if self.fails_after is not None:
            raise EngineFailed("the script says so")
        running = len(self._running)
        used, there = sum(self._running.values()), self._slots * self.context_tokens
        return EngineLoad(running, self._asked - running, self._slots, used, there, 0.0)

    def _check(self, ids: Sequence[int], most: int) -> None:
        if self.full or self._asked >= self._slots + self._max_waiting:
            raise Overloaded("the queue is full", retry_s=2.0)
        if not ids or len(ids) > most:
            raise InputError(f"a prompt of {len(ids)} tokens")
        if not all(0 <= id_ < self.vocab_size for id_ in ids):
            raise InputError("an id that there is not")

    async def _wait(self, at: int) -> None:
        await asyncio.sleep(self.delay_s)
        if self.fails_after is not None and at >= self.fails_after:
            raise EngineFailed("the script says so")

    def _token(self, id_: int, top: int) -> Token:
        """The id and the `top` most likely ones: 0, 7, 14 ... come first."""
        likely = sorted(range(min(self.vocab_size, 7 * top + 7)), key=lambda i: (i % 7, i))[:top]
        return Token(id_, _logprob(id_), tuple((i, _logprob(i)) for i in likely))


def _logprob(id_: int) -> float:
    return -(1 + id_ % 7) / 4

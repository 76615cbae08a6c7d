"""Who knows everything, who guesses, and who notes what it was asked: subjects without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ctllm_ray.base.errors import Overloaded
from ctllm_ray.evaluate.models.answer_cache import AnswerCache, key
from ctllm_ray.evaluate.models.batching import RequestBatching
from ctllm_ray.evaluate.models.concurrency import ConcurrentRequests, Runner, Tell, own_loop
from ctllm_ray.evaluate.models.model_under_test import Continuation, ModelUnderTest
from ctllm_ray.inference.engine import Token
from ctllm_ray.tokenizer.tokenizer import Tokenizer


class Oracle:
    """Knows the right answer to each question: `answers` by question. The question that was asked last
    counts."""

    context_tokens = 100_000

    def __init__(self, tokenizer: Tokenizer, answers: Mapping[str, str]) -> None:
        self._tokenizer, self._answers = tokenizer, answers

    async def logprobs(self, ids: Sequence[int], start: int, others: Sequence[int]) -> list[Token]:
        rest = [self._token(ids, end) for end in range(start, len(ids) - 1)]
        last = {id_: self._logprob([*ids[:-1], id_]) for id_ in (ids[-1], *others)}
        best = max(last, key=lambda id_: last[id_])
        told = ((id_, last[id_]) for id_ in others)
        return [*rest, Token(ids[-1], last[ids[-1]], ((best, last[best]), *told))]

    def _token(self, ids: Sequence[int], at: int) -> Token:
        return Token(ids[at], 0.0, ((ids[at], 0.0),))

    def _logprob(self, ids: Sequence[int]) -> float:
        text = self._tokenizer.decode(list(ids))
        return 0.0 if text.endswith(self._answer(text)) else -50.0

    def _answer(self, text: str) -> str:
        return self._answers[max(self._answers, key=text.rfind)]

    async def generate(self, ids: Sequence[int], wanted: Continuation) -> str:
        return self._answer(self._tokenizer.decode(list(ids)))


class Guessing:
    """Finds one thing as likely as another, by a hash of what it is asked."""

    context_tokens = 100_000

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    async def logprobs(self, ids: Sequence[int], start: int, others: Sequence[int]) -> list[Token]:
        rest = [Token(id_, -1.0, ((id_, -1.0),)) for id_ in ids[start:-1]]
        last = {id_: self._drawn(ids[:-1], id_) for id_ in (ids[-1], *others)}
        best = max(last, key=lambda id_: last[id_])
        told = ((id_, last[id_]) for id_ in others)
        return [*rest, Token(ids[-1], last[ids[-1]], ((best, last[best]), *told))]

    def _drawn(self, before: Sequence[int], id_: int) -> float:
        return -float(np.random.default_rng(int(key(self._seed, list(before), id_)[:15], 16)).random())

    async def generate(self, ids: Sequence[int], wanted: Continuation) -> str:
        return str(self._drawn(ids, 0))


class Noting:
    """Passes everything on to another subject and notes it; `fails_at` of its requests raises `error`."""

    def __init__(self, subject: ModelUnderTest, fails_at: int = -1, error: Exception | None = None) -> None:
        self.context_tokens = subject.context_tokens
        self.asked: list[tuple[int, ...]] = []
        self.most_at_once = 0
        self._subject, self._fails_at, self._error, self._now = subject, fails_at, error, 0

    async def logprobs(self, ids: Sequence[int], start: int, others: Sequence[int]) -> list[Token]:
        await self._note(ids)
        return await self._subject.logprobs(ids, start, others)

    async def generate(self, ids: Sequence[int], wanted: Continuation) -> str:
        await self._note(ids)
        return await self._subject.generate(ids, wanted)

    async def _note(self, ids: Sequence[int]) -> None:
        self.asked.append(tuple(ids))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        if len(self.asked) == self._fails_at and self._error is not None:
            raise self._error


@contextmanager
def asking(
    subject: ModelUnderTest, folder: Path, at_once: int = 4, tell: Tell = lambda kind, done, total: None
) -> Iterator[RequestBatching]:
    """A subject that is asked in a loop of its own; answers are kept in the folder."""
    with own_loop() as loop:
        yield RequestBatching(
            subject, ConcurrentRequests(Runner(loop), AnswerCache(str(folder / "answers")), at_once, tell)
        )


BUSY = Overloaded("the queue is full", retry_s=0.0)

"""Batches requests to a model in the order in which they share most prefixes.

Prompts are sorted by their ids, so prompts with a common prefix are neighbours, and an engine with a prefix
cache finds the examples of a subject there. Continuations of one prompt that differ in their last token only,
such as the letters of an exam, are one request. What does not fit the context gets no result and is counted
by the caller. No prompt is ever cut.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ctllm_ray.base.errors import InputError
from ctllm_ray.evaluate.models.answer_cache import key
from ctllm_ray.evaluate.models.concurrency import ConcurrentRequests
from ctllm_ray.evaluate.models.model_under_test import Continuation, ModelUnderTest

Ids = tuple[int, ...]
Prompt = tuple[Ids, Continuation]


@dataclass(frozen=True)
class Scored:
    """The log-probability of a continuation in nats, and whether it is greedy."""

    logprob: float
    greedy: bool


@dataclass(frozen=True)
class _Scores:
    """Requests scores of the ids `last` that may follow `ids`; `start` is the first id that counts."""

    ids: Ids
    start: int
    last: Ids


class RequestBatching:
    """Sends requests to a model under evaluation."""

    def __init__(self, model: ModelUnderTest, requests: ConcurrentRequests) -> None:
        self.context_tokens = model.context_tokens
        self._model, self._requests = model, requests

    def fits(self, tokens: int) -> bool:
        """True if so many tokens leave room for the one more that an API requires."""
        return tokens < self.context_tokens

    def refuse_too_long(self, benchmark: str) -> InputError:
        """The error for a benchmark without any item that fits the context."""
        return InputError(
            f"all items are too long for the context of {self.context_tokens:,} tokens, including the answer",
            where=benchmark,
            remedy="use fewer shots or answer_tokens, or a model with a longer context "
            "(serve.context_tokens)",
        )

    def scores(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored | None]:
        """Scores each continuation after its context, at least one id each; None if they do not fit."""
        last: dict[tuple[Ids, int], dict[int, None]] = {}
        for context, continuation in pairs:
            if continuation and self.fits(len(context) + len(continuation)):
                last.setdefault(_group(context, continuation), {})[continuation[-1]] = None
        requests = {group: _Scores(*group, tuple(sorted(ids))) for group, ids in last.items()}
        self._requests.ask(
            "scores", sorted(requests.values(), key=lambda each: each.ids), _scores_key, self._request_score
        )
        return [self._score(requests, context, continuation) for context, continuation in pairs]

    def texts(self, prompts: Sequence[tuple[Sequence[int], Continuation]]) -> list[str | None]:
        """Generates a text after each prompt; None if prompt and maximum answer do not fit."""
        requests = [(tuple(ids), wanted) for ids, wanted in prompts]
        fitting = {prompt for prompt in requests if self.fits(len(prompt[0]) + prompt[1].max_tokens)}
        self._requests.ask(
            "answers", sorted(fitting, key=lambda prompt: prompt[0]), _text_key, self._generate
        )
        return [
            self._requests.answered[_text_key(prompt)] if prompt in fitting else None for prompt in requests
        ]

    def _score(
        self, requests: dict[tuple[Ids, int], _Scores], context: Sequence[int], continuation: Sequence[int]
    ) -> Scored | None:
        if not self.fits(len(context) + len(continuation)):
            return None
        if not continuation:
            return Scored(0.0, True)
        request = requests[_group(context, continuation)]
        (before, before_greedy), likeliest, by_last_id = self._requests.answered[_scores_key(request)]
        return Scored(
            before + by_last_id[str(continuation[-1])], before_greedy and likeliest == continuation[-1]
        )

    async def _request_score(self, request: _Scores) -> Any:
        """Log-probability of all ids but the last, and whether they
        are greedy; the most likely last id; scores by last id."""
        first, *others = request.last
        *before, last = await self._model.logprobs([*request.ids, first], request.start, others)
        by_last_id = {str(id_): logprob for id_, logprob in last.top[1:]} | {str(last.id): last.logprob}
        greedy = all(token.top[0][0] == token.id for token in before)
        return [math.fsum(token.logprob for token in before), greedy], last.top[0][0], by_last_id

    async def _generate(self, prompt: Prompt) -> str:
        return await self._model.generate(*prompt)


def _group(context: Sequence[int], continuation: Sequence[int]) -> tuple[Ids, int]:
    """The common part of continuations that differ in their last id only."""
    return (*context, *continuation[:-1]), len(context)


def _scores_key(request: _Scores) -> str:
    return key("scores", array("q", request.ids).tobytes().hex(), request.start, request.last)


def _text_key(prompt: Prompt) -> str:
    return key("text", array("q", prompt[0]).tobytes().hex(), asdict(prompt[1]))

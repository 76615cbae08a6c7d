"""The interface of a model under evaluation: it scores ids and continues them, in process or behind an API.

It receives ids, never text, so a score does not depend on who tokenizes: a model scores the same in process
and through the API. The caller retries requests that the model cannot accept now (`Overloaded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from ctllm_ray.inference.engine import Engine, Sampling, Token
from ctllm_ray.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Continuation:
    """A request to continue a prompt: until one of these texts, the end of the answer, or the token limit."""

    until: tuple[str, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class ModelUnderTest(Protocol):
    """Raises `Overloaded` if the request must be retried later, `EngineFailed` if
    the model no longer answers."""

    context_tokens: int  # prompt and answer together

    async def logprobs(self, ids: Sequence[int], start: int, others: Sequence[int]) -> list[Token]:
        """Like `Engine.logprobs`, with the most likely id at each position."""
        ...

    async def generate(self, ids: Sequence[int], wanted: Continuation) -> str:
        """The text after a prompt, without the stop text."""
        ...


class EngineModel:
    """An engine with the tokenizer of its model. `stop_ids` end an answer."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        self.context_tokens = engine.context_tokens
        self._engine, self._tokenizer, self._stop_ids = engine, tokenizer, stop_ids

    async def logprobs(self, ids: Sequence[int], start: int, others: Sequence[int]) -> list[Token]:
        """Like `ModelUnderTest.logprobs`."""
        return await self._engine.logprobs(ids, start, 1, others)

    async def generate(self, ids: Sequence[int], wanted: Continuation) -> str:
        """Like `ModelUnderTest.generate`; stops the engine as soon as a text of `until` appears."""
        sampling = Sampling(
            wanted.max_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            seed=wanted.seed,
            stop_ids=self._stop_ids,
        )
        came: list[int] = []
        async with aclosing(self._engine.generate(ids, sampling)) as outputs:
            async for output in outputs:
                came += [token.id for token in output.tokens]
                text = self._tokenizer.decode([id_ for id_ in came if id_ not in self._stop_ids])
                if any(stop in text for stop in wanted.until):
                    break
        return cut_at_stop(text, wanted.until)


def cut_at_stop(text: str, until: Sequence[str]) -> str:
    """The text before the first of these."""
    for stop in until:
        text = text.split(stop, 1)[0] if stop else text
    return text

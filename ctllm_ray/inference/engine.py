"""The interface of engines: token ids in, token ids out. An engine knows neither text nor HTTP.

One contract for every engine, held by one test: the torch engine (torch_engine.py), vLLM on a
GPU cluster, a replica somewhere behind Ray Serve, and the scripted one of the tests. Evaluation
and the API see nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

#: Empty: continues. "stop": an id of `stop_ids` came. "length": `max_tokens` or the context is used up.
Finish = Literal["", "stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token, in this order: penalties, grammar, temperature, top_k, top_p, min_p.

    The defaults change nothing: they draw from the model's own distribution.
    """

    max_tokens: int
    temperature: float = 1.0  # 0: the most likely id; on ties the lowest
    top_p: float = 1.0  # the smallest set of most likely ids with this total probability
    top_k: int = 0  # 0: all ids
    min_p: float = 0.0  # only ids with at least this share of the highest probability
    # divides positive logits of ids in prompt and answer (Keskar et al. 2019)
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0  # subtracted from logits of ids in the answer (OpenAI)
    frequency_penalty: float = 0.0  # the same for each time that an id is in the answer
    seed: int | None = None  # same seed, prompt and engine give the same draws, whatever else is served
    stop_ids: frozenset[int] = frozenset()  # each ends the answer and is part of it
    top_logprobs: int = 0  # number of most likely ids to return with each token
    grammar: str = ""  # a JSON schema, as JSON text, that the answer must follow
    # so many ids at the end of the prompt belong to the answer: it continues from another engine
    answer_prefix_tokens: int = 0


@dataclass(frozen=True)
class Token:
    """An id and its log-probability in nats under the model itself, before
    penalties, temperature and filters."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # most likely ids with their log-probabilities, descending


@dataclass(frozen=True)
class Output:
    """One or more new tokens; `finish` is set in the last output."""

    tokens: tuple[Token, ...]
    finish: Finish = ""
    cached_tokens: int = 0  # in the first output: prompt tokens taken from the cache of another request


@dataclass(frozen=True)
class EngineLoad:
    """How busy an engine is."""

    running: int  # requests that hold a slot
    waiting: int  # requests that wait for a slot
    slots: int
    used_tokens: int  # cache positions that running requests use
    cache_tokens: int  # all cache positions
    step_age_s: float  # since the last step ended; 0 if there is no work
    refusing: int = 0  # replicas that refuse requests because their model's folder was replaced


class Engine(Protocol):
    """Raises `InputError` for ids outside the vocabulary or a prompt longer than the context.

    Raises `Overloaded` if the queue is full, `EngineFailed` if the engine died or is stuck.
    """

    context_tokens: int  # prompt and answer together
    vocab_size: int

    def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """Generates the answer to a prompt of at least one id. Closing the
        iterator frees the slot at once."""
        ...

    async def logprobs(
        self, ids: Sequence[int], start: int = 1, top: int = 0, others: Sequence[int] = ()
    ) -> list[Token]:
        """Scores the ids from `start` (at least 1) on, each given
        all earlier ones; returns `top` most likely ids too.

        `others` might stand in the place of the last id: its token tells them too, after the most likely
        ones. So the choices of a question that are one token each take one request.
        """
        ...

    async def load(self) -> EngineLoad:
        """The current load. Raises `EngineFailed` if the engine no longer works: the health check."""
        ...

"""What serves a model: token ids in, token ids out; an engine knows neither text nor HTTP.

One contract for every engine, held by one test: the torch engine (torch_engine.py), vLLM on a GPU cluster, a
replica somewhere behind Ray Serve, and the scripted one of the tests. Evaluation and the API see nothing
else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Finish = Literal[
    "", "stop", "length"
]  # empty: goes on; an id of `stop_ids` came; `max_tokens` or the context is full


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, in this order: penalties, grammar, temperature, top_k, top_p, min_p.

    The defaults change nothing: they draw from the model's own distribution.
    """

    max_tokens: int
    temperature: float = 1.0  # 0: the most likely id, and the lowest of several
    top_p: float = 1.0  # the least set of most likely ids with this probability together
    top_k: int = 0  # 0: all ids
    min_p: float = 0.0  # ids with at least this share of the most likely one's probability
    # divides positive logits of ids in prompt and answer (Keskar et al. 2019)
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0  # subtracted from logits of ids in the answer (OpenAI)
    frequency_penalty: float = 0.0  # the same for each time that an id is in the answer
    seed: int | None = None  # the same seed, prompt and engine: the same draws, whoever else is served
    stop_ids: frozenset[int] = frozenset()  # one of them ends the answer; it is given too
    top_logprobs: int = 0  # most likely ids told with each token
    grammar: str = ""  # a JSON schema as JSON that the answer must follow
    # so many ids at the prompt's end are the answer's beginning: it goes on from another engine
    answered: int = 0


@dataclass(frozen=True)
class Token:
    """An id and its log-probability in nats: the model's own, before penalties, temperature and filters."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # most likely ids with theirs, falling


@dataclass(frozen=True)
class Output:
    """What came since the output before: one token or more; `finish` is set in the last."""

    tokens: tuple[Token, ...]
    finish: Finish = ""
    cached_tokens: int = 0  # in the first output: of the prompt, computed for another request before


@dataclass(frozen=True)
class EngineLoad:
    """How busy an engine is."""

    running: int  # requests that hold a slot
    waiting: int  # requests that wait for one
    slots: int
    used_tokens: int  # positions of the cache that running requests fill
    cache_tokens: int  # positions there are
    step_age_s: float  # since the last step ended; 0 where nothing is to do
    refusing: int = 0  # replicas that answer nobody, since their model's folder was replaced


class Engine(Protocol):
    """Raises `InputError` for ids out of the vocabulary or a prompt over the context, `Overloaded` where the
    queue is full, `EngineFailed` where the engine died or is stuck."""

    context_tokens: int  # prompt and answer together
    vocab_size: int

    def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """The answer to a prompt of at least one id. Closing the iterator frees the slot at once."""
        ...

    async def logprobs(
        self, ids: Sequence[int], start: int = 1, top: int = 0, others: Sequence[int] = ()
    ) -> list[Token]:
        """The ids from `start` (at least 1) on, each given all those before it; with `top` most likely ids.

        `others` might stand in the place of the last id: its token tells them too, after the most likely
        ones. So the choices of a question that are one token each take one request.
        """
        ...

    async def load(self) -> EngineLoad:
        """How busy it is now. Raises `EngineFailed` where it works no more: the health check."""
        ...

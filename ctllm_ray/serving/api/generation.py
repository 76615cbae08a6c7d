"""Runs a request on an engine: yields pieces of text with log-probabilities, for each choice.

Several choices of one request are computed at the same time, at most `width` of them, so that one large
request does not fill the queue. None runs ahead of the reader by more than a piece: a slow client holds up
its own answer, and what the engine computes meanwhile is bounded by the context. Whoever closes `pieces`
frees all slots at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar, cast

from ctllm_ray.inference.engine import Finish, Output, Token
from ctllm_ray.inference.stream import TextStream
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.keys import ApiKey
from ctllm_ray.serving.api.metrics import Watch
from ctllm_ray.serving.api.parse_request import GenerationPlan

_ENDED = Output((), "stop")  # the last output of an engine that ended silently

T = TypeVar("T")


@dataclass(frozen=True)
class TextPiece:
    """New text of choice `index`. If log-probabilities are requested, also its tokens and
    their offsets in the text.

    The first token of a prompt has log-probability nan.
    """

    index: int
    text: str
    tokens: tuple[Token, ...] = ()
    offsets: tuple[int, ...] = ()
    finish: Finish = ""


class Generation:
    """A running request. Its counts grow while `pieces` is read."""

    def __init__(self, served: AppState, plan: GenerationPlan, key: ApiKey, watch: Watch) -> None:
        self._served, self._plan, self._key, self._watch = served, plan, key, watch
        self.prompt_tokens = sum(map(len, plan.prompts))
        self.completion_tokens = 0
        self.cached_tokens = 0
        self._began = False

    @property
    def choices(self) -> int:
        """The total number of answers."""
        return self._plan.choices

    @property
    def most_tokens(self) -> int:
        """Tokens that the request may use: its prompts, and the maximum of all its answers."""
        return self.prompt_tokens + self.choices * self._plan.sampling.max_tokens

    async def pieces(self) -> AsyncGenerator[TextPiece]:
        """The pieces of all choices as they arrive; the last piece of each choice has `finish`.

        What the request may take is reserved before, and what it took is counted at the end, however it ends.
        """
        limits, id_ = self._served.limits, secrets.token_hex(8)
        try:
            await limits.reserve(self._key, id_, self.most_tokens)
            sources = [self._choice(index) for index in range(self.choices)]
            together = sources[0] if len(sources) == 1 else merge(sources, self._served.serve.slots)
            async with aclosing(together):
                async for piece in together:
                    yield piece
        finally:
            taken = (
                self.prompt_tokens + self.completion_tokens if self._began else 0
            )  # refused requests cost nothing
            if self._began:
                self._watch.count_answer(self.prompt_tokens, self.cached_tokens, self.completion_tokens)
            await asyncio.shield(limits.settle(self._key, id_, taken))  # also if the client has disconnected

    async def _choice(self, index: int) -> AsyncGenerator[TextPiece]:
        prompt = index // self._plan.n
        ids, at = self._plan.prompts[prompt], 0
        if self._plan.echo:
            piece, at = await self._echo(index, ids, self._plan.echo[prompt])
            yield piece
        if not self._plan.sampling.max_tokens:
            yield TextPiece(index, "", finish="length")
            return
        text, finish = TextStream(self._served.tokenizer, self._plan.stop), ""
        last = 0.0
        async with aclosing(self._outputs(ids, index)) as outputs:
            while not finish:
                with self._watch.engine():
                    output = await anext(outputs, _ENDED)
                self._count(output)
                last = self._watch.came(len(output.tokens), last)
                said = text.push(
                    [token.id for token in output.tokens if token.id not in self._plan.sampling.stop_ids]
                )
                finish = "stop" if text.stopped else output.finish
                said += text.finish() if finish else ""
                offsets, at = self._place_tokens(output.tokens, at)
                yield TextPiece(index, said, output.tokens if offsets else (), offsets, finish)

    def _outputs(self, ids: list[int], index: int) -> AsyncGenerator[Output]:
        sampling = self._plan.sampling
        if sampling.seed is not None:  # else all n answers would be equal
            sampling = replace(sampling, seed=derive_seed(sampling.seed, index))
        return cast(AsyncGenerator[Output], self._served.engine.generate(ids, sampling))

    def _count(self, output: Output) -> None:
        self._began = True
        self.completion_tokens += len(output.tokens)
        self.cached_tokens += output.cached_tokens

    async def _echo(self, index: int, ids: list[int], text: str) -> tuple[TextPiece, int]:
        """The prompt as the first piece of an answer, and the offset of its end."""
        if self._plan.top < 0:
            return TextPiece(index, text), len(text)
        with self._watch.engine():
            known = await self._served.engine.logprobs(ids, 1, self._plan.top) if len(ids) > 1 else []
        self._began = True
        tokens = (Token(ids[0], math.nan), *known)
        offsets, at = self._place_tokens(tokens, -self._put_in_front(ids, text))
        return TextPiece(index, text, tokens, offsets), at

    def _place_tokens(self, tokens: Sequence[Token], at: int) -> tuple[tuple[int, ...], int]:
        """The offsets of tokens, and the end of the last; empty if no log-probabilities are requested."""
        if self._plan.top < 0:
            return (), at
        offsets, at = self._served.pieces.offsets([token.id for token in tokens], at)
        return tuple(offsets), at

    def _put_in_front(self, ids: list[int], text: str) -> int:
        """1 if the tokenizer adds a leading space that the text does not have, else 0."""
        first = next((content for id_ in ids if (content := self._served.pieces.content(id_))), b"")
        return int(first.startswith(b" ") and not text.startswith(" "))


def derive_seed(seed: int, index: int) -> int:
    """The seed of choice `index`, in [0, 2**63). The first choice uses the request's own seed.

    Hashed, since seed + index would make choices of neighbouring seeds equal.
    """
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1 if index else seed


async def merge(sources: Sequence[AsyncGenerator[T]], width: int) -> AsyncGenerator[T]:
    """Merges items of several sources as they arrive, at
    most `width` open at a time. The first error ends all."""
    ahead = iter(sources)
    pending = {asyncio.ensure_future(anext(source)): source for source in islice(ahead, width)}
    try:
        while pending:
            for came in (await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED))[0]:
                source = pending.pop(came)
                try:
                    item = came.result()
                except StopAsyncIteration:
                    pending |= {asyncio.ensure_future(anext(source)): source for source in islice(ahead, 1)}
                    continue
                pending[asyncio.ensure_future(anext(source))] = source
                yield item
    finally:
        for waiting in pending:
            waiting.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for source in sources:
            await source.aclose()

"""Formats pieces of an answer in OpenAI's two formats, whole or as server-sent events.

A stream begins when its first piece is there, so what an engine refuses still gets its own status. What goes
wrong later ends the stream with an `error` event and without `[DONE]`: a client cannot take half an answer
for a whole one.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from pydantic import BaseModel

from ctllm_ray.base.errors import CtllmError
from ctllm_ray.inference.engine import Finish
from ctllm_ray.serving.api import errors, responses
from ctllm_ray.serving.api.generation import Generation, TextPiece
from ctllm_ray.serving.api.token_names import TokenNames

DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """The format of an answer in one of the two APIs."""

    def opening(self, index: int) -> list[BaseModel]:
        """The events before the first piece of a choice."""
        ...

    def part(self, piece: TextPiece) -> BaseModel:
        """A piece as a stream event."""
        ...

    def last(self, usage: responses.Usage) -> BaseModel:
        """The token counts at the end of a stream."""
        ...

    def whole(self, choices: Sequence[TextPiece], usage: responses.Usage) -> BaseModel:
        """The whole answer."""
        ...


class Completions:
    """The format of /v1/completions; `top` as in `GenerationPlan`."""

    def __init__(self, model: str, pieces: TokenNames, top: int) -> None:
        self._pieces, self._top = pieces, top
        self._head = _head("cmpl", model)

    def opening(self, index: int) -> list[BaseModel]:
        """None."""
        return []

    def part(self, piece: TextPiece) -> BaseModel:
        return self._completion([piece], None)

    def last(self, usage: responses.Usage) -> BaseModel:
        return self._completion([], usage)

    def whole(self, choices: Sequence[TextPiece], usage: responses.Usage) -> BaseModel:
        return self._completion(choices, usage)

    def _completion(self, pieces: Sequence[TextPiece], usage: responses.Usage | None) -> responses.Completion:
        choices = [
            responses.CompletionChoice(
                index=piece.index,
                text=piece.text,
                logprobs=self._logprobs(piece) if self._top >= 0 else None,
                finish_reason=_reason(piece.finish),
            )
            for piece in pieces
        ]
        return responses.Completion(**self._head, choices=choices, usage=usage)

    def _logprobs(self, piece: TextPiece) -> responses.CompletionLogprobs:
        name, first = self._pieces.name, [math.isnan(token.logprob) for token in piece.tokens]
        tops = [
            None
            if is_first
            # of tokens with the same name, keep the more likely
            else {name(id_): logprob for id_, logprob in reversed(token.top)}
            for is_first, token in zip(first, piece.tokens, strict=True)
        ]
        return responses.CompletionLogprobs(
            tokens=[name(token.id) for token in piece.tokens],
            token_logprobs=[
                None if is_first else token.logprob
                for is_first, token in zip(first, piece.tokens, strict=True)
            ],
            top_logprobs=tops if self._top > 0 else None,
            text_offset=list(piece.offsets),
        )


class Chats:
    """The format of /v1/chat/completions; `top` as in `GenerationPlan`."""

    def __init__(self, model: str, pieces: TokenNames, top: int) -> None:
        self._pieces, self._top = pieces, top
        self._head = _head("chatcmpl", model)

    def opening(self, index: int) -> list[BaseModel]:
        """The role of the speaker."""
        return [
            self._chunk(
                [
                    responses.ChatPart(
                        index=index, delta=responses.AssistantMessage(role="assistant", content="")
                    )
                ]
            )
        ]

    def part(self, piece: TextPiece) -> BaseModel:
        said = (
            responses.AssistantMessage(content=piece.text)
            if piece.text or not piece.finish
            else responses.AssistantMessage()
        )
        logprobs, reason = self._logprobs(piece), _reason(piece.finish)
        return self._chunk(
            [responses.ChatPart(index=piece.index, delta=said, logprobs=logprobs, finish_reason=reason)]
        )

    def last(self, usage: responses.Usage) -> BaseModel:
        return self._chunk([], usage)

    def whole(self, choices: Sequence[TextPiece], usage: responses.Usage) -> BaseModel:
        results = [
            responses.ChatChoice(
                index=piece.index,
                message=responses.AssistantMessage(role="assistant", content=piece.text),
                logprobs=self._logprobs(piece),
                finish_reason=_reason(piece.finish) or "stop",
            )
            for piece in choices
        ]
        return responses.Chat(**self._head, choices=results, usage=usage)

    def _chunk(
        self, parts: list[responses.ChatPart], usage: responses.Usage | None = None
    ) -> responses.ChatChunk:
        return responses.ChatChunk(**self._head, choices=parts, usage=usage)

    def _logprobs(self, piece: TextPiece) -> responses.ChatLogprobs | None:
        if self._top < 0:
            return None
        content = [
            responses.ChatLogprob(
                **self._format_logprob(token.id, token.logprob),
                top_logprobs=[responses.TopLogprob(**self._format_logprob(*t)) for t in token.top],
            )
            for token in piece.tokens
        ]
        return responses.ChatLogprobs(content=content)

    def _format_logprob(self, id_: int, logprob: float) -> dict:
        return {"token": self._pieces.name(id_), "logprob": logprob, "bytes": list(self._pieces.content(id_))}


def _head(kind: str, model: str) -> dict[str, Any]:
    """The fields that begin every part of an answer."""
    return {"id": f"{kind}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}


def _reason(finish: Finish) -> responses.Reason | None:
    return finish or None


def usage_of(answer: Generation) -> responses.Usage:
    """The token counts so far. A prompt counts once, however many answers it has."""
    return responses.Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        prompt_tokens_details=responses.CachedTokens(cached_tokens=answer.cached_tokens),
    )


async def whole(shape: Shape, answer: Generation) -> bytes:
    """The whole answer as JSON."""
    parts: list[list[TextPiece]] = [[] for _ in range(answer.choices)]
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            parts[piece.index].append(piece)
    return _json(shape.whole([_join_pieces(pieces) for pieces in parts], usage_of(answer)))


async def events(
    shape: Shape, answer: Generation, pieces: AsyncGenerator[TextPiece], with_usage: bool
) -> AsyncGenerator[bytes]:
    """The answer as server-sent events."""
    opened: set[int] = set()
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                for model in () if piece.index in opened else shape.opening(piece.index):
                    yield _event(model)
                opened.add(piece.index)
                if piece.text or piece.finish or piece.tokens:  # else nothing is certain yet
                    yield _event(shape.part(piece))
        if with_usage:
            yield _event(shape.last(usage_of(answer)))
        yield DONE
    except CtllmError as error:
        yield format_error(error)
    except Exception:
        yield _event(errors.problem(500, "internal server error", "internal_error"))
        raise


def format_error(error: CtllmError) -> bytes:
    """The event that ends a failed stream."""
    return _event(errors.problem_of(error))


def _join_pieces(pieces: Sequence[TextPiece]) -> TextPiece:
    """Joins the pieces of a choice."""
    return TextPiece(
        pieces[-1].index,
        "".join(piece.text for piece in pieces),
        tuple(token for piece in pieces for token in piece.tokens),
        tuple(offset for piece in pieces for offset in piece.offsets),
        pieces[-1].finish,
    )


def _event(model: BaseModel) -> bytes:
    return b"data: " + _json(model) + b"\n\n"


def _json(model: BaseModel) -> bytes:
    """JSON on one line, also for clients that treat U+0085, U+2028 and U+2029 as line ends."""
    plain = model.model_dump_json(by_alias=True).encode()
    for character in ("\x85", "\u2028", "\u2029"):
        plain = plain.replace(character.encode(), b"\\u%04x" % ord(character))
    return plain


async def after(first: TextPiece, pieces: AsyncGenerator[TextPiece]) -> AsyncGenerator[TextPiece]:
    """The pieces, preceded by one that was already read."""
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece

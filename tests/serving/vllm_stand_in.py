"""What stands for vLLM 0.29 where it cannot be installed: the same requests, the same answers, over an engine
of ours.

Fields and shapes are those of vLLM's `CompletionRequest` and of the chunks of its stream; an unknown field is
refused.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ctllm_ray.base.errors import InputError
from ctllm_ray.inference.engine import Engine, Sampling, Token


class CompletionRequest(BaseModel):
    """The fields that we use."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    prompt: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    stop_token_ids: list[int]
    ignore_eos: bool
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    return_tokens_as_token_ids: bool
    return_token_ids: bool
    add_special_tokens: bool
    skip_special_tokens: bool
    structured_outputs: dict[str, Any] | None = None
    stream: bool = False


class Whole(BaseModel):
    """An answer that is not streamed, or an error."""

    choices: list[dict[str, Any]] = []
    error: dict[str, Any] | None = None


class ChoiceLogprobs(BaseModel):
    tokens: list[str] = Field(default_factory=list)
    token_logprobs: list[float | None] = Field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = Field(default_factory=list)


class StandIn:
    """vLLM's completions over another engine; `asked` has the requests that came."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked: list[CompletionRequest] = []

    async def completions(self, plain: dict[str, Any]) -> AsyncGenerator[Any]:
        """Lines of a stream, several at a time, or one whole answer."""
        asked = CompletionRequest.model_validate(plain)
        self.asked.append(asked)
        try:
            if asked.stream:
                async for line in self._streamed(asked):
                    yield [line]
                yield ["data: [DONE]\n\n"]
            else:
                yield await self._whole(asked)
        except InputError as error:
            yield Whole(error={"message": str(error), "type": "BadRequestError", "code": 400})

    async def _streamed(self, asked: CompletionRequest) -> AsyncGenerator[str]:
        async for output in self._engine.generate(asked.prompt, _sampling(asked)):
            logprobs = _logprobs(output.tokens, asked.logprobs or 0).model_dump()
            choice = {
                "index": 0,
                "text": "",
                "token_ids": [token.id for token in output.tokens],
                "logprobs": logprobs,
            }
            yield f"data: {json.dumps({'choices': [choice | {'finish_reason': output.finish or None}]})}\n\n"

    async def _whole(self, asked: CompletionRequest) -> Whole:
        top = asked.logprobs or 0
        scored = await self._engine.logprobs(
            [*asked.prompt, 0], len(asked.prompt), top, asked.logprob_token_ids or []
        )
        [place] = scored
        chosen = Token(0, place.logprob, place.top)
        choice: dict[str, Any] = {"index": 0, "text": "", "token_ids": [0], "finish_reason": "length"}
        logprobs = _logprobs([chosen], top + len(asked.logprob_token_ids or []))
        if asked.prompt_logprobs is not None:
            before = await self._engine.logprobs(asked.prompt, 1, asked.prompt_logprobs)
            told = [
                {id_: {"logprob": value, "rank": 1} for id_, value in _all(token).items()} for token in before
            ]
            choice["prompt_logprobs"] = [None, *told]
        return Whole(choices=[choice | {"logprobs": logprobs.model_dump()}])


def _sampling(asked: CompletionRequest) -> Sampling:
    return Sampling(
        asked.max_tokens,
        asked.temperature,
        asked.top_p,
        asked.top_k,
        asked.min_p,
        asked.repetition_penalty,
        asked.presence_penalty,
        asked.frequency_penalty,
        asked.seed,
        frozenset(asked.stop_token_ids),
        asked.logprobs or 0,
        (asked.structured_outputs or {}).get("json", ""),
    )


def _all(token: Token) -> dict[int, float]:
    """The chosen one first, then the most likely ones, as vLLM orders them."""
    return {token.id: token.logprob} | dict(token.top)


def _logprobs(tokens: Sequence[Token], top: int) -> ChoiceLogprobs:
    named = [
        {f"token_id:{id_}": value for id_, value in list(_all(token).items())[: top + 1]} for token in tokens
    ]
    return ChoiceLogprobs(
        tokens=[f"token_id:{token.id}" for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=list(named),
    )

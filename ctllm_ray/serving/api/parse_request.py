"""Parses a request into a plan for the engine, and checks it before any work.

A text gets BOS in front, as documents have in training and as vLLM does it; ids are taken as they are.
Specials that a text spells stay text. What a request may ask for at once is bounded by what the engine holds:
all answers together `slots` x `context_tokens`, and `MOST_TOLD` log-probabilities, which cost 100 bytes each
until they are sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ctllm_ray.inference.engine import Sampling
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.errors import CONTEXT_EXCEEDED, Refused
from ctllm_ray.serving.api.requests import (
    ChatRequest,
    CommonRequest,
    CompletionRequest,
    Message,
    ResponseFormat,
)
from ctllm_ray.tokenizer import specials

DEFAULT_TOKENS = 16  # OpenAI's default for completions
#: About 2 ms of tokenizing. Longer texts go to a thread, so that streams continue meanwhile.
LONG_TEXT_CHARS = 20_000
MOST_LOGPROBS = 1_000_000  # log-probabilities in one answer


@dataclass(frozen=True)
class GenerationPlan:
    """`n` answers to each prompt. `echo` holds the prompt texts if they must be returned, else nothing.

    `top` is the number of most likely ids to return with each log-probability; -1: no log-probabilities.
    """

    prompts: tuple[list[int], ...]
    sampling: Sampling
    n: int = 1
    stop: tuple[str, ...] = ()
    echo: tuple[str, ...] = ()
    top: int = -1

    @property
    def choices(self) -> int:
        """The total number of answers."""
        return len(self.prompts) * self.n


async def completion(served: AppState, body: CompletionRequest) -> GenerationPlan:
    """The plan of a text completion. Raises `Refused` and `InputError`."""
    check_model(served, body.model)
    prompts = await _prompts(served, body)
    room = _room(served, prompts, "prompt")
    wanted = min(DEFAULT_TOKENS, room) if body.max_tokens is None else body.max_tokens
    if not wanted and not body.echo:
        raise Refused("`max_tokens` is 0 and `echo` is not set: there is nothing to do", param="max_tokens")
    top = -1 if body.logprobs is None else body.logprobs
    sampling = _sampling(served, body, wanted, max(top, 0))
    echo = _texts(served, body, prompts) if body.echo else ()
    return _check_room(
        served, GenerationPlan(tuple(prompts), sampling, body.n or 1, body.stops, echo, top), room
    )


async def chat(served: AppState, body: ChatRequest) -> GenerationPlan:
    """The plan of a chat completion. Raises `Refused` and `InputError`."""
    check_model(served, body.model)
    prompt = await conversation(served, body.messages)
    room = _room(served, [prompt], "messages")
    wanted = body.max_completion_tokens or body.max_tokens or room
    top = (body.top_logprobs or 0) if body.logprobs else -1
    sampling = _sampling(served, body, wanted, max(top, 0))
    return _check_room(served, GenerationPlan((prompt,), sampling, body.n or 1, body.stops, (), top), room)


async def conversation(served: AppState, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to the point where the assistant speaks."""
    turns = [{"role": _role(message), "content": message.text} for message in messages]
    if sum(len(turn["content"]) for turn in turns) > LONG_TEXT_CHARS:
        return await asyncio.to_thread(served.conversations.encode_prompt, turns)
    return served.conversations.encode_prompt(turns)


def _role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role


async def encode_texts(
    served: AppState, texts: Sequence[str], add_special_tokens: bool | None
) -> list[list[int]]:
    """The ids of texts; by default with the tokenizer's own prefix and suffix, if any."""
    if sum(map(len, texts)) > LONG_TEXT_CHARS:
        bare = await asyncio.to_thread(_encode, served, texts)
    else:
        bare = _encode(served, texts)
    return bare if add_special_tokens is False else list(map(served.tokenizer.add_specials, bare))


def _encode(served: AppState, texts: Sequence[str]) -> list[list[int]]:
    return [ids.tolist() for ids in served.tokenizer.encode(texts)]


def check_model(served: AppState, model: str | None) -> None:
    """Raises `Refused` if the request names another model."""
    if model is not None and model != served.card.id:
        message = f"model {model[:100]!r} does not exist; this server has {served.card.id!r}"
        raise Refused(message, status=404, code="model_not_found", param="model")


async def _prompts(served: AppState, body: CompletionRequest) -> list[list[int]]:
    prompt = body.prompt
    if isinstance(prompt, str):
        return await encode_texts(served, [prompt], body.add_special_tokens)
    if isinstance(prompt[0], str):
        return await encode_texts(
            served, [text for text in prompt if isinstance(text, str)], body.add_special_tokens
        )
    if isinstance(prompt[0], int):
        return [[id_ for id_ in prompt if isinstance(id_, int)]]
    return [ids for ids in prompt if isinstance(ids, list)]


def _texts(served: AppState, body: CompletionRequest, prompts: list[list[int]]) -> tuple[str, ...]:
    """The prompts as texts: as sent, or decoded."""
    texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if isinstance(texts[0], str):
        return tuple(text for text in texts if isinstance(text, str))
    return tuple(
        served.tokenizer.decode([i for i in ids if i < served.tokenizer.vocab_size]) for ids in prompts
    )


def _room(served: AppState, prompts: list[list[int]], param: str) -> int:
    """Tokens left in the context for an answer to the longest prompt. Raises `Refused` if there are none."""
    context, longest = served.engine.context_tokens, max(map(len, prompts))
    if not min(map(len, prompts)):
        raise Refused("a prompt is empty, and this tokenizer adds nothing before a text", param=param)
    if longest >= context:
        message = f"the model's context has {context} tokens, but the prompt has {longest}"
        raise Refused(message, code=CONTEXT_EXCEEDED, param=param, remedy="shorten it")
    if wrong := [id_ for ids in prompts for id_ in ids if id_ >= served.engine.vocab_size]:
        raise Refused(
            f"id {wrong[0]} is not in the vocabulary of {served.engine.vocab_size} ids", param=param
        )
    return context - longest


def _sampling(served: AppState, body: CommonRequest, max_tokens: int, top: int) -> Sampling:
    options = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(body.top_k, 0),
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    return Sampling(
        max_tokens,
        **chosen,  # type: ignore[arg-type]  # top_k is the one int among floats
        seed=body.seed,
        stop_ids=_stop_ids(served, body),
        top_logprobs=top,
        grammar=_grammar(body.response_format),
    )


def _stop_ids(served: AppState, body: CommonRequest) -> frozenset[int]:
    """The stop ids of the request, EOS, those of the model's folder, and the end
    of a turn if there is one."""
    requested = frozenset(body.stop_token_ids or ())
    if requested and max(requested) >= served.engine.vocab_size:
        what = f"id {max(requested)} is not in the vocabulary of {served.engine.vocab_size} ids"
        raise Refused(what, param="stop_token_ids")
    if body.ignore_eos:
        return requested
    ends = {served.tokenizer.eos_id, served.tokenizer.specials.get(specials.END, served.tokenizer.eos_id)}
    return served.card.stop_ids | ends | requested


def _grammar(wanted: ResponseFormat | None) -> str:
    """The JSON schema of an answer, as JSON; empty if any text is allowed."""
    if wanted is None or wanted.type == "text":
        return ""
    schema = wanted.json_schema.schema_ if wanted.type == "json_schema" and wanted.json_schema else None
    return json.dumps(schema or {"type": "object"})


def _check_room(served: AppState, plan: GenerationPlan, room: int) -> GenerationPlan:
    """The plan, if it fits the context and the engine's capacity. Raises `Refused`."""
    wanted, context = plan.sampling.max_tokens, served.engine.context_tokens
    if wanted > room:
        message = (
            f"the context has {context} tokens: the prompt takes {context - room}, and "
            f"{wanted} more are requested"
        )
        raise Refused(
            message, code=CONTEXT_EXCEEDED, param="max_tokens", remedy=f"request at most {room} tokens"
        )
    most = served.serve.slots * context
    if plan.choices * wanted > most:
        message = (
            f"the request asks for {plan.choices} answers of {wanted} tokens; at most "
            f"{most} tokens are possible in one request"
        )
        raise Refused(message, param="n", remedy="request fewer tokens, or send several requests")
    logprobs = plan.n * sum(map(len, plan.prompts)) * bool(plan.echo) + plan.choices * wanted
    if plan.top >= 0 and logprobs * (1 + plan.top) > MOST_LOGPROBS:
        message = (
            f"the request asks for {logprobs * (1 + plan.top):,} log-probabilities; at most "
            f"{MOST_LOGPROBS:,} are possible"
        )
        raise Refused(
            message, param="logprobs", remedy="request fewer log-probabilities, or send several requests"
        )
    return plan

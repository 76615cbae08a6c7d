"""Response bodies in OpenAI's format, as pydantic models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from ctllm_ray.serving.api.requests import Wire


class CachedTokens(Wire):
    cached_tokens: int


class Usage(Wire):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


Reason = Literal["stop", "length"]


class CompletionLogprobs(Wire):
    """By token: its text, log-probability (null if it has no context), most likely tokens, and
    text offset in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class Told(Wire):
    """The fields that begin every answer."""

    id: str
    object: str
    created: int  # Unix seconds
    model: str


class CompletionChoice(Wire):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Reason | None = None


class Completion(Told):
    """A whole answer, or a part of a streamed answer."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]
    usage: Usage | None = None


class TopLogprob(Wire):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Wire):
    content: list[ChatLogprob]


class AssistantMessage(Wire):
    """A message; in a stream its increments: first the role, then text."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _what_is_there(self, plain: SerializerFunctionWrapHandler) -> dict[str, str]:
        return {name: value for name, value in plain(self).items() if value is not None}


class ChatChoice(Wire):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Reason


class Chat(Told):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class ChatPart(Wire):
    index: int
    delta: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Reason | None = None


class ChatChunk(Told):
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatPart]
    usage: Usage | None = None


class TokenizeResponse(Wire):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str]


class DetokenizeResponse(Wire):
    prompt: str


class ModelObject(Wire):
    """OpenAI's model object; the fields after `owned_by` are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ctllm-ray"
    # over everything that affects answers (ctllm_ray/model/fingerprint.py); empty if unknown
    model_sha256: str
    context_tokens: int
    chat: bool
    trained_tokens: int  # over all phases (pretraining, SFT, DPO); 0 if unknown
    lineage: dict[str, Any]


class Models(Wire):
    object: Literal["list"] = "list"
    data: list[ModelObject]

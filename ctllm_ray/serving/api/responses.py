"""Response bodies in OpenAI's format, as pydantic models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from ctllm_ray.serving.api.requests import ApiModel


class CachedTokens(ApiModel):
    cached_tokens: int


class Usage(ApiModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


Reason = Literal["stop", "length"]


class CompletionLogprobs(ApiModel):
    """By token: its text, log-probability (null if it has no context), most likely tokens, and
    text offset in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class AnswerHead(ApiModel):
    """The fields that begin every answer."""

    id: str
    object: str
    created: int  # Unix seconds
    model: str


class CompletionChoice(ApiModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Reason | None = None


class Completion(AnswerHead):
    """A whole answer, or a part of a streamed answer."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]
    usage: Usage | None = None


class TopLogprob(ApiModel):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(ApiModel):
    content: list[ChatLogprob]


class AssistantMessage(ApiModel):
    """A message; in a stream its increments: first the role, then text."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _drop_empty(self, plain: SerializerFunctionWrapHandler) -> dict[str, str]:
        return {name: value for name, value in plain(self).items() if value is not None}


class ChatChoice(ApiModel):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Reason


class Chat(AnswerHead):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class ChatPart(ApiModel):
    index: int
    delta: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Reason | None = None


class ChatChunk(AnswerHead):
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatPart]
    usage: Usage | None = None


class TokenizeResponse(ApiModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str]


class DetokenizeResponse(ApiModel):
    prompt: str


class ModelObject(ApiModel):
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


class Models(ApiModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]

"""What goes over the wire: answers in OpenAI's shapes."""

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
    """By token: its text, its log-probability (null for what nothing comes before), the most likely ones, and
    where its text begins, in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class Told(Wire):
    """What every answer begins with."""

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
    """A whole answer, or a part of a streamed one."""

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
    """A message, or in a stream what comes to it: the role first, then text."""

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
    model_sha256: str  # of all that its answers depend on (ctllm_ray/model/fingerprint.py); empty: not known
    context_tokens: int
    chat: bool
    trained_tokens: int  # of all phases (pretraining, SFT, DPO); 0: not known
    lineage: dict[str, Any]


class Models(Wire):
    object: Literal["list"] = "list"
    data: list[ModelObject]

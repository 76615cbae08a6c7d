"""Request bodies in OpenAI's format, as pydantic models.

Types are strict (a number in quotes is an error), and of fields that are not listed here only those are taken
that ask for nothing (parameters.py): all others are refused by name. A field that is null counts as not
given. Every list and every text that a request can repeat has a bound.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from ctllm_ray.serving.api import json_schemas, parameters

MOST_PROMPTS = 256  # of one request
MOST_CHOICES = 16  # `n`
MOST_STOPS = 16
MOST_STOP_IDS = 128
MOST_MESSAGES = 4096
MOST_TOP = 20  # log-probabilities per token
SCHEMA_DEPTH = 64


def _whole_characters(text: str) -> str:
    """Checks a text: JSON can spell half a surrogate pair, which UTF-8 cannot hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("the text contains half a surrogate pair, which is not a character") from None
    return text


Text = Annotated[str, AfterValidator(_whole_characters)]


class ApiModel(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


class RequestPart(ApiModel):
    """A part of a request. Fields in `ignored`, and values in `no_effect`, are accepted without effect."""

    model_config = ConfigDict(extra="forbid")
    ignored: ClassVar[Collection[str]] = ()
    no_effect: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_idle_fields(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return parameters.drop_idle(body, cls.fields(), cls.ignored, cls.no_effect)

    @classmethod
    def fields(cls) -> list[str]:
        """The names of supported fields."""
        return [field.alias or name for name, field in cls.model_fields.items()]


class StreamOptions(RequestPart):
    ignored: ClassVar = ("include_obfuscation",)
    no_effect: ClassVar = {"continuous_usage_stats": (False,)}

    include_usage: bool | None = None


class JsonSchema(RequestPart):
    ignored: ClassVar = ("description", "strict")  # schemas are always followed strictly

    name: str = ""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _check_depth(self) -> JsonSchema:
        if json_schemas.depth(self.schema_) > SCHEMA_DEPTH:
            raise ValueError(f"the schema is nested too deeply; at most {SCHEMA_DEPTH} levels are allowed")
        if loop := json_schemas.find_loop(self.schema_ or {}):
            raise ValueError(
                f"the schema's `$ref` {loop[:100]!r} leads back to itself, so no value can match it"
            )
        return self


class ResponseFormat(RequestPart):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("`json_schema.schema` is missing")
        if self.type != "json_schema" and self.json_schema is not None:
            raise ValueError('`json_schema` needs `"type": "json_schema"`')
        return self


Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
Stop = Annotated[Text, Field(min_length=1, max_length=256)]


class CommonRequest(RequestPart):
    """The common fields of both kinds of completions."""

    ignored: ClassVar = parameters.IGNORED
    no_effect: ClassVar = parameters.NO_EFFECT

    model: Annotated[Text, Field(max_length=256)]
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None  # 0 and -1 mean all
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    ignore_eos: bool | None = None  # vLLM's field: answers of equal length, for benchmarks
    # vLLM's field: in addition to the model's own
    stop_token_ids: Annotated[list[Id], Field(max_length=MOST_STOP_IDS, fail_fast=True)] | None = None
    response_format: ResponseFormat | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings; empty if there are none."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """True if a stream must end with token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
Ids = Annotated[list[Id], Field(min_length=1, fail_fast=True)]
Lists = Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]


def _kind_of_prompt(prompt: Any) -> str:
    """Decides by the first item: trying all types on a list of a million items takes seconds
    and gives a million errors."""
    first = prompt[0] if isinstance(prompt, list) and prompt else prompt
    kinds: dict[type, str] = {str: "texts", list: "lists"} if isinstance(prompt, list) else {str: "text"}
    return kinds.get(type(first), "ids")


Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Texts, Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[Lists, Tag("lists")],
    Discriminator(_kind_of_prompt),
]


class CompletionRequest(CommonRequest):
    """`prompt` is a text or ids, or a list of either."""

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0)] | None = None  # default 16, as in OpenAI's API
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    # vLLM's field: false adds no BOS before a text; ids are used as they are
    add_special_tokens: bool | None = None


class TextPart(RequestPart):
    ignored: ClassVar = parameters.MESSAGE_IGNORED
    no_effect: ClassVar = parameters.MESSAGE_NO_EFFECT

    type: Literal["text"]
    text: Text


class Message(RequestPart):
    ignored: ClassVar = parameters.MESSAGE_IGNORED
    no_effect: ClassVar = parameters.MESSAGE_NO_EFFECT

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MOST_MESSAGES, fail_fast=True)]

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


Messages = Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]


class ChatRequest(CommonRequest):
    messages: Messages
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # default: what the context has room for
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None  # the newer name of the same field
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs` to be true")
        return self


class TokenizeRequest(RequestPart):
    """Either `prompt` or `messages`, as in vLLM."""

    ignored: ClassVar = ("return_token_strs",)  # always returned
    no_effect: ClassVar = parameters.NO_EFFECT

    model: Text | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None

    @model_validator(mode="after")
    def _check_one_input(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("set either `prompt` or `messages`, not both")
        if self.messages is not None and self.add_special_tokens:
            raise ValueError(
                "`add_special_tokens` works with `prompt` only: for messages the chat template decides"
            )
        return self


class DetokenizeRequest(RequestPart):
    model: Text | None = None
    tokens: Annotated[list[Id], Field(fail_fast=True)]

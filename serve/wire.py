"""What goes over the wire: requests and answers in OpenAI's shapes, and errors in OpenAI's shape.

Types are strict (a number in quotes is an error). Of fields that are not listed here, those that ask for another kind
of answer (`REFUSED`: tools, pictures, a biased vocabulary) are refused unless they hold a value that asks for nothing;
all others (`user`, `metadata`, `store`, what a client adds of its own) are ignored. A field that is null counts as not
given. Every list and every text that a request can repeat has a bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from starlette.responses import Response

from ctllm_ray.base.errors import CtllmError, EngineFailed, InputError, Overloaded, StorageError

MOST_PROMPTS = 256  # of one request
MOST_CHOICES = 16  # `n`
MOST_STOPS = 16
MOST_MESSAGES = 4096
MOST_TOP = 20  # log-probabilities told with a token
SCHEMA_DEPTH = 64
CONTEXT_EXCEEDED = "context_length_exceeded"

#: Fields that ask for what is not done here, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "suffix": ("",),
    "best_of": (1,),
    "audio": (),
    "modalities": ([], ["text"]),
    "web_search_options": (),
    "prompt_logprobs": (),  # vLLM's; `echo` with `logprobs` tells the same
    "use_beam_search": (False,),
}


class Refused(CtllmError):
    """A request that is not done, with its HTTP status, OpenAI's code for the reason and the field."""

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", status: int = 400, code: str = "", param: str = ""
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status, self.code, self.param = status, code, param


def _whole_characters(text: str) -> str:
    """The text. JSON can spell half a surrogate pair, which no UTF-8 can hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair is no character") from None
    return text


Text = Annotated[str, AfterValidator(_whole_characters)]


class Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


class StreamOptions(Wire):
    include_usage: bool | None = None


class JsonSchema(Wire):
    name: str = ""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _bounded(self) -> JsonSchema:
        if depth(self.schema_) > SCHEMA_DEPTH:
            raise ValueError(f"a schema is nested {SCHEMA_DEPTH} deep at most")
        return self


class ResponseFormat(Wire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> ResponseFormat:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("`json_schema.schema` is missing")
        return self


Stop = Annotated[Text, Field(min_length=1, max_length=256)]


class Asked(Wire):
    """What both kinds of completion share."""

    model: Annotated[Text, Field(max_length=256)]
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None  # 0 and -1: all
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    ignore_eos: bool | None = None  # vLLM's: answers of one length, for measuring
    response_format: ResponseFormat | None = None

    @model_validator(mode="before")
    @classmethod
    def _possible(cls, given: Any) -> Any:
        for name in REFUSED.keys() & given.keys() if isinstance(given, dict) else ():
            if given[name] is not None and given[name] not in REFUSED[name]:
                raise ValueError(f"`{name}` asks for something that this server does not do")
        return given

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings; none where none are given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """True where a stream is to end with counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
Ids = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)]


class CompletionRequest(Asked):
    """`prompt` is a text or ids, or several of either."""

    prompt: Text | Texts | Ids | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
    max_tokens: Annotated[int, Field(ge=0)] | None = None  # 16, as OpenAI has it
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    add_special_tokens: bool | None = None  # vLLM's: false leaves BOS away before a text; ids are taken as they are


class TextPart(Wire):
    type: Literal["text"]
    text: Text


class Message(Wire):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MOST_MESSAGES)]

    @property
    def text(self) -> str:
        """The content in one piece."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


Messages = Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]


class ChatRequest(Asked):
    messages: Messages
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # what the context has room for
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None  # the same by its newer name
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None

    @model_validator(mode="after")
    def _asked_for(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs` to be true")
        return self


class TokenizeRequest(Wire):
    """Either `prompt` or `messages`, as vLLM has it."""

    model: Text | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None

    @model_validator(mode="after")
    def _one_way(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either `prompt` or `messages`")
        return self


class DetokenizeRequest(Wire):
    model: Text | None = None
    tokens: list[Annotated[int, Field(ge=0, le=2**31 - 1)]]


class CachedTokens(Wire):
    cached_tokens: int


class Usage(Wire):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


Reason = Literal["stop", "length"]


class CompletionLogprobs(Wire):
    """By token: its text, its log-probability (null for what nothing comes before), the most likely ones, and where
    its text begins, in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Wire):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Reason | None = None


class Completion(Wire):
    """A whole answer, or a part of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
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


class Said(Wire):
    """A message, or in a stream what comes to it: the role first, then text."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _what_is_there(self, plain: SerializerFunctionWrapHandler) -> dict[str, str]:
        return {name: value for name, value in plain(self).items() if value is not None}


class ChatChoice(Wire):
    index: int
    message: Said
    logprobs: ChatLogprobs | None = None
    finish_reason: Reason


class Chat(Wire):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatPart(Wire):
    index: int
    delta: Said
    logprobs: ChatLogprobs | None = None
    finish_reason: Reason | None = None


class ChatChunk(Wire):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatPart]
    usage: Usage | None = None


class Tokens(Wire):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str]


class Decoded(Wire):
    prompt: str


class Model(Wire):
    """OpenAI's model object; the fields after `owned_by` are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ctllm-ray"
    context_tokens: int
    chat: bool
    lineage: dict[str, Any]


class Models(Wire):
    object: Literal["list"] = "list"
    data: list[Model]


class Problem(Wire):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Wire):
    error: Problem


#: Where an `Overloaded` comes from (limits.py; else an engine) and OpenAI's code for it.
_QUOTAS = {"tokens_per_day": "insufficient_quota", "requests_per_minute": "rate_limit_exceeded"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def problem(status: int, message: str, code: str = "", param: str = "") -> ErrorAnswer:
    """An error in OpenAI's shape."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorAnswer(error=Problem(message=message, type=kind, param=param or None, code=code or None))


def status_of(error: CtllmError) -> int:
    """The HTTP status of an error that a request met."""
    if isinstance(error, Refused):
        return error.status
    for kind, status in ((InputError, 400), (Overloaded, 429), (EngineFailed, 503), (StorageError, 503)):
        if isinstance(error, kind):
            return status
    return 500


def problem_of(error: CtllmError) -> ErrorAnswer:
    """The error as it goes out. What happened inside the server is not told in detail: paths are nobody's business."""
    status = status_of(error)
    message = "; ".join(part for part in (error.what, error.remedy) if part)
    if isinstance(error, Refused):
        return problem(status, message, error.code, error.param)
    if isinstance(error, Overloaded):
        return problem(status, message, _QUOTAS.get(error.where, "overloaded"))
    if status < 500:
        return problem(status, message)
    return problem(status, "the engine does not answer: the same request may work in a moment", "engine_failed")


def depth(value: Any) -> int:
    """How deep lists and objects are nested in each other: 0 for a plain value."""
    level, found = [value], 0
    while level := [inner for outer in level for inner in _inside(outer)]:
        found += 1
    return found


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def invalid(errors: Sequence[Any]) -> Refused:
    """What is wrong with a request, out of pydantic's errors: the first field and all that was said about it."""
    first = _place(errors[0])
    said = list(dict.fromkeys(error["msg"].removeprefix("Value error, ") for error in errors if _place(error) == first))
    hint = "send JSON with `Content-Type: application/json`" if not first else ""
    return Refused(f"{first or 'body'}: {' or '.join(said[:4])}", param=first, remedy=hint, code="invalid_value")


def _place(error: Any) -> str:
    """The field that an error is about: its name, and in lists the index."""
    inner = [part for part in error["loc"] if part != "body"]
    return str(inner[0]) if inner and isinstance(inner[0], str) else ""


def answer_to(error: CtllmError) -> Response:
    """The HTTP response to an error."""
    headers = {}
    answer = problem_of(error)
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(math.ceil(error.retry_s))
    if answer.error.code == "insufficient_quota":
        headers["x-should-retry"] = "false"  # OpenAI's client asks again otherwise
    if status_of(error) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer(status_of(error), answer, headers)


def json_answer(status: int, answer: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    return Response(answer.model_dump_json(), status, dict(headers or {}), "application/json")

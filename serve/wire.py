"""What comes over the wire: requests in OpenAI's shapes.

Types are strict (a number in quotes is an error). Of fields that are not listed here, those that ask for another kind
of answer (`REFUSED`: tools, pictures, a biased vocabulary) are refused unless they hold a value that asks for nothing;
all others (`user`, `metadata`, `store`, what a client adds of its own) are ignored. A field that is null counts as not
given. Every list and every text that a request can repeat has a bound.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MOST_PROMPTS = 256  # of one request
MOST_CHOICES = 16  # `n`
MOST_STOPS = 16
MOST_MESSAGES = 4096
MOST_TOP = 20  # log-probabilities told with a token
SCHEMA_DEPTH = 64

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


def depth(value: Any) -> int:
    """How deep lists and objects are nested in each other: 0 for a plain value."""
    level, found = [value], 0
    while level := [inner for outer in level for inner in _inside(outer)]:
        found += 1
    return found


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []

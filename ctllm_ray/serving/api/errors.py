"""Converts errors to HTTP responses in OpenAI's format, with status and retry time.

What a client did wrong is told in full. What went wrong
in here is not: paths and causes are nobody's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from ctllm_ray.base.errors import CtllmError, EngineFailed, InputError, Overloaded, StorageError
from ctllm_ray.serving.api import parameters
from ctllm_ray.serving.ray.model_replaced import ModelReplaced

CONTEXT_EXCEEDED = "context_length_exceeded"


class Refused(CtllmError):
    """A refused request, with its HTTP status, OpenAI's error code and the field.

    `retry_s`: when the same request may be sent again; 0: nobody knows.
    """

    def __init__(
        self,
        what: str,
        *,
        remedy: str = "",
        status: int = 400,
        code: str = "",
        param: str = "",
        retry_s: float = 0.0,
    ) -> None:
        super().__init__(what, remedy=remedy)
        self.status, self.code, self.param, self.retry_s = status, code, param, retry_s


class Problem(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    error: Problem


#: Where an `Overloaded` comes from (rate_limits.py; else an engine), and OpenAI's code for it.
_QUOTAS = {
    "tokens_per_day": "insufficient_quota",
    "tokens_under_way": "rate_limit_exceeded",
    "requests_per_minute": "rate_limit_exceeded",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def problem(status: int, message: str, code: str = "", param: str = "") -> ErrorAnswer:
    """An error in OpenAI's format."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorAnswer(error=Problem(message=message, type=kind, param=param or None, code=code or None))


def status_of(error: CtllmError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refused):
        return error.status
    for kind, status in ((InputError, 400), (Overloaded, 429), (EngineFailed, 503), (StorageError, 503)):
        if isinstance(error, kind):
            return status
    return 500


def problem_of(error: CtllmError) -> ErrorAnswer:
    """The error as the client sees it."""
    status = status_of(error)
    message = "; ".join(part for part in (error.what, error.remedy) if part)
    if isinstance(error, Refused):
        return problem(status, message, error.code, error.param)
    if isinstance(error, Overloaded):
        return problem(status, message, _QUOTAS.get(error.where, "overloaded"))
    if status < 500:
        return problem(status, message)
    if isinstance(error, ModelReplaced):
        said = (
            "the model's folder was replaced after it was deployed; the operator must restore or redeploy it"
        )
        return problem(status, said, "model_replaced")
    if isinstance(error, StorageError):
        said = "the server's storage does not answer; retry in a moment"
        return problem(status, said, "storage_failed")
    return problem(status, "the engine does not answer; retry in a moment", "engine_failed")


def invalid(errors: Sequence[Any], fields: Iterable[str] = ()) -> Refused:
    """Converts pydantic's errors to one refusal: the first field, and all messages about it.

    `fields` are those that requests have.
    """
    first = _place(errors[0])
    said = list(dict.fromkeys(_describe_invalid(error, fields) for error in errors if _place(error) == first))
    no_object = not first and errors[0]["type"] != "value_error"  # not an error about the fields of a request
    hint = "send a JSON object with `Content-Type: application/json`" if no_object else ""
    about = f"{first}: " if first and f"`{first}`" not in said[0] else ""
    return Refused(about + " or ".join(said[:4]), param=first, remedy=hint, code="invalid_value")


def _describe_invalid(error: Any, fields: Iterable[str]) -> str:
    if error["type"] == "extra_forbidden":
        return parameters.describe_refusal(str(error["loc"][-1]), fields)
    return error["msg"].removeprefix("Value error, ")


def _place(error: Any) -> str:
    """The name of the field that an error is about; in lists its index."""
    inner = [part for part in error["loc"] if part != "body"]
    return str(inner[0])[:100] if inner and isinstance(inner[0], str) else ""


def answer_to(error: CtllmError) -> Response:
    """The HTTP response for an error."""
    headers = {}
    answer = problem_of(error)
    if isinstance(error, Overloaded | Refused) and error.retry_s:
        headers["Retry-After"] = str(math.ceil(error.retry_s))
    if answer.error.code == "insufficient_quota":
        headers["x-should-retry"] = "false"  # else OpenAI's client would retry
    if status_of(error) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer(status_of(error), answer, headers)


def json_answer(status: int, answer: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    return Response(answer.model_dump_json(), status, dict(headers or {}), "application/json")

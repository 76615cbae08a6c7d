"""Waits for a storage service that does not answer for a while.

An object store that restarts, or a switch that does, is away for seconds to minutes. s3fs itself tries for
some 12 s. What is waited for here is a store that refuses connections, times out, or says itself that it is
too busy; a wrong path, missing rights and a full disk are errors at once.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from ctllm_ray.base.errors import StorageError

PATIENCE_S = 300.0  # from the first failure on
FIRST_S, LONGEST_S = 1.0, 30.0  # the first pause; each later one doubles, up to the longest

#: Class names of errors by botocore, aiohttp, fsspec and others that mean a broken connection.
_NAMES = {
    "HTTPClientError", "ConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "IncompleteReadError",
    "ClientConnectionError", "ClientPayloadError", "ServerTimeoutError", "FSTimeoutError", "TimeoutError",
    "ConnectError", "TransportError", "RetriesExceededError",
}  # fmt: skip
#: The same on a socket, and s3fs's errors for the responses 500 and 503.
_NUMBERS = {
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.EBUSY, errno.EREMOTEIO,
}  # fmt: skip

#: Errors that waiting cannot fix: a wrong certificate, no TLS at all.
_NEVER = ("certificate", "WRONG_VERSION_NUMBER")

T = TypeVar("T")
_bound: ContextVar[float | None] = ContextVar("patience", default=None)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Limits the waiting inside the block, for callers whose client waits and that can
    continue without the data."""
    token = _bound.set(seconds)
    try:
        yield
    finally:
        _bound.reset(token)


def is_outage(error: BaseException) -> bool:
    """True for an error that means that the storage does not answer."""
    if any(sign in str(error) for sign in _NEVER):
        return False
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _NAMES) or getattr(error, "errno", None) in _NUMBERS


def wait_out(uri: str, work: Callable[[], T]) -> T:
    """The result of `work`, retried while the storage of a URI does not answer.

    Prints one line to stderr when it starts to wait, and one when the storage is back. Raises `StorageError`
    after `PATIENCE_S` (or the limit of `patience`); other errors of the work pass unchanged.
    """
    bound = _bound.get()
    most_s = PATIENCE_S if bound is None else bound
    began, pause = 0.0, FIRST_S
    while True:
        try:
            result = work()
            if began:
                _tell(f"{uri}: the storage answers again, after {time.monotonic() - began:.0f} s")
            return result
        except Exception as error:
            if not is_outage(error):
                raise
            reason, now = str(error).strip() or type(error).__name__, time.monotonic()
            if not began and most_s:
                _tell(f"{uri}: the storage does not answer ({reason}); retrying for {most_s:.0f} s")
            began = began or now
            if now - began + pause > most_s:
                raise _give_up_error(uri, reason, now - began) from error
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_S)


def _give_up_error(uri: str, reason: str, waited_s: float) -> StorageError:
    remedy = (
        "when it is back, or its endpoint (AWS_ENDPOINT_URL) is correct, run the same "
        "command again; it resumes"
    )
    return StorageError(
        f"the storage did not answer for {waited_s:.0f} s: {reason}", where=uri, remedy=remedy
    )


def _tell(line: str) -> None:
    print(f"ctllm: {line}", file=sys.stderr, flush=True)

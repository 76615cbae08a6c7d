"""A client of an OpenAI-compatible API for many requests: it retries after limits, failures and timeouts.

429 and 5xx are retried when the server says (`Retry-After`), else after a growing pause; so are lost
connections and timeouts. A refusal that a retry cannot fix is an error at once. It uses aiohttp, a dependency
of Ray Serve.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from email.utils import parsedate_to_datetime
from time import time
from types import TracebackType
from typing import Any

import aiohttp

from ctllm_ray.base.errors import EngineFailed, InputError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
NO_QUOTA = "insufficient_quota"  # OpenAI's code: a retry does not help


class Client:
    """A client of one API. It belongs to the event loop in which it is entered."""

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 120, attempts: int = 8) -> None:
        self.url = url.rstrip("/")
        self._key, self._timeout_s, self._attempts = key, timeout_s, attempts
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = aiohttp.ClientTimeout(total=self._timeout_s)
        self._session = aiohttp.ClientSession(headers=headers, timeout=limits)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The parsed response. `path` is relative to the API's URL, or a URL itself.

        Raises `InputError` if the request is refused, `EngineFailed` if no response comes.
        """
        return await self._request("POST", path, body)

    async def get(self, path: str) -> dict[str, Any]:
        """Like `post`."""
        return await self._request("GET", path, None)

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        assert self._session is not None
        address, said = path if "://" in path else self.url + path, ""
        for attempt in range(self._attempts):
            pause_s = min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
            try:
                async with self._session.request(method, address, json=body) as answer:
                    text = await answer.text(errors="replace")
                    if answer.status == 200:
                        return _parse_answer(text)
                    said = f"{answer.status}: {_message(text)}"
                    if not _passes(answer.status, text):
                        remedy = "check the URL, the key and the request"
                        raise InputError(
                            f"the API refused the request with {said}", where=address, remedy=remedy
                        )
                    pause_s = _retry_s(answer.headers.get("Retry-After", "")) or pause_s
            except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
                said = f"{type(error).__name__}: {error}".removesuffix(": ")
            if attempt + 1 < self._attempts:
                await asyncio.sleep(pause_s)
        remedy = "run the same command again when the API answers; earlier answers are kept"
        raise EngineFailed(
            f"the API gave no answer in {self._attempts} attempts; {said}", where=address, remedy=remedy
        )


def key_of(variable: str) -> str:
    """The key in an environment variable; empty if no variable is named. Raises
    `InputError` if it is not set."""
    if not variable:
        return ""
    if not os.environ.get(variable):
        raise InputError(f"the environment variable {variable} is not set", remedy="set it to the API's key")
    return os.environ[variable]


def _passes(status: int, text: str) -> bool:
    """True for an error that a retry may fix."""
    return (status in (408, 429) and NO_QUOTA not in text) or status >= 500


def _retry_s(header: str) -> float:
    """Seconds to wait, from a number or a date; 0 if the server does not say."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except (TypeError, ValueError):
        return 0.0


def _parse_answer(text: str) -> dict[str, Any]:
    plain = json.loads(text)
    if not isinstance(plain, dict):
        raise ValueError("the response is not a JSON object")
    return plain


def _message(text: str) -> str:
    """The message of an error in any form."""
    try:
        return str(json.loads(text)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return text.strip()[:300]

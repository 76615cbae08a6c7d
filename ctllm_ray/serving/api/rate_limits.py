"""Limits per key: requests in any 60 seconds, and tokens per UTC day.

A sliding minute keeps the promise exactly (a window that starts on the full minute lets twice as much through
at its edge) and costs one number for each request of the last minute. All tokens that a request may take are
reserved before it is served, and settled when it ends, however it ends, by what it took: so no day is
overdrawn by requests that run side by side. A reservation that is never settled (its ingress died) lapses
after `RESERVED_S`.

Counts outlive a restart: they are written `SAVE_S` seconds after a change and at the end, so a crash forgets
that much at most, and what was reserved: tokens of requests under way count when they end. One `Counters`
counts for a server; with several replicas it lives in one Ray actor and all of them ask it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ctllm_ray.base import storage
from ctllm_ray.base.errors import Overloaded
from ctllm_ray.serving.api.keys import ApiKey

FILE = "usage.json"  # beside keys.json
SAVE_S = 2.0
MINUTE_S, DAY_S = 60.0, 86_400
RESERVED_S = 600.0  # how long tokens stay reserved; a longer answer counts when it ends
TOKENS_PER_DAY = "tokens_per_day"  # `where` of an `Overloaded` about the day's tokens
UNDER_WAY = "tokens_under_way"  # `where` of one about tokens that other requests reserved


class RateLimits(Protocol):
    """The interface of the limits: the API calls it before and after each request."""

    async def admit(self, key: ApiKey) -> None:
        """Counts a request. Raises `Overloaded` with the seconds to wait if there are too many."""
        ...

    async def reserve(self, key: ApiKey, id_: str, tokens: int) -> None:
        """Reserves the tokens that a request may use. Raises `Overloaded` if not enough are left."""
        ...

    async def settle(self, key: ApiKey, id_: str, tokens: int) -> None:
        """Releases the reservation under an id, if any, and counts the used tokens."""
        ...

    async def close(self) -> None:
        """Ends the counting."""
        ...


@dataclass(frozen=True)
class _Reservation:
    name: str  # name of the key
    tokens: int
    until: float  # Unix seconds


class Counters:
    """The limits counted in this process. `uri` is where counts are saved; empty for nowhere."""

    def __init__(self, uri: str = "", clock: Callable[[], float] = time.time) -> None:
        self._uri, self._clock = uri, clock
        self._requests: dict[str, deque[float]] = {}  # Unix seconds of requests in the last minute, by key
        self._tokens: dict[str, int] = {}  # tokens of this day, by key
        self._reserved: dict[str, _Reservation] = {}
        self._day = int(clock() // DAY_S)
        self._saving: asyncio.Task | None = None
        self._changed = False
        if uri and storage.exists(uri):
            self._restore(storage.read_json(uri))

    async def admit(self, key: ApiKey) -> None:
        """Counts a request, or raises `Overloaded`. A refused one does not count."""
        now = self._clock()
        self._turn(now)
        if key.tokens_per_day and self._tokens.get(key.name, 0) >= key.tokens_per_day:
            what = f"this key has used its {key.tokens_per_day:,} tokens for today"
            raise self._until_tomorrow(
                what, "retry tomorrow (UTC), or ask the operator for a higher limit", now
            )
        if key.requests_per_minute:
            self._take(key, now)
            self._save_soon()

    async def reserve(self, key: ApiKey, id_: str, tokens: int) -> None:
        """Reserves tokens under an id, or raises `Overloaded`."""
        if not key.tokens_per_day:
            return
        now = self._clock()
        self._turn(now)
        self._reserved = {each: held for each, held in self._reserved.items() if held.until > now}
        left = key.tokens_per_day - self._tokens.get(key.name, 0)
        if tokens > left:
            raise self._too_many(key, tokens, left, now)
        if tokens > left - sum(held.tokens for held in self._reserved.values() if held.name == key.name):
            raise Overloaded(
                f"this request may use {tokens:,} tokens; this key has {left:,} left today, "
                "and running requests have reserved too many of them",
                where=UNDER_WAY,
                remedy="retry when they have finished, or set a smaller max_tokens",
            )
        self._reserved[id_] = _Reservation(key.name, tokens, now + RESERVED_S)

    async def settle(self, key: ApiKey, id_: str, tokens: int) -> None:
        """Releases a reservation and counts the used tokens, even beyond the limit."""
        self._reserved.pop(id_, None)
        if key.tokens_per_day and tokens > 0:
            self._turn(self._clock())
            self._tokens[key.name] = self._tokens.get(key.name, 0) + tokens
            self._save_soon()

    async def close(self) -> None:
        """Saves unsaved counts."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
            await asyncio.to_thread(self._write, self._state_to_keep())

    def _take(self, key: ApiKey, now: float) -> None:
        recent = self._requests.setdefault(key.name, deque())
        while recent and recent[0] <= now - MINUTE_S:
            recent.popleft()
        if len(recent) >= key.requests_per_minute:
            free_at = recent[-key.requests_per_minute] + MINUTE_S
            raise Overloaded(
                f"the key's limit of {key.requests_per_minute} requests per minute is reached",
                where="requests_per_minute",
                remedy="send requests more slowly",
                retry_s=max(free_at - now, 0.001),
            )
        recent.append(now)

    def _too_many(self, key: ApiKey, tokens: int, left: int, now: float) -> Overloaded:
        what = f"this request may use {tokens:,} tokens, but this key has {max(left, 0):,} left today"
        tomorrow = "" if tokens > key.tokens_per_day else ", or tomorrow (UTC)"
        return self._until_tomorrow(what, f"set a smaller max_tokens{tomorrow}", now)

    def _until_tomorrow(self, what: str, remedy: str, now: float) -> Overloaded:
        return Overloaded(what, where=TOKENS_PER_DAY, remedy=remedy, retry_s=(self._day + 1) * DAY_S - now)

    def _turn(self, now: float) -> None:
        if (day := int(now // DAY_S)) != self._day:
            self._day = day
            self._tokens.clear()

    def _save_soon(self) -> None:
        self._changed = True
        if self._uri and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save())

    async def _save(self) -> None:
        while self._changed:
            await asyncio.sleep(SAVE_S)
            self._changed = False
            await asyncio.to_thread(self._write, self._state_to_keep())

    def _write(self, kept: dict[str, Any]) -> None:
        storage.write_json(self._uri, kept)

    def _state_to_keep(self) -> dict[str, Any]:
        requests = {name: list(times) for name, times in self._requests.items()}
        return {"day": self._day, "tokens": dict(self._tokens), "requests": requests}

    def _restore(self, kept: dict[str, Any]) -> None:
        self._requests = {name: deque(times) for name, times in kept["requests"].items()}
        if kept["day"] == self._day:
            self._tokens = {name: int(count) for name, count in kept["tokens"].items()}

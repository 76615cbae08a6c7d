"""Shutdown of the API: refuses new requests, gives running
ones time to finish, and reports errors to the rest.

A stream that is cut ends with an error event, any other
request with a 503: nobody takes half an answer for a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ctllm_ray.serving.api.errors import Refused

NOTICE_S = 2.0  # for sending errors to the requests that were cut
RETRY_S = 5.0  # until the client may retry
LOOK_S = 0.05


class ShuttingDown(Refused):
    """A request that came during shutdown, or was cut by it."""

    def __init__(self, what: str) -> None:
        remedy = "retry on another server, or when this one is up again"
        super().__init__(what, remedy=remedy, status=503, code="shutting_down", retry_s=RETRY_S)


@dataclass(frozen=True)
class DrainOutcome:
    """How many running requests finished, and how many were cut."""

    finished: int
    cut: int


class Draining:
    """The running requests of one process, and whether new ones are accepted."""

    def __init__(self) -> None:
        self._open = 0
        self._refuses = False
        self._cut = asyncio.Event()

    def check(self) -> None:
        """Raises `ShuttingDown` if new requests are refused."""
        if self._refuses:
            raise ShuttingDown("the server is shutting down")

    @contextmanager
    def request(self) -> Iterator[None]:
        """Context of a running request. Raises `ShuttingDown` if new requests are refused."""
        self.check()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def wait_for_cut(self) -> None:
        """Returns when running requests are cut."""
        await self._cut.wait()

    async def drain(self, grace_s: float) -> DrainOutcome:
        """Refuses new requests, and cuts those that do not finish within `grace_s`."""
        self._refuses = True
        before = self._open
        await self._wait_until_idle(grace_s)
        cut = self._open
        self._cut.set()
        await self._wait_until_idle(NOTICE_S)
        return DrainOutcome(before - cut, cut)

    async def _wait_until_idle(self, most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self._open:
                    await asyncio.sleep(LOOK_S)

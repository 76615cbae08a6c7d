"""The end of an API: no new requests are taken, those under way get a time to end, and the rest are told.

A stream that is cut ends with an error event, any other request with a 503: nobody takes half an answer for a
whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ctllm_ray.serving.api.errors import Refused

TOLD_S = 2.0  # for those that are cut to be told
RETRY_S = 5.0  # until another server may be asked, or this one again
LOOK_S = 0.05


class ShuttingDown(Refused):
    """A request that comes too late, or was cut."""

    def __init__(self, what: str) -> None:
        remedy = "send it again: to another server, or when this one is up"
        super().__init__(what, remedy=remedy, status=503, code="shutting_down", retry_s=RETRY_S)


@dataclass(frozen=True)
class DrainOutcome:
    """What became of the requests that were under way."""

    finished: int
    cut: int


class Draining:
    """Requests under way in one process, and whether it takes more of them."""

    def __init__(self) -> None:
        self._open = 0
        self._refuses = False
        self._cut = asyncio.Event()

    def check(self) -> None:
        """Raises `ShuttingDown` where no more requests are taken."""
        if self._refuses:
            raise ShuttingDown("this server is shutting down")

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around a request. Raises `ShuttingDown` where no more are taken."""
        self.check()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def wait_for_cut(self) -> None:
        """Returns when requests are cut."""
        await self._cut.wait()

    async def drain(self, grace_s: float) -> DrainOutcome:
        """Takes no more requests, and cuts those that have not ended after so long."""
        self._refuses = True
        before = self._open
        await self._wait_until_idle(grace_s)
        cut = self._open
        self._cut.set()
        await self._wait_until_idle(TOLD_S)
        return DrainOutcome(before - cut, cut)

    async def _wait_until_idle(self, most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self._open:
                    await asyncio.sleep(LOOK_S)

"""Cancels the work for a client that disconnects or reads nothing for `SEND_S`, or if the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ctllm_ray.base.errors import CtllmError
from ctllm_ray.serving.api.draining import Draining, ShuttingDown

#: how long a client may read nothing of a stream while its connection and the server's buffer are full
SEND_S = 60.0

T = TypeVar("T")


class ClientDisconnected(Exception):
    """The client has disconnected."""


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, T], draining: Draining) -> T:
    """The result of the work. Cancels the work and raises `ClientDisconnected` if the client disconnects first.

    Raises `ShuttingDown` if the server stops before the work is done.
    """
    doing, going = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_disconnect(receive))
    cutting = asyncio.ensure_future(draining.wait_for_cut())
    try:
        await asyncio.wait({doing, going, cutting}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if going.done():
            raise ClientDisconnected
        raise ShuttingDown("the server shut down before the answer was complete")
    finally:
        for each in (doing, going, cutting):
            each.cancel()
        await asyncio.gather(doing, going, cutting, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events. Each is sent once the client has taken the one before, as far as buffers tell.

    `describe` makes the event that ends a stream which the server cuts.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes], draining: Draining, describe: Callable[[CtllmError], bytes]
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._draining, self._describe = events, draining, describe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await run_while_connected(receive, self._send(send), self._draining)
        except (ClientDisconnected, TimeoutError, OSError):  # nobody is left to receive an error
            return
        except ShuttingDown as error:
            await send({"type": "http.response.body", "body": self._describe(error), "more_body": False})

    async def _send(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                async with asyncio.timeout(SEND_S):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

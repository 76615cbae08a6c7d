"""Middleware of Ray Serve's HTTP proxies: retries after the loss of an API replica, and times out slow
headers.

Ray Serve calls `middlewares` in the process of a proxy, where the environment in which Ray was started names
it (`ENVIRONMENT`). `ctllm serve` sets that; on a cluster whoever starts its nodes does.

- A request whose API replica dies before it answers is sent to another one; a stream that had begun ends with
  an error event. What the proxy itself says goes out in OpenAI's shape.
- A connection whose headers do not come within `HEADER_S` is closed, the first request's and each later
  one's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http import auto

from ctllm_ray.serving.api.errors import Refused, answer_to, problem_of

#: What Ray must be started with. The last three: an engine that streams to a dead API replica blocks, with
#: all its requests, until Ray detects the death, 6 s by default. These make it one second.
ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "ctllm_ray.serving.ray.proxy:middlewares",
    "RAY_grpc_client_check_connection_status_interval_milliseconds": "100",
    "RAY_core_worker_rpc_server_reconnect_timeout_base_s": "0",
    "RAY_core_worker_rpc_server_reconnect_timeout_max_s": "1",
}
HEADER_S = 20.0
ATTEMPTS = 5  # replicas that a request may try
AGAIN_S = 0.1  # before the second try; longer before later ones
KEPT_BYTES = 8 << 20  # of a body, kept for a retry
REPEATABLE = (
    "/v1/completions",
    "/v1/chat/completions",
    "/tokenize",
    "/detokenize",
)  # POSTs that change nothing
LOST = "the API lost the process that was answering"


def middlewares() -> list[Middleware]:
    """The middlewares that Ray Serve puts around a proxy; also sets the header timeout of its connections."""
    auto.AutoHTTPProtocol = limit_headers(
        auto.AutoHTTPProtocol
    )  # uvicorn reads it when the proxy begins to listen
    return [Middleware(ProxyMiddleware)]


def limit_headers(protocol: Any) -> Any:
    """uvicorn's HTTP protocol, which closes connections whose headers do not arrive in time."""

    class Limited(protocol):
        """`_timer` runs while the headers of a request are awaited."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(HEADER_S, transport.close)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            is_answering = self.cycle is not None and (
                self.cycle is not before or not self.cycle.response_complete
            )
            if is_answering:
                self._stop_timer()
            elif self._timer is None:  # the beginning of another request
                self._timer = self.loop.call_later(HEADER_S, self.transport.close)

        def connection_lost(self, error: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(error)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Limited


class RequestBody:
    """The body of a client, kept so that it can be sent again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._bytes = 0
        self.is_gone = False  # the client disconnected

    @property
    def is_kept(self) -> bool:
        """True if everything received can be read again."""
        return self._bytes <= KEPT_BYTES

    def read(self) -> Receive:
        """A `receive` that starts from the beginning."""
        at = 0

        async def again() -> Message:
            nonlocal at
            if at < len(self._messages):
                at += 1
                return self._messages[at - 1]
            message = await self._next()
            at = len(self._messages)
            return message

        return again

    async def _next(self) -> Message:
        message = await self._receive()
        self.is_gone |= message["type"] == "http.disconnect"
        self._bytes += len(message.get("body", b""))
        if self.is_kept:
            self._messages.append(message)
        return message


class ProxyResponse:
    """The response to a client. Errors of the proxy itself are held back and sent in OpenAI's format."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0  # status of the proxy's own response; 0: there is none
        self.has_begun, self.is_whole, self.is_stream = False, False, False

    async def send(self, message: Message) -> None:
        """Handles a message of the response."""
        if message["type"] == "http.response.start":
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            self.is_stream = kind.startswith("text/event-stream")
            if message["status"] >= 400 and not kind.startswith(
                "application/json"
            ):  # our API sends errors as JSON
                self.status = message["status"]
        if self.status:
            return
        self.has_begun = True
        self.is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


class ProxyMiddleware:
    """ASGI middleware around a proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = RequestBody(receive)
        for attempt in range(1, ATTEMPTS + 1):
            reply = ProxyResponse(send)
            await self._app(dict(scope, headers=[*scope["headers"]]), body.read(), reply.send)
            if reply.is_whole or body.is_gone:
                return
            if reply.has_begun or attempt == ATTEMPTS or not _may_repeat(scope, body, reply):
                break
            await asyncio.sleep(AGAIN_S * attempt)
        await _send_error(reply, scope, body.read(), send)


def _may_repeat(scope: Scope, body: RequestBody, reply: ProxyResponse) -> bool:
    if reply.status not in (0, 500, 503):  # 0: the replica is gone, and the proxy says nothing
        return False
    return body.is_kept and (scope["method"] == "GET" or scope["path"] in REPEATABLE)


async def _send_error(reply: ProxyResponse, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the client an error in OpenAI's format, instead of the proxy's text or of nothing."""
    remedy = "send the request again"
    if not reply.has_begun:
        said = {404: "no application is deployed here", 408: "the request timed out"}.get(reply.status, LOST)
        status = reply.status if reply.status in (404, 408) else 503
        retry_s = 1.0 if status == 503 else 0.0
        error = Refused(
            said, remedy=remedy, status=status, code="api_lost" if status == 503 else "", retry_s=retry_s
        )
        await answer_to(error)(scope, receive, send)
    elif reply.is_stream:
        cut = problem_of(Refused(LOST, remedy=remedy, status=503, code="api_lost")).model_dump_json()
        await send({"type": "http.response.body", "body": f"data: {cut}\n\n".encode(), "more_body": False})

"""Authenticates a request and limits its size, before anything reads it.

The key is checked before a byte of the body is taken, the body is counted while it comes (a `Content-Length`
may lie or be absent) and must come within `BODY_S`, so a stranger costs nothing and a client costs
`max_body_kb` at most. Every POST counts as a request of its key, good or bad.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ctllm_ray.base.errors import CtllmError
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.disconnect import ClientDisconnected
from ctllm_ray.serving.api.draining import ShuttingDown
from ctllm_ray.serving.api.errors import Refused, answer_to
from ctllm_ray.serving.api.keys import ANYONE, ApiKey
from ctllm_ray.serving.api.metrics import Metrics

BODY_S = 60.0  # timeout for a whole body
MONITORING_PATHS = {"/health", "/ready", "/metrics"}  # polled by monitoring, also while the server drains
COOKIE = "ctllm_reports"
REPORTS = "/reports"
CLIENT_DISCONNECTED = 499  # nginx's status for a client that disconnected


class AuthMiddleware:
    """ASGI middleware. `public` paths need no key; metrics distinguish `paths`."""

    def __init__(
        self,
        app: ASGIApp,
        served: AppState,
        metrics: Metrics,
        public: Collection[str],
        paths: Collection[str],
    ) -> None:
        self._app, self._served, self._metrics, self._public, self._paths = (
            app,
            served,
            metrics,
            public,
            paths,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        statuses = [CLIENT_DISCONNECTED]  # until another status is sent

        async def count_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        scope.setdefault("state", {})["arrived"] = time.perf_counter()
        path = _path(scope)
        try:
            await self._enter(scope, receive, count_status, path)
        except Exception:
            statuses.append(500)
            raise
        finally:
            known = path if path in self._paths else "other"
            self._metrics.requests.labels(known, str(statuses[-1])).inc()

    async def _enter(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        if path in MONITORING_PATHS:
            await self._admit(scope, receive, send, path)
            return
        try:
            with self._served.draining.request():
                await self._admit(scope, receive, send, path)
        except ShuttingDown as error:  # raised on the way in: no response has begun
            await answer_to(error)(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        try:
            key = ANYONE if path in self._public else await self._key(Headers(scope=scope), path)
            if scope["method"] == "POST":
                await self._served.limits.admit(key)
            body = await self._body(Headers(scope=scope), receive)
        except CtllmError as error:
            await answer_to(error)(scope, receive, send)
            return
        except ClientDisconnected:
            return
        scope["state"]["key"] = key
        await self._app(scope, _replay(body, receive), send)

    async def _key(self, headers: Headers, path: str) -> ApiKey:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        ticket = _cookie(headers.get("cookie", ""))
        if not secret and ticket and path.startswith(REPORTS + "/"):
            return await self._served.keys.visitor(ticket)
        return await self._served.keys.holder(
            secret.strip() if scheme.lower() == "bearer" else "", headers.get("host", "")
        )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        most = self._served.serve.max_body_kb * 1024
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:18]) > most:
            raise _too_large(most)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                while (message := await receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refused(
                f"the request body did not arrive within {BODY_S:g} s", status=408, code="timeout"
            ) from None
        raise ClientDisconnected


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that starts again from the beginning."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _path(scope: Scope) -> str:
    """The path relative to the mount point of the app."""
    return scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _too_large(most: int) -> Refused:
    return Refused(f"the request body is larger than {most // 1024} KB", status=413, code="request_too_large")


def set_cookie(response: Response, ticket: str, scheme: str) -> None:
    """Sets a cookie so that the browser can open reports in a frame, where it cannot send a key."""
    response.set_cookie(
        COOKIE, ticket, path=REPORTS, httponly=True, samesite="strict", secure=scheme == "https", max_age=3600
    )

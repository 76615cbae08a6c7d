"""What stands before the API in a proxy: lost replicas, headers that never end."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ctllm_ray.serving.api.app import create
from ctllm_ray.serving.ray import proxy
from ctllm_ray.serving.ray.proxy import ProxyMiddleware
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.conftest import REPOSITORY
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL, served, until

BODY = {"model": MODEL, "prompt": "一", "max_tokens": 3}


def losing(times: int, app: ASGIApp, begun: bytes = b"", kind: str = "text/event-stream") -> ASGIApp:
    """Ray's proxy: so often it loses its replica, silently as it does, once all of the request was read."""
    left = [times]

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not left[0]:
            await app(scope, receive, send)
            return
        left[0] -= 1
        while (await receive()).get("more_body"):
            pass
        if begun:
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]}
            )
            await send({"type": "http.response.body", "body": begun, "more_body": True})

    return inner


def saying(status: int, text: bytes) -> ASGIApp:
    """A proxy that says something itself, as Ray's does: plain text."""

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        head = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain")],
        }
        await send(head)
        await send({"type": "http.response.body", "body": text})

    return inner


Ask = Callable[..., httpx.Response]


@pytest.fixture
def app(tokenizer: SentencePiece, tmp_path: Path) -> ASGIApp:
    return create(served(ScriptedEngine(), tokenizer, tmp_path))


def ask(
    app: ASGIApp, method: str = "POST", path: str = "/v1/completions", body: dict | None = None
) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(ProxyMiddleware(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=body or BODY)

    return asyncio.run(once())


@pytest.mark.parametrize("times", [1, 2, proxy.ATTEMPTS - 1])
def test_a_replica_that_dies_before_it_answers_is_not_noticed(app: ASGIApp, times: int) -> None:
    [choice] = ask(losing(times, app)).json()["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "length")


def test_a_request_that_changes_something_is_not_sent_twice(app: ASGIApp) -> None:
    answer = ask(losing(1, app), path="/v1/evaluations", body={"tasks": []})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "api_lost")
    assert answer.headers["retry-after"] == "1"


def test_what_is_lost_for_good_is_told_in_openais_shape(app: ASGIApp) -> None:
    answer = ask(losing(proxy.ATTEMPTS, app))
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")


def test_a_stream_that_breaks_ends_with_an_error_event(app: ASGIApp) -> None:
    answer = ask(losing(1, app, begun=b'data: {"choices": []}\n\n'))
    events = answer.text.split("\n\n")
    assert len(events) == 3
    assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "api_lost"


@pytest.mark.parametrize(("status", "expected"), [(404, 404), (408, 408), (500, 503), (503, 503)])
def test_what_the_proxy_says_itself_is_told_in_openais_shape(status: int, expected: int) -> None:
    answer = ask(saying(status, b"ray.exceptions.SomeError: /a/path"), method="GET", path="/v1/models")
    assert answer.status_code == expected
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "path" not in answer.text


def test_an_answer_of_the_api_passes_as_it_is(app: ASGIApp) -> None:
    assert ask(app, body={"model": "x", "prompt": "一"}).json()["error"]["code"] == "model_not_found"
    assert "ctllm_requests" in ask(app, "GET", "/metrics").text
    assert ask(app, "GET", "/nowhere").json()["error"]["code"] == "unknown_url"


@contextmanager
def listening(protocol: type, app: ASGIApp) -> Iterator[int]:
    """The port of a server with this protocol."""
    config = uvicorn.Config(
        app, http=protocol, log_level="warning", timeout_graceful_shutdown=1, lifespan="off"
    )
    taken, server = socket.create_server(("127.0.0.1", 0)), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        until(lambda: server.started)
        yield taken.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        taken.close()


def closed_after(port: int, *parts: bytes) -> float:
    """The seconds until a connection that sends these parts is closed, each after what it is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        for part in parts[:-1]:
            line.sendall(part)
            assert line.recv(65_536).startswith(b"HTTP/1.1 200")
        line.sendall(parts[-1])
        began = time.monotonic()
        while line.recv(65_536):
            pass
        return time.monotonic() - began


@pytest.mark.parametrize("protocol", [H11Protocol, HttpToolsProtocol])
def test_a_connection_whose_headers_never_end_is_closed(
    protocol: type, app: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "HEADER_S", 0.5)
    whole, half = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: loc"
    with listening(proxy.limit_headers(protocol), app) as port:
        for parts in ([half], [whole, half], [whole, whole, half]):
            assert 0.3 < closed_after(port, *parts) < 3.0


@pytest.mark.parametrize("protocol", [H11Protocol, HttpToolsProtocol])
def test_an_answer_may_take_longer_than_headers(
    protocol: type, tokenizer: SentencePiece, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "HEADER_S", 0.2)
    slow = create(served(ScriptedEngine(delay_s=0.05), tokenizer, tmp_path))
    with listening(proxy.limit_headers(protocol), slow) as port, httpx.Client() as client:
        for _ in range(2):
            answer = client.post(
                f"http://127.0.0.1:{port}/v1/completions", json=BODY | {"max_tokens": 12, "stream": True}
            )
            assert answer.text.endswith("[DONE]\n\n")


def test_a_replica_of_the_api_imports_no_torch() -> None:
    """300 MB and several seconds in each, and a new one is to be there soon."""
    code = "import sys, ctllm_ray.serving.ray.ingress; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0

"""An API that plays what a test wrote down: pieces with pauses, refusals, streams that break.

    with playing(Play("春", "天")) as stage:      one answer in two pieces
    Play(status=429, retry_s=2)                  a refusal
    Play("半", ends="broken")                    the connection goes away midway

Plays are used one after the other, the last for all that come later. `stage.asked` has the requests for
answers.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from ctllm_ray.serving.api.app import PAGE, PAGE_HEADERS

KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}


class Play:
    """One answer. `hold` stops it before its last piece until the test lets it go on."""

    def __init__(
        self,
        *pieces: str,
        pause_s: float = 0.0,
        hold: bool = False,
        ends: Literal["done", "short", "broken", "error", "garbage"] = "done",
        finish: str = "stop",
        status: int = 200,
        retry_s: int = 0,
        message: str = "",
        code: str = "",
    ) -> None:
        self.pieces, self.pause_s, self.ends, self.finish = pieces, pause_s, ends, finish
        self.status, self.retry_s, self.message, self.code = status, retry_s, message, code
        self.go_on = threading.Event()
        if not hold:
            self.go_on.set()


@dataclass
class Stage:
    """What the server plays and what it was asked."""

    plays: list[Play]
    chat: bool = False
    id: str = "tiny-1"
    key: str = ""  # that requests must have; empty: none
    lineage: dict[str, Any] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)  # pages by name
    prompt_tokens: int = 7  # of all prompts
    ready: bool = True
    tasks: list[str] = field(default_factory=list)  # that may be evaluated
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # as the API tells of them
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # paths of all requests
    left: threading.Event = field(default_factory=threading.Event)  # a reader went away midway
    url: str = ""

    def next_play(self) -> Play:
        return self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stage: Stage

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.stage.seen.append(path)
        page = PAGE / ("index.html" if path == "/" else path[1:])
        if page.suffix in KINDS and page.is_file():
            self._send(200, page.read_bytes(), {"Content-Type": KINDS[page.suffix], **PAGE_HEADERS})
        elif path == "/ready":
            self._json({}, 200 if self.stage.ready else 503)
        elif path.startswith("/reports/"):
            self._send(
                200, self.stage.reports[path[9:]].encode(), {"Content-Type": "text/html; charset=utf-8"}
            )
        elif self._allowed():
            self._known(path)

    def _known(self, path: str) -> None:
        stage = self.stage
        tokens = stage.lineage.get("tokens", 0)
        about = {
            "chat": stage.chat,
            "context_tokens": 512,
            "lineage": stage.lineage,
            "trained_tokens": tokens,
        }
        model = {"id": stage.id, "object": "model", "created": 0, "owned_by": "ctllm-ray"} | about
        if path == "/v1/models":
            self._json({"object": "list", "data": [model]})
        elif path.startswith("/v1/models/"):
            self._json(model)
        elif path == "/v1/evaluations":
            self._json({"object": "list", "data": stage.evaluations, "tasks": stage.tasks})
        elif path == "/reports":
            self._json({name: name in stage.reports for name in ("clean", "train")})
        else:
            self._refuse(404, "there is no such path", "not_found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        if self.path == "/tokenize":
            self._json({"count": self.stage.prompt_tokens, "max_model_len": 512})
            return
        if self.path.startswith("/v1/evaluations"):
            self.stage.asked.append((self.path, body))
            self._json({})
            return
        self.stage.asked.append((self.path, body))
        play = self.stage.next_play()
        if play.status != 200:
            self._refuse(play.status, play.message, play.code, play.retry_s)
            return
        try:
            self._stream(play, "chat" in self.path)
        except OSError:
            self.stage.left.set()
            self.close_connection = True

    def _stream(self, play: Play, chat: bool) -> None:
        self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for at, piece in enumerate(play.pieces):
            while at == len(play.pieces) - 1 and not play.go_on.wait(0.05):
                self._chunk(": still here\n\n")  # notices a reader that left
            time.sleep(play.pause_s)
            choice = {"delta": {"content": piece}} if chat else {"text": piece}
            self._event({"choices": [{"index": 0, "finish_reason": None, **choice}]})
        if play.ends == "broken":
            self.close_connection = True
            return
        if play.ends == "error":
            self._event({"error": {"message": play.message, "type": "server_error"}})
        elif play.ends == "garbage":
            self._chunk("data: {nothing\n\n")
        elif play.ends == "done":
            choice = {"delta": {}} if chat else {"text": ""}
            self._event({"choices": [{"index": 0, "finish_reason": play.finish, **choice}]})
            counts = {"prompt_tokens": self.stage.prompt_tokens, "completion_tokens": len(play.pieces)}
            self._event({"choices": [], "usage": counts})
            self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, value: Any) -> None:
        self._chunk(f"data: {json.dumps(value)}\n\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.stage.key and given != f"Bearer {self.stage.key}":
            self._refuse(401, "unknown API key" if given else "no API key", "invalid_api_key")
            return False
        return True

    def _refuse(self, status: int, message: str, code: str, retry_s: int = 0) -> None:
        self._json(
            {"error": {"message": message, "type": "error", "param": None, "code": code or None}},
            status,
            {"Retry-After": str(retry_s)} if retry_s else {},
        )

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self._head(status, headers | {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: tests look at `stage`."""


@contextmanager
def playing(*plays: Play, **parts: Any) -> Iterator[Stage]:
    """A server on a free loopback port for as long as the block lasts."""
    stage = Stage(list(plays) or [Play("好")], **parts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Playing", (Handler,), {"stage": stage}))
    server.daemon_threads = True
    stage.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stage
    finally:
        for play in plays:
            play.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()

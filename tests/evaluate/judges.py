"""A scripted judge: an OpenAI-compatible server that answers, refuses, talks nonsense, is slow, or breaks
off.

with judging("评分：[[7]]", 429, Slow(0.2), BROKEN, CutOff("评分：[[1")) as judge:     in turn, and again
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BROKEN = "\x00broken"  # the connection goes away
NO_JSON = "\x00no json"


@dataclass(frozen=True)
class Slow:
    """Says nothing for so long."""

    seconds: float


@dataclass(frozen=True)
class CutOff:
    """Says so much, and its tokens are used up."""

    said: str


@dataclass
class Judge:
    script: list[Any]
    retry_after: str = "0"
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    judge: Judge

    def do_POST(self) -> None:
        judge = self.judge
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with judge.lock:
            play = judge.script[len(judge.asked) % len(judge.script)]
            judge.asked.append(body)
            judge.keys.append(self.headers.get("Authorization", ""))
            judge.times.append(time.monotonic())
        if isinstance(play, Slow):
            time.sleep(play.seconds)
            play = "评分：[[5]]"
        if play == BROKEN:
            self.close_connection = True
            self.connection.close()
        elif isinstance(play, int):
            self._send(
                play,
                {"error": {"message": f"status {play}", "code": "x"}},
                {"Retry-After": judge.retry_after},
            )
        elif play == NO_JSON:
            self._send(200, "<html>", {})
        else:
            said, reason = (play.said, "length") if isinstance(play, CutOff) else (play, "stop")
            message = {"role": "assistant", "content": said}
            self._send(200, {"choices": [{"message": message, "finish_reason": reason}]}, {})

    def _send(self, status: int, value: Any, headers: dict[str, str]) -> None:
        content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: tests look at `judge`."""


@contextmanager
def judging(*script: Any, port: int = 0, **parts: Any) -> Iterator[Judge]:
    """A judge on a loopback port for as long as the block lasts."""
    judge = Judge(list(script), **parts)
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Judging", (Handler,), {"judge": judge}))
    server.daemon_threads = True
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A server on a free loopback port around a scripted engine, and what talks to it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import Engine
from ctllm_ray.serving.api.app import create
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.keys import KeyRing
from ctllm_ray.serving.api.model_card import ModelCard
from ctllm_ray.serving.api.rate_limits import Counters
from ctllm_ray.tokenizer.tokenizer import Tokenizer

MODEL = "tiny-1"


def served(engine: Engine, tokenizer: Tokenizer, folder: Path, **changes: Any) -> AppState:
    """What a server without keys serves; `changes` replace parts."""
    parts = {
        "card": ModelCard(MODEL, engine.context_tokens, lineage={"step": 64}),
        "keys": KeyRing(str(folder / "keys.json")),
        "limits": Counters(str(folder / "usage.json")),
        "serve": Serve(max_body_kb=256),
    }
    return AppState(engine, tokenizer, **parts | changes)


class QuickToEnd(uvicorn.Server):
    """Looks every hundredth of a second whether it is to end, and not every tenth: hundreds of tests have a server."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.01)


@contextmanager
def running(what: AppState) -> Iterator[str]:
    """The URL of a server for as long as the block lasts."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = QuickToEnd(uvicorn.Config(create(what), log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def until(there: Callable[[], bool], at_most_s: float = 30.0) -> None:
    """Waits for something that comes; fails where it does not."""
    end = time.monotonic() + at_most_s
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@dataclass
class Client:
    """Requests to one server with the model filled in."""

    http: httpx.Client
    served: AppState

    def complete(self, prompt: Any, **fields: Any) -> dict[str, Any]:
        return self._asked("/v1/completions", {"prompt": prompt, **fields})

    def chat(self, *contents: Any, **fields: Any) -> dict[str, Any]:
        roles = ("user", "assistant")
        messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
        return self._asked("/v1/chat/completions", {"messages": messages, **fields})

    def stream(self, path: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of a stream that ends well."""
        events = self.raw_stream(path, **fields)
        assert events[-1] == "[DONE]"
        return [json.loads(event) for event in events[:-1]]

    def raw_stream(self, path: str, **fields: Any) -> list[str]:
        """What stands behind `data: ` in each event."""
        answer = self.http.post(path, json={"model": MODEL, "stream": True, **fields})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = answer.text.split("\n\n")
        assert events.pop() == ""
        assert all(event.startswith("data: ") for event in events)
        return [event.removeprefix("data: ") for event in events]

    def _asked(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(path, json={"model": MODEL, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

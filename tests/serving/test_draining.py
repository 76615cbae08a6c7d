"""A server that ends: no new requests, those under way get their time, and who is cut is told."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from ctllm_ray.serving.api.draining import Draining, DrainOutcome, ShuttingDown
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL, Client, until
from tests.serving.conftest import Start

PATH = "/v1/completions"


def ask(client: Client, stream: bool, max_tokens: int) -> httpx.Response:
    body = {"model": MODEL, "prompt": [70, 71], "max_tokens": max_tokens, "stream": stream}
    return httpx.post(f"{client.http.base_url}{PATH}", json=body, timeout=60)


def drain(client: Client, grace_s: float) -> Future[DrainOutcome]:
    """Ends the server, in the event loop in which it runs."""
    loop = client.served.limits.loop  # type: ignore[attr-defined]
    return asyncio.run_coroutine_threadsafe(client.served.draining.drain(grace_s), loop)


class Loop:
    """Limits that nobody has; they know the event loop of the server."""

    async def admit(self, key: Any) -> None:
        self.loop = asyncio.get_running_loop()

    async def reserve(self, key: Any, id_: str, tokens: int) -> None: ...

    async def settle(self, key: Any, id_: str, tokens: int) -> None: ...

    async def close(self) -> None: ...


def of(start: Start, engine: ScriptedEngine) -> Client:
    client = start(engine, limits=Loop())
    client.complete([70], max_tokens=1)
    return client


def test_what_is_under_way_ends_and_nothing_new_is_taken(start: Start) -> None:
    engine = ScriptedEngine(context_tokens=256, delay_s=0.01)
    client = of(start, engine)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, client, at % 2 == 0, 60) for at in range(4)]
        until(lambda: len(engine.seen) == 5)
        ended = drain(client, 30.0)
        until(lambda: client.http.get("/ready").status_code == 503)
        late = ask(client, True, 5)
        answers = [each.result() for each in asked]
    assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
    assert late.headers["retry-after"] == "5"
    assert client.http.get("/health").status_code == 200
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.text.endswith("data: [DONE]\n\n") for answer in answers] == [True, False] * 2
    assert ended.result() == DrainOutcome(finished=4, cut=0)


def test_what_does_not_end_in_time_is_told_that_it_is_cut(start: Start) -> None:
    engine = ScriptedEngine(context_tokens=100_000, delay_s=0.01)
    client = of(start, engine)
    with ThreadPoolExecutor(3) as pool:
        stream, whole, short = (
            pool.submit(ask, client, *each) for each in ((True, 9000), (False, 9000), (True, 20))
        )
        until(lambda: len(engine.seen) == 4)
        began = time.monotonic()
        ended = drain(client, 1.0).result()
        assert 1.0 <= time.monotonic() - began < 3.0
        events = stream.result().text.split("\n\n")
    assert ended == DrainOutcome(finished=1, cut=2)
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert json.loads(events[-3].removeprefix("data: "))["choices"]
    assert (whole.result().status_code, whole.result().json()["error"]["code"]) == (503, "shutting_down")
    assert short.result().text.endswith("data: [DONE]\n\n")
    assert engine.cancelled == 2  # their slots are free


def test_nobody_is_waited_for_where_nothing_is_under_way() -> None:
    async def run() -> DrainOutcome:
        draining = Draining()
        ended = await draining.drain(60.0)
        with pytest.raises(ShuttingDown), draining.request():
            pass
        return ended

    began = time.monotonic()
    assert asyncio.run(run()) == DrainOutcome(0, 0)
    assert time.monotonic() - began < 10

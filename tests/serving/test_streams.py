"""Clients that go away, read slowly or meet an engine that dies: slots come free, memory stays, no half
answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx
import pytest

from ctllm_ray.base.errors import EngineFailed
from ctllm_ray.serving.api import auth, disconnect
from ctllm_ray.serving.api.generation import merge
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.inference import tiny_engines
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL, Client, until
from tests.serving.conftest import Start

PATH = "/v1/completions"


def running(engine: ScriptedEngine) -> int:
    load = asyncio.run(engine.load())
    return load.running + load.waiting


@pytest.mark.parametrize(
    "fields", [{"stream": True}, {}, {"n": 3}, {"n": 3, "stream": True}, {"prompt": ["一"] * 9}]
)
def test_a_client_that_goes_away_frees_its_slots(start: Start, fields: dict) -> None:
    engine = ScriptedEngine(context_tokens=4096, delay_s=0.01, slots=4)
    client = start(engine)
    body = json.dumps({"model": MODEL, "prompt": "一", "max_tokens": 1500, **fields}).encode()
    with vanishing(client, body):
        until(lambda: running(engine) > 0)
    until(lambda: running(engine) == 0)
    assert engine.cancelled == len(engine.seen)
    assert 'status="499"' in client.http.get("/metrics").text or fields.get("stream")


def test_a_client_that_goes_away_frees_the_slot_of_a_model(start: Start, tokenizer: SentencePiece) -> None:
    shape = replace(tiny_engines.SHAPE, vocab_size=tokenizer.vocab_size, context_tokens=4096)
    with tiny_engines.engine(shape) as engine:
        client = start(engine)
        body = json.dumps(
            {"model": MODEL, "prompt": [70], "max_tokens": 4000, "ignore_eos": True, "stream": True}
        )
        with vanishing(client, body.encode()):
            until(lambda: asyncio.run(engine.load()).used_tokens > 10)
        until(lambda: asyncio.run(engine.load()).running == 0)
        assert client.complete([70], max_tokens=3)["usage"]["completion_tokens"] == 3


def vanishing(client: Client, body: bytes, declared: int = 0) -> socket.socket:
    """A client that sent a request; it vanishes at the end of the block."""
    line = socket.create_connection(("127.0.0.1", client.http.base_url.port or 0))
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    line.sendall(f"{head}Content-Length: {declared or len(body)}\r\n\r\n".encode() + body)
    return line


def test_a_client_that_reads_nothing_holds_up_its_own_answer_only(start: Start) -> None:
    engine = ScriptedEngine(context_tokens=2_000_000, slots=2)
    client = start(engine)
    body = json.dumps({"model": MODEL, "prompt": [70, 71], "max_tokens": 1_900_000, "stream": True}).encode()
    with vanishing(client, body):
        before, now = -1, used(engine)
        while now != before:  # until the connection's buffers are full
            assert client.complete([70], max_tokens=50)["choices"]
            before, now = now, used(engine)
        assert 0 < now < 1_000_000
    until(lambda: running(engine) == 0)


def test_a_client_that_takes_nothing_for_long_is_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disconnect, "SEND_S", 0.2)
    engine = ScriptedEngine(context_tokens=500_000)
    body = {"model": MODEL, "prompt": [70, 71], "max_tokens": 400_000, "stream": True}
    with vanishing(start(engine), json.dumps(body).encode()):
        until(lambda: running(engine) > 0)
        until(lambda: running(engine) == 0)
    assert engine.cancelled == 1


def test_a_body_that_does_not_come_is_not_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "BODY_S", 0.1)
    with vanishing(start(), b'{"model"', declared=500) as line:
        assert line.recv(12) == b"HTTP/1.1 408"


def used(engine: ScriptedEngine) -> int:
    return asyncio.run(engine.load()).used_tokens


def test_an_engine_that_dies_in_the_midst_ends_the_stream_with_an_error(start: Start) -> None:
    client = start(ScriptedEngine(fails_after=3))
    for path, asked in (
        (PATH, {"prompt": "一"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "一"}]}),
    ):
        events = client.raw_stream(path, max_tokens=9, **asked)
        assert "[DONE]" not in events
        assert json.loads(events[-1])["error"]["code"] == "engine_failed"
        answer = client.http.post(path, json={"model": MODEL, "max_tokens": 9, **asked})
        assert answer.status_code == 503


def test_sixteen_streams_at_once_each_get_their_own(start: Start) -> None:
    client = start(ScriptedEngine(slots=4, delay_s=0.001))

    async def all_of_them() -> list[str]:
        async with httpx.AsyncClient(base_url=client.http.base_url) as http:
            bodies = [
                {"model": MODEL, "prompt": [70 + i], "max_tokens": 20, "stream": True} for i in range(16)
            ]
            answers = await asyncio.gather(*(http.post(PATH, json=body) for body in bodies))
        return [answer.text for answer in answers]

    texts = asyncio.run(all_of_them())
    for i, text in enumerate(texts):
        events = [json.loads(event[6:]) for event in text.split("\n\n")[:-2]]
        said = "".join(event["choices"][0]["text"] for event in events)
        assert said == client.complete([70 + i], max_tokens=20)["choices"][0]["text"]


class Source:
    """Numbers, and whether whoever reads them said that they are done."""

    def __init__(self, count: int, fails: bool = False) -> None:
        self.count, self.fails, self.given, self.closed = count, fails, 0, False

    async def items(self) -> AsyncGenerator[int]:
        try:
            for at in range(self.count):
                await asyncio.sleep(0)
                self.given += 1
                yield at
            if self.fails:
                raise EngineFailed("the script says so")
        finally:
            self.closed = True


def test_merging_gives_all_items_and_opens_so_many_at_a_time() -> None:
    sources = [Source(5) for _ in range(9)]
    opened = []

    async def run() -> list[int]:
        found = []
        async for item in merge([source.items() for source in sources], 3):
            found.append(item)
            opened.append(sum(source.given > 0 and not source.closed for source in sources))
        return found

    assert sorted(asyncio.run(run())) == sorted([*range(5)] * 9)
    assert max(opened) <= 3


def test_merging_ends_all_at_the_first_error_and_when_its_reader_leaves() -> None:
    async def read(sources: list[Source], most: int) -> None:
        items = merge([source.items() for source in sources], 8)
        for _ in range(most):
            await anext(items)
        await items.aclose()

    failing = [Source(10_000), Source(2, fails=True)]
    with pytest.raises(EngineFailed):
        asyncio.run(read(failing, 100_000))
    left = [Source(10_000), Source(10_000)]
    asyncio.run(read(left, 10))
    for source in (*failing, *left):
        assert source.closed
        assert source.given < 1000

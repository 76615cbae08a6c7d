"""Requests in any minute, tokens in a day: exact, told with the time to wait, kept over restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ctllm_ray.base.errors import Overloaded
from serve import keys, limits
from serve.keys import ANYONE, Key
from serve.limits import Counters
from tests.inference.scripted_engine import ScriptedEngine
from tests.serve.apps import MODEL
from tests.serve.conftest import Start

NOON = 20_000 * 86_400 + 43_200.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def admitted(counters: Counters, key: Key) -> float:
    """0 where the request may go on, else the seconds to wait."""
    try:
        asyncio.run(counters.admit(key))
    except Overloaded as error:
        return error.retry_s
    return 0.0


def test_no_minute_has_more_requests_than_the_key_may() -> None:
    clock = Clock()
    counters, key = Counters(clock=clock), Key(name="a", requests_per_minute=3)
    taken = []
    for _ in range(600):
        if not admitted(counters, key):
            taken.append(clock.now)
        clock.now += 0.5
    assert len(taken) == 15  # 300 s
    assert all(later - first >= 60 for first, later in zip(taken, taken[3:], strict=False))


def test_who_waits_as_long_as_told_is_let_in() -> None:
    clock = Clock()
    counters, key = Counters(clock=clock), Key(name="a", requests_per_minute=2)
    for wait in (0.0, 7.0):
        clock.now += wait
        assert admitted(counters, key) == 0
    clock.now += 3
    assert admitted(counters, key) == 50
    clock.now += 50
    assert admitted(counters, key) == 0
    assert admitted(counters, key) == 7


def test_keys_do_not_count_for_each_other_and_no_limit_is_none() -> None:
    counters = Counters(clock=Clock())
    for name in ("a", "b"):
        assert admitted(counters, Key(name=name, requests_per_minute=1)) == 0
    assert [admitted(counters, ANYONE) for _ in range(100)] == [0] * 100
    lowered = Key(name="a", requests_per_minute=1)
    assert admitted(counters, lowered) == 60


def test_a_day_of_tokens_ends_at_midnight() -> None:
    clock = Clock()
    counters, key = Counters(clock=clock), Key(name="a", tokens_per_day=100)
    asyncio.run(counters.spend(key, 99))
    assert admitted(counters, key) == 0
    asyncio.run(counters.spend(key, 50))
    assert admitted(counters, key) == 43_200
    clock.now += 43_200
    assert admitted(counters, key) == 0


def test_counts_outlive_a_restart(tmp_path: Path) -> None:
    clock, uri = Clock(), str(tmp_path / "usage.json")
    key = Key(name="a", requests_per_minute=1, tokens_per_day=10)

    async def first() -> None:
        counters = Counters(uri, clock)
        await counters.admit(key)
        await counters.spend(key, 4)
        await counters.close()

    asyncio.run(first())
    clock.now += 1
    again = Counters(uri, clock)
    assert admitted(again, key) == 59
    clock.now += 60
    asyncio.run(again.spend(key, 6))
    assert admitted(again, key) > 60
    clock.now += 86_400
    assert admitted(Counters(uri, clock), key) == 0


def test_counts_are_written_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SAVE_S", 0.0)
    uri = tmp_path / "usage.json"
    key = Key(name="a", tokens_per_day=10)

    async def run() -> None:
        counters = Counters(str(uri), Clock())
        await counters.spend(key, 4)
        while not uri.exists():
            await asyncio.sleep(0.001)
        await counters.spend(key, 5)
        while '"a": 9' not in uri.read_text():
            await asyncio.sleep(0.001)

    asyncio.run(run())


def test_the_api_counts_requests_and_tokens_of_a_key(start: Start, tmp_path: Path) -> None:
    uri = str(tmp_path / "keys.json")
    slow, spent = keys.create(uri, "slow", requests_per_minute=2), keys.create(uri, "spent", tokens_per_day=10)
    client = start(ScriptedEngine())
    body = {"model": MODEL, "prompt": [70, 71, 72, 73], "max_tokens": 6}

    def ask(secret: str, **fields: object) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {secret}"}
        answer = client.http.post("/v1/completions", json=body | fields, headers=headers)
        retry = answer.headers.get("retry-after", "")
        assert bool(retry) == (answer.status_code == 429)
        return answer.status_code, answer.json()["error"]["code"] if retry else ""

    assert [ask(slow)[0], ask(slow, n="wrong")[0]] == [200, 400]
    assert ask(slow) == (429, "rate_limit_exceeded")
    assert ask(spent)[0] == 200
    assert ask(spent) == (429, "insufficient_quota")

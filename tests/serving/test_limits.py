"""Requests in any minute, tokens in a day: exact, told with the time to wait, kept over restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from ctllm_ray.base.errors import Overloaded
from ctllm_ray.serving.api import keys, rate_limits
from ctllm_ray.serving.api.keys import ANYONE, ApiKey
from ctllm_ray.serving.api.rate_limits import Counters
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL, Client, until
from tests.serving.conftest import Start

NOON = 20_000 * 86_400 + 43_200.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def admitted(counters: Counters, key: ApiKey) -> float:
    """0 where the request may go on, else the seconds to wait."""
    try:
        asyncio.run(counters.admit(key))
    except Overloaded as error:
        return error.retry_s
    return 0.0


def test_no_minute_has_more_requests_than_the_key_may() -> None:
    clock = Clock()
    counters, key = Counters(clock=clock), ApiKey(name="a", requests_per_minute=3)
    taken = []
    for _ in range(600):
        if not admitted(counters, key):
            taken.append(clock.now)
        clock.now += 0.5
    assert len(taken) == 15  # 300 s
    assert all(later - first >= 60 for first, later in zip(taken, taken[3:], strict=False))


def test_who_waits_as_long_as_told_is_let_in() -> None:
    clock = Clock()
    counters, key = Counters(clock=clock), ApiKey(name="a", requests_per_minute=2)
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
        assert admitted(counters, ApiKey(name=name, requests_per_minute=1)) == 0
    assert [admitted(counters, ANYONE) for _ in range(100)] == [0] * 100
    lowered = ApiKey(name="a", requests_per_minute=1)
    assert admitted(counters, lowered) == 60


def test_a_day_of_tokens_ends_at_midnight() -> None:
    clock = Clock()
    counters, key = Counters(clock=clock), ApiKey(name="a", tokens_per_day=100)
    asyncio.run(counters.settle(key, "1", 99))
    assert admitted(counters, key) == 0
    asyncio.run(counters.settle(key, "2", 50))
    assert admitted(counters, key) == 43_200
    clock.now += 43_200
    assert admitted(counters, key) == 0


def reserved(counters: Counters, key: ApiKey, id_: str, tokens: int) -> float:
    """0 where the tokens are set aside, else the seconds to wait."""
    try:
        asyncio.run(counters.reserve(key, id_, tokens))
    except Overloaded as error:
        return error.retry_s
    return 0.0


def test_what_is_reserved_nobody_else_gets_and_what_was_not_used_comes_back() -> None:
    counters, key = Counters(clock=Clock()), ApiKey(name="a", tokens_per_day=300)
    assert [reserved(counters, key, id_, 120) for id_ in "xyz"] == [0, 0, 1]
    asyncio.run(counters.settle(key, "x", 20))
    assert reserved(counters, key, "z", 160) == 0
    asyncio.run(counters.settle(key, "z", 0))
    asyncio.run(counters.settle(key, "y", 120))
    assert reserved(counters, key, "w", 161) == 43_200  # 140 are used: no waiting for others helps
    assert reserved(counters, key, "w", 160) == 0
    assert reserved(counters, ApiKey(name="b", tokens_per_day=300), "w2", 300) == 0
    assert reserved(counters, ANYONE, "w3", 10**9) == 0


def test_what_nobody_settles_lapses_and_still_counts_when_it_ends() -> None:
    clock = Clock()
    counters, key = Counters(clock=clock), ApiKey(name="a", tokens_per_day=300)
    assert reserved(counters, key, "x", 300) == 0
    clock.now += rate_limits.RESERVED_S - 1
    assert reserved(counters, key, "y", 300) > 0
    clock.now += 1
    assert reserved(counters, key, "y", 300) == 0
    asyncio.run(counters.settle(key, "x", 300))
    assert admitted(counters, key) > 0


def test_counts_outlive_a_restart(tmp_path: Path) -> None:
    clock, uri = Clock(), str(tmp_path / "usage.json")
    key = ApiKey(name="a", requests_per_minute=1, tokens_per_day=10)

    async def first() -> None:
        counters = Counters(uri, clock)
        await counters.admit(key)
        await counters.settle(key, "1", 4)
        await counters.close()

    asyncio.run(first())
    clock.now += 1
    again = Counters(uri, clock)
    assert admitted(again, key) == 59
    clock.now += 60
    asyncio.run(again.settle(key, "2", 6))
    assert admitted(again, key) > 60
    clock.now += 86_400
    assert admitted(Counters(uri, clock), key) == 0


def test_counts_are_written_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "SAVE_S", 0.0)
    uri = tmp_path / "usage.json"
    key = ApiKey(name="a", tokens_per_day=10)

    async def run() -> None:
        counters = Counters(str(uri), Clock())
        await counters.settle(key, "1", 4)
        while not uri.exists():
            await asyncio.sleep(0.001)
        await counters.settle(key, "2", 5)
        while '"a": 9' not in uri.read_text():
            await asyncio.sleep(0.001)

    asyncio.run(run())


def test_the_api_counts_requests_and_tokens_of_a_key(start: Start, tmp_path: Path) -> None:
    uri = str(tmp_path / "keys.json")
    slow, spent = (
        keys.create_key(uri, "slow", requests_per_minute=2),
        keys.create_key(uri, "spent", tokens_per_day=10),
    )
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


def crowd(client: Client, secret: str, count: int, **fields: object) -> list[httpx.Response]:
    """The answers to so many requests at once."""
    body = {"model": MODEL, "prompt": [70] * 20, "max_tokens": 100, **fields}

    async def all_of_them() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=client.http.base_url, headers=headers, timeout=60) as http:
            return await asyncio.gather(*(http.post("/v1/completions", json=body) for _ in range(count)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("stream", [False, True])
def test_requests_side_by_side_never_take_more_than_the_day_has(
    start: Start, tmp_path: Path, stream: bool
) -> None:
    secret = keys.create_key(str(tmp_path / "keys.json"), "a", tokens_per_day=300)
    client = start(ScriptedEngine(context_tokens=256, delay_s=0.001))
    answers = crowd(client, secret, 30, stream=stream)
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 28
    assert all(answer.json()["error"]["code"] for answer in answers if answer.status_code == 429)
    assert [answer.status_code for answer in crowd(client, secret, 1, stream=stream)] == [429]
    assert [answer.status_code for answer in crowd(client, secret, 1, max_tokens=40)] == [200]  # 60 were left


def test_what_fails_is_refused_or_loses_its_client_gives_back_what_it_did_not_use(
    start: Start, tmp_path: Path
) -> None:
    secret = keys.create_key(str(tmp_path / "keys.json"), "a", tokens_per_day=320)
    engine = ScriptedEngine(context_tokens=256, delay_s=0.01, full=True)
    client = start(engine)
    assert [each.status_code for each in crowd(client, secret, 9)] == [429] * 9
    assert [each.status_code for each in crowd(client, secret, 9, max_tokens=240)] == [400] * 9
    engine.full, engine.fails_after = False, 10
    assert crowd(client, secret, 1)[0].status_code == 503  # took 30
    engine.fails_after = None
    body = {"model": MODEL, "prompt": [70] * 20, "max_tokens": 200, "stream": True}
    with client.http.stream(
        "POST", "/v1/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
    ) as one:
        next(one.iter_lines())
    until(lambda: crowd(client, secret, 1, max_tokens=190)[0].status_code == 200)

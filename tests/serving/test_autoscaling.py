"""Replicas follow the load: they come, they go, all of them by choice, and nobody who asks notices more than a wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ctllm_ray.serving.ray import application
from tests.serving.test_ray_serve import Running, engines, recipe, root, streamed  # noqa: F401  # `root` is a fixture

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

WAIT_S = 180  # Ray averages the load over half a minute
ASKED = {"prompt": "很久以前", "max_tokens": 150}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{len(engines())} replicas"
        time.sleep(0.5)


def watched(url: str) -> bool:
    """True where the server says that it is well, as a load balancer and Prometheus ask it."""
    answers = [httpx.get(f"{url}/{path}", timeout=30) for path in ("health", "ready", "metrics")]
    return [answer.status_code for answer in answers] == [200] * 3 and "ctllm_engine_up 1.0" in answers[
        2
    ].text


@contextmanager
def asking(server: Running, clients: int) -> Iterator[list[str]]:
    """So many clients that ask again and again, whole or streamed; gives what they were told, errors included."""
    done, told = threading.Event(), []

    def ask(stream: bool) -> None:
        while not done.is_set():
            try:
                told.append("".join(streamed(server, **ASKED)) if stream else server.text(**ASKED))
            except (httpx.HTTPError, AssertionError) as error:
                told.append(f"failed: {error}")

    with ThreadPoolExecutor(clients) as pool:
        for client in range(clients):
            pool.submit(ask, client % 2 == 0)
        try:
            yield told
        finally:
            done.set()


def test_replicas_come_with_load_go_without_and_come_back_from_zero(root: Path, cluster: None) -> None:  # noqa: F811
    served = recipe(root, replicas=[0, 2], target_requests=2, idle_s=2)
    with application.serving(served) as url:
        server = Running(url, served)
        undisturbed = server.text(**ASKED)
        until(lambda: watched(url) and len(engines()) == 0)  # and watching it keeps nothing awake
        assert watched(url)  # the API is there all the time
        assert server.text(**ASKED) == undisturbed  # waited for a replica
        assert len(engines()) == 1
        with asking(server, 6) as told:
            until(lambda: len(engines()) == 2)
        with asking(server, 1) as fewer:
            until(lambda: len(engines()) == 1)  # while it is asked on: what is under way is finished first
        assert len(fewer) > 3
        assert {*told, *fewer} == {undisturbed}
        until(lambda: len(engines()) == 0)
        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(lambda: "".join(streamed(server, **ASKED))) for _ in range(4)]
            assert {stream.result() for stream in streams} == {undisturbed}

"""Ray starts on a busy machine, or says truly why not; signals are answered while it starts; nothing is left
behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from ctllm_ray import ray_session
from ctllm_ray.base.errors import NoCluster
from ctllm_ray.ray_session import session
from tests.conftest import REPOSITORY

ANSWER_S = 10  # for a signal to end a start: Ray itself takes up to a minute
FAILURE = "The current node timed out during startup."


@pytest.fixture
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def failing(times: int, started: list[subprocess.Popen[bytes]]) -> Callable[..., None]:
    """A `ray.init` that leaves a process behind and fails so many times."""

    def init(*given: Any, **named: Any) -> None:
        started.append(subprocess.Popen(["sleep", "600"]))
        if len(started) <= times:
            raise RuntimeError(FAILURE)

    return init


def test_a_start_that_fails_is_made_once_more_and_leaves_no_process(
    no_address: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(ray, "init", failing(1, started))
    with session(2, 100):
        assert [process.poll() is None for process in started] == [False, True]
    started[1].kill()
    started[1].wait()


def test_a_ray_that_does_not_start_says_how_busy_the_machine_is_and_not_a_word_of_an_address(
    no_address: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(ray, "init", failing(9, started))
    with pytest.raises(NoCluster, match="Ray did not start on this machine") as refused, session(2, 100):
        pass
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)
    assert "load" in refused.value.where
    assert "RAY_ADDRESS" not in str(refused.value)


def test_an_address_that_was_given_is_named_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(NoCluster, match="cannot connect to Ray") as refused, session(2, 100):
        pass
    assert refused.value.where == "RAY_ADDRESS=127.0.0.1:1"


def test_rays_processes_are_given_time_for_each_other(
    no_address: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    def init(*given: Any, **named: Any) -> None:
        seen.update({name: os.environ[name] for name in ray_session.LIMITS})
        looks = iter([RuntimeError("not yet"), RuntimeError("not yet"), "the node"])

        def look(*_: Any) -> Any:
            found = next(looks)
            if isinstance(found, RuntimeError):
                raise found
            return found

        seen["node"] = ray_session._patient(look)("address", "id")

    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "7")  # a person's own
    monkeypatch.setattr(ray, "init", init)
    with session(2, 100):
        pass
    assert seen == ray_session.LIMITS | {"RAY_raylet_start_wait_time_s": "7", "node": "the node"}
    assert "RAY_agent_register_timeout_ms" not in os.environ


def test_a_look_for_a_port_is_short_however_long_ray_would_let_it_hold_all_threads() -> None:
    looks: list[int] = []

    def look(name: str, *, timeout_ms: int) -> int:
        looks.append(timeout_ms)
        if len(looks) < 3:
            raise RuntimeError("not yet")
        return 6379

    assert ray_session._patient(look, timeout_ms=1)("gcs_server", timeout_ms=30_000) == 6379
    assert looks == [1, 1, 1]


@pytest.mark.cluster
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_start_at_once_and_all_that_was_started(tmp_path: Path, sent: int, code: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "ctllm_ray", "prepare", "jobs/recipes/tiny.yaml", f"root={tmp_path}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
    begun = wait_for_child(process, "gcs_server")
    clock = time.monotonic()
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - clock < ANSWER_S
    assert process.returncode == code
    assert "Traceback" not in error
    assert not [child for child in begun if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def wait_for_child(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The children of a process, as soon as one of them has this name."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
            if any(name in child.name() for child in children):
                return children
        time.sleep(0.02)
    raise AssertionError(f"no {name}")

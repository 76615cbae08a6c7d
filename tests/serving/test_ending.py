"""`ctllm serve` ends: drained by a signal, told what happened, at once by a second one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.serving.test_ray_serve import recipe, root  # noqa: F401  # `root` is a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.streams: list[str] = []

    def stream(self, max_tokens: int) -> threading.Thread:
        """Begins a stream; gives the thread that reads it into `streams`, when its first event is there."""
        came = threading.Event()

        def read() -> None:
            body = {
                "model": "tiny-1",
                "prompt": "春",
                "max_tokens": max_tokens,
                "ignore_eos": True,
                "stream": True,
            }
            text = ""
            try:
                with httpx.stream("POST", f"{self.url}/v1/completions", json=body, timeout=120) as answer:
                    for part in answer.iter_text():
                        text += part
                        came.set()
            except httpx.HTTPError as error:
                text += f"broken: {type(error).__name__}"
            self.streams.append(text)

        thread = threading.Thread(target=read)
        thread.start()
        assert came.wait(60)
        return thread

    def end(self, *signals: int) -> str:
        """What it says after signals, each a moment after the one before."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.5)
        return self.process.communicate(timeout=120)[0]


@contextmanager
def serving(root: Path, **settings: object) -> Iterator[Server]:  # noqa: F811
    """`ctllm serve` until it is up."""
    file = root / "served.yaml"
    file.write_text(yaml.safe_dump(recipe(root, **settings).model_dump(mode="json", exclude_defaults=True)))
    command = [sys.executable, "-m", "ctllm_ray", "serve", str(file)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    try:
        assert first.startswith("http"), first + (
            process.communicate(timeout=60)[0] if process.poll() else ""
        )
        process.stdout.readline()
        yield Server(process, first.split(" ", 1)[0])
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()


def test_a_signal_lets_streams_end_and_says_how_many_did(root: Path) -> None:  # noqa: F811
    with serving(root) as server:
        threads = [server.stream(200) for _ in range(4)]
        said = server.end(signal.SIGTERM)
        for thread in threads:
            thread.join()
    assert server.process.returncode == 0
    assert [text.endswith("data: [DONE]\n\n") for text in server.streams] == [True] * 4
    assert re.search(r"of (\d) running requests \1 finished|no request was running", said)
    assert "cut" not in said
    assert "run the same command again" not in said
    assert "(raylet)" not in said


def test_streams_that_do_not_end_in_time_are_told_and_counted(root: Path) -> None:  # noqa: F811
    with serving(root, drain_s=0.2) as server:
        threads = [server.stream(250) for _ in range(3)]
        said = server.end(signal.SIGINT)
        for thread in threads:
            thread.join()
    told = [text for text in server.streams if "shutting_down" in text]
    whole = [text for text in server.streams if text.endswith("data: [DONE]\n\n")]
    assert len(told) + len(whole) == 3
    assert not told or f"{len(told)} were cut" in said


def test_a_second_signal_ends_at_once_and_leaves_no_process(root: Path) -> None:  # noqa: F811
    with serving(root) as server:
        thread = server.stream(250)
        began = time.monotonic()
        said = server.end(signal.SIGINT, signal.SIGINT)
        thread.join()
    assert time.monotonic() - began < 10
    assert server.process.returncode == 130
    assert "ended at once" in said

"""A tokenizer trained in a second, and servers around scripted engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctllm_ray.inference.engine import Engine
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train
from tests.inference.scripted_engine import ScriptedEngine
from tests.serve.apps import Client, running, served
from tests.tokenizer.conftest import document

Start = Callable[..., Client]


@pytest.fixture(scope="session")
def tokenizer() -> SentencePiece:
    return SentencePiece(train([document(seed) for seed in range(400)], 900))


@pytest.fixture
def start(tokenizer: SentencePiece, tmp_path: Path) -> Iterator[Start]:
    """Starts a server around an engine (by default one that echoes) and gives a client of it."""
    with ExitStack() as open_:

        def started(engine: Engine | None = None, **changes: Any) -> Client:
            what = served(
                engine or ScriptedEngine(), changes.pop("tokenizer", tokenizer), tmp_path, **changes
            )
            url = open_.enter_context(running(what))
            return Client(open_.enter_context(httpx.Client(base_url=url, timeout=60)), what)

        yield started

"""A tokenizer trained in a second, and servers around scripted engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ctllm_ray.inference.engine import Engine
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train
from tests.evaluate.conftest import exam_rows, lines
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving import apps
from tests.serving.apps import Client
from tests.tokenizer.conftest import document

if TYPE_CHECKING:
    from tests.serving.test_ray_serve import Running

Start = Callable[..., Client]


@pytest.fixture(scope="session")
def tokenizer() -> SentencePiece:
    return SentencePiece(train([document(seed) for seed in range(400)], 900))


@pytest.fixture
def start(tokenizer: SentencePiece, tmp_path: Path) -> Iterator[Start]:
    """Starts a server around an engine (by default one that echoes) and gives a client of it."""
    with ExitStack() as open_:

        def started(engine: Engine | None = None, **changes: Any) -> Client:
            what = apps.served(
                engine or ScriptedEngine(), changes.pop("tokenizer", tokenizer), tmp_path, **changes
            )
            url = open_.enter_context(apps.running(what))
            return Client(open_.enter_context(httpx.Client(base_url=url, timeout=60)), what)

        yield started


@pytest.fixture(scope="package")
def running(
    cluster: None, tokenizer: SentencePiece, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A small model on Ray Serve, two replicas of it and evaluations beside them: one for all tests that need one.

    Each leaves it as it was, with the same model and as many replicas; test_running_keys.py comes last and locks it.
    """
    from ctllm_ray.serving.ray import application
    from tests.serving.test_ray_serve import Running, recipe, write_model

    root = tmp_path_factory.mktemp("served")
    write_model(root / "model", tokenizer)
    tasks = [{"use": "cmmlu", "path": lines(root / "exam.jsonl", exam_rows()), "shots": 0}]
    served = recipe(root, {"tasks": tasks, "resamples": 50}, replicas=[2, 2])
    with application.serving(served) as url:
        yield Running(url, served)

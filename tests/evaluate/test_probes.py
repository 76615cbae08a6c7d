"""Results of a served model are not given again once another model answers; batch noise is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, VersionConflict
from ctllm_ray.evaluate import run
from ctllm_ray.evaluate.models import openai_model, probes
from ctllm_ray.evaluate.models.concurrency import Runner, own_loop
from ctllm_ray.evaluate.models.model_under_test import Continuation
from ctllm_ray.evaluate.models.probes import Answers, Probes
from ctllm_ray.inference.engine import Token
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.evaluate.conftest import SERVE, SHAPE
from tests.evaluate.test_run import quiet, recipe
from tests.serving.apps import running, served


class Noisy:
    """A model whose log-probabilities have noise of so many nats, as those of a server that batches have."""

    context_tokens = 4096

    def __init__(self, model: int, noise_nats: float = 0.0, seed: int = 0, tells: bool = True) -> None:
        self._model, self._noise, self._tells = model, noise_nats, tells
        self._random = np.random.default_rng(seed)

    async def logprobs(self, ids: Sequence[int], start: int, others: Sequence[int]) -> list[Token]:
        if not self._tells:
            raise InputError("the API gives no log-probabilities of prompts")
        true = np.random.default_rng([self._model, *ids]).gamma(1.0, 2.0, len(ids))[start:]
        told = -true + self._random.normal(0, self._noise, len(true))
        return [Token(id_, float(p), ((id_, float(p)),)) for id_, p in zip(ids[start:], told, strict=True)]

    async def generate(self, ids: Sequence[int], wanted: Continuation) -> str:
        flips = self._noise > 0 and self._random.random() < 0.1
        return str([self._model, sum(ids), flips])


@pytest.fixture
def runner() -> Iterator[Runner]:
    with own_loop() as loop:
        yield Runner(loop)


@pytest.mark.parametrize("noise_nats", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("tells", [True, False])
def test_the_noise_of_batches_refuses_nothing(
    tells: bool, noise_nats: float, tokenizer: SentencePiece, tmp_path: Path, runner: Runner
) -> None:
    Probes(Noisy(1, noise_nats, 0, tells), tokenizer).write(str(tmp_path), runner)
    for seed in range(1, 20):
        Probes(Noisy(1, noise_nats, seed, tells), tokenizer).check(str(tmp_path), runner)


@pytest.mark.parametrize("noise_nats", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("tells", [True, False])
def test_another_model_behind_the_address_is_noticed_through_the_noise(
    tells: bool, noise_nats: float, tokenizer: SentencePiece, tmp_path: Path, runner: Runner
) -> None:
    Probes(Noisy(1, noise_nats, 0, tells), tokenizer).write(str(tmp_path), runner)
    with pytest.raises(VersionConflict, match="has changed since the evaluation began"):
        Probes(Noisy(2, noise_nats, 1, tells), tokenizer).check(str(tmp_path), runner)


def test_a_precision_that_moves_a_token_by_a_tenth_of_a_nat_is_noticed() -> None:
    old = np.linspace(-8, 0, 100)
    new = old + np.where(np.arange(100) % 2, 0.097, -0.097)
    rounds = [[old.tolist()] * 2, [new.tolist()] * 2]
    assert "0.097 nats" in probes.compare(*(Answers(each, [[""], [""]]) for each in rounds))


@contextmanager
def api_of(engine: TorchEngine, tokenizer: SentencePiece, tmp_path: Path) -> Iterator[str]:
    with running(served(engine, tokenizer, tmp_path)) as url:
        yield f"{url}/v1"


@pytest.fixture
def other_engine(tokenizer: SentencePiece, tmp_path: Path) -> Iterator[TorchEngine]:
    path = tmp_path / "other"
    hugging_face.save_model(llama.build(SHAPE, 2), SHAPE, str(path), dtype=torch.float32)
    tokenizer.save(str(path))
    opened = TorchEngine.open(str(path), SERVE)
    yield opened
    opened.close()


@pytest.fixture
def at_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers on other ports look like one address to what is stored."""
    real = run._weights
    monkeypatch.setattr(run, "_weights", lambda served, url: real(served, "http://model:8000/v1"))


@pytest.mark.usefixtures("at_one_address")
def test_results_are_not_given_again_when_another_model_answers_at_the_address(
    folder: Path, tmp_path: Path, engine: TorchEngine, other_engine: TorchEngine, tokenizer: SentencePiece,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    forget_hashes(monkeypatch)
    asked = recipe(folder, tmp_path)
    with api_of(engine, tokenizer, tmp_path) as url:
        results = run.evaluate(asked, quiet, url=url)
    with api_of(engine, tokenizer, tmp_path) as url:
        assert run.evaluate(asked, quiet, url=url) == results
    with (
        api_of(other_engine, tokenizer, tmp_path) as url,
        pytest.raises(VersionConflict, match="has changed since the evaluation began") as error,
    ):
        run.evaluate(asked, quiet, url=url)
    assert "evaluate.run=NAME" in error.value.remedy


def forget_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API tells no hash of its model, as others' do not."""
    tell_hash(monkeypatch, "")


def tell_hash(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    real = openai_model.Client.get

    async def get(self: openai_model.Client, path: str) -> dict[str, Any]:
        told = await real(self, path)
        return told | {"data": [each | {"model_sha256": sha256} for each in told["data"]]}

    monkeypatch.setattr(openai_model.Client, "get", get)


@pytest.mark.usefixtures("at_one_address")
def test_the_hash_that_the_server_tells_decides_which_model_it_is(
    folder: Path,
    tmp_path: Path,
    engine: TorchEngine,
    tokenizer: SentencePiece,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = recipe(folder, tmp_path)
    with api_of(engine, tokenizer, tmp_path) as url:
        with monkeypatch.context() as patch:
            tell_hash(patch, "a" * 64)
            results = run.evaluate(asked, quiet, url=url)
        assert results["decisions"]["model"]["weights"] == {"model_sha256": "a" * 64}
        assert storage.exists(storage.join(asked.folder("evaluate"), probes.FILE))
        tell_hash(monkeypatch, "b" * 64)
        with pytest.raises(VersionConflict, match="model_sha256"):
            run.evaluate(asked, quiet, url=url)

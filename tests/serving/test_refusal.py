"""Two models never answer under one id: what happens when a model's folder is replaced while it is served."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch

from ctllm_ray.inference.engine import EngineLoad, Sampling
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.model.fingerprint import hash_model
from ctllm_ray.serving.api import errors
from ctllm_ray.serving.ray import model_replaced
from ctllm_ray.serving.ray.model_replaced import ModelReplaced, RefusingEngine, open_checked
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.conftest import Start
from tests.serving.test_ray_serve import SHAPE, Running, engines


def test_a_folder_that_was_replaced_is_not_opened_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    deployed, engine = hash_model(str(tmp_path)), ScriptedEngine()
    assert open_checked(str(tmp_path), deployed, "r1", lambda: engine) is engine
    (tmp_path / "model.safetensors").write_bytes(b"two")
    refusing = open_checked(str(tmp_path), deployed, "r1", lambda: engine)
    assert isinstance(refusing, RefusingEngine)
    assert str(tmp_path) in caplog.text
    with pytest.raises(ModelReplaced, match="another model"):
        asyncio.run(anext(refusing.generate([1], Sampling(1))))


class Replaced(ScriptedEngine):
    """An engine whose only replica refuses; `load` is of several replicas."""

    async def generate(self, ids: object, sampling: Sampling) -> object:  # type: ignore[override]
        raise ModelReplaced("the folder /secret/path holds another model", where="r1", remedy="restore it")
        yield

    async def load(self) -> EngineLoad:
        return EngineLoad(0, 0, 4, 0, 64, 0.0, refusing=1)


def test_a_client_is_told_in_openais_shape_and_hears_of_no_path(start: Start) -> None:
    client = start(Replaced())
    for fields in ({}, {"stream": True}):
        answer = client.http.post("/v1/completions", json={"model": "tiny-1", "prompt": "一", **fields})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_replaced")
        assert "secret" not in answer.text
    assert "1 replicas refuse" in client.http.get("/health").json()["warning"]
    assert "ctllm_refusing 1.0" in client.http.get("/metrics").text
    assert errors.status_of(ModelReplaced("x")) == 503


def test_a_replica_that_refuses_is_left_out_while_there_is_another() -> None:
    model_replaced.avoid("a")
    assert model_replaced.find_serving(["a", "b"]) == [1]
    assert model_replaced.find_serving(["a"]) == [0]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def replace_model(folder: Path) -> None:
    hugging_face.save_model(llama.build(SHAPE, 2), SHAPE, str(folder), dtype=torch.float32)


def wait_for_both(running: Running) -> None:
    until(lambda: "ctllm_slots 16.0" in httpx.get(running.url + "/metrics", timeout=30).text)


def kill_oldest_engine() -> None:
    """The one that has served longest; waits for the one in its place."""
    before = engines()
    victim = min(before, key=lambda process: process.create_time())
    victim.send_signal(signal.SIGKILL)
    until(lambda: victim not in engines() and len(engines()) == len(before))


def refusing(url: str) -> str:
    answer = httpx.get(f"{url}/health", timeout=30)
    return answer.json().get("warning") or answer.json().get("error", {}).get("code") or ""


@pytest.mark.cluster
@pytest.mark.parametrize("way", ["killed", pytest.param("waited for", marks=pytest.mark.slow)])
def test_a_replica_that_starts_on_a_replaced_folder_never_answers_and_the_others_go_on(
    running: Running, tmp_path: Path, way: str
) -> None:
    """At the end the folder is restored: replicas that are killed look at it at once, all others within a minute."""
    model = Path(running.recipe.serve.model)
    until(
        lambda: "ctllm_slots 16.0" in httpx.get(running.url + "/metrics", timeout=30).text
    )  # both are there
    requests = [{"prompt": f"春{at}", "max_tokens": 20} for at in range(12)]
    before = [running.text(**each) for each in requests]
    models = httpx.get(running.url + "/v1/models", timeout=30).json()["data"]
    assert models[0]["model_sha256"] == hash_model(str(model))
    kept = shutil.copytree(model, tmp_path / "kept")
    replace_model(model)
    kill_oldest_engine()
    until(lambda: refusing(running.url).startswith("1 replicas"))
    assert [running.text(**each) for each in requests] == before
    kill_oldest_engine()
    until(lambda: refusing(running.url) == "model_replaced")
    answer = running.post(**requests[0])
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_replaced")
    shutil.copytree(kept, model, dirs_exist_ok=True)
    for _ in engines() if way == "killed" else ():
        kill_oldest_engine()
    until(lambda: running.post(**requests[0]).status_code == 200)
    assert [running.text(**each) for each in requests] == before
    wait_for_both(running)  # for the tests after this one

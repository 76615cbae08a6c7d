"""The API on Ray Serve: the same answers as the engine's own, and what happens when a replica is killed or replaced."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import torch
import yaml
from ray import serve as ray_serve
from ray.serve.schema import ServeDeploySchema

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.serving.ray import application
from ctllm_ray.serving.ray.routing import of_prefix
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from serve import build
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.cluster

SHAPE = ModelConfig(2, 64, 4, 4, 16, 128, 900, 256, tied=True, init_std=0.2)
GREEDY = {"model": "tiny-1", "temperature": 0}


@dataclass
class Running:
    """A server on Ray Serve, and the recipe that it serves."""

    url: str
    recipe: Recipe

    def post(self, path: str = "/v1/completions", key: str = "", **body: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.post(self.url + path, json=GREEDY | body, headers=headers, timeout=120)

    def text(self, **body: object) -> str:
        return self.post(**body).raise_for_status().json()["choices"][0]["text"]


def recipe(root: Path, evaluate: dict | None = None, **serve: object) -> Recipe:
    settings = {
        "model": str(root / "model"),
        "name": "tiny-1",
        "threads": 1,
        "cpus": 0.5,
        "slots": 8,
        "port": 0,
    } | serve
    data = {"inputs": [{"use": "jsonl", "path": "nowhere/*"}], "max_error_share": 0}
    plain = {"name": "tiny", "version": "1", "seed": 1, "root": str(root / "out"), "data": data, "stages": []}
    part = {"evaluate": {"model": str(root / "model")} | evaluate} if evaluate else {}
    return recipes.parse_recipe(plain | part | {"serve": settings})


def write_model(folder: Path, tokenizer: SentencePiece) -> None:
    """A model of random weights."""
    hugging_face.save_model(llama.build(SHAPE, 1), SHAPE, str(folder), dtype=torch.float32)
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: SentencePiece) -> Path:
    """A folder with a model of random weights in it."""
    root = tmp_path_factory.mktemp("model")
    write_model(root / "model", tokenizer)
    return root


def engines() -> list[psutil.Process]:
    """The processes of engine replicas."""
    return replicas("engine")


def replicas(deployment: str) -> list[psutil.Process]:
    """The processes of a deployment's replicas."""
    children = psutil.Process().children(recursive=True)
    found = []
    for process in children:
        try:
            found += [process] if f"ServeReplica:ctllm:{deployment}" in " ".join(process.cmdline()) else []
        except psutil.Error:
            continue
    return found


def streamed(server: Running, **body: object) -> Iterator[str]:
    """The pieces of a streamed answer; fails where the stream ends without its end."""
    ended = False
    with httpx.stream(
        "POST", server.url + "/v1/completions", json=GREEDY | {"stream": True} | body, timeout=120
    ) as got:
        got.raise_for_status()
        for line in got.iter_lines():
            data = line.removeprefix("data: ")
            ended = ended or data == "[DONE]"
            if data and not ended:
                event = json.loads(data)
                assert "error" not in event, event
                yield "".join(choice["text"] for choice in event["choices"])
    assert ended


def test_a_stream_and_a_whole_answer_are_the_same(running: Running) -> None:
    whole = running.text(prompt="今天", max_tokens=60)
    assert len(whole) > 10
    assert "".join(streamed(running, prompt="今天", max_tokens=60)) == whole


def test_the_replicas_tell_how_busy_they_are(running: Running) -> None:
    metrics = httpx.get(running.url + "/metrics", timeout=30).text
    assert "ctllm_slots 16.0" in metrics  # of both
    assert httpx.get(running.url + "/ready", timeout=30).status_code == 200


def test_an_error_of_an_engine_keeps_its_kind(running: Running) -> None:
    answer = running.post(prompt="长" * 2000, max_tokens=5)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_grammar_is_followed_on_the_other_side_too(running: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = running.post(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "数"}],
        max_tokens=60,
        response_format=asked,
    )
    assert json.loads(answer.raise_for_status().json()["choices"][0]["message"]["content"])["a"] in (1, 2)


def test_a_killed_replica_costs_no_request_and_no_stream(running: Running) -> None:
    asked = {"prompt": "很久以前", "max_tokens": 200}
    undisturbed = running.text(**asked)
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(lambda: "".join(streamed(running, **asked))) for _ in range(4)]
        whole = [pool.submit(running.text, **asked) for _ in range(4)]
        time.sleep(0.3)
        victims = engines()
        assert len(victims) == 2
        victims[0].send_signal(signal.SIGKILL)
        assert {answer.result() for answer in (*streams, *whole)} == {undisturbed}


def test_a_killed_replica_of_the_api_costs_no_request_and_holds_nobody_up(running: Running) -> None:
    asked, done = {"prompt": "很久以前", "max_tokens": 30}, threading.Event()
    undisturbed = running.text(**asked)
    ended: list[tuple[float, str]] = []

    def ask() -> None:
        while not done.is_set():
            answer = running.post(**asked)
            said = answer.json()
            ended.append(
                (time.monotonic(), said["choices"][0]["text"] if answer.status_code == 200 else answer.text)
            )

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(ask)
        time.sleep(2)
        [victim, _] = replicas("api")
        victim.send_signal(signal.SIGKILL)
        time.sleep(8)
        done.set()
    times = sorted(at for at, _ in ended)
    assert {text for _, text in ended} == {undisturbed}
    assert (
        max(later - first for first, later in itertools.pairwise(times)) < 4
    )  # 1 on an idle machine, 38 before


@pytest.mark.slow
def test_a_new_version_is_rolled_out_under_load_without_a_failure(running: Running) -> None:
    done = threading.Event()
    answers: list[int] = []

    def ask() -> None:
        while not done.is_set():
            answers.append(running.post(prompt="你好", max_tokens=20).status_code)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(ask)
        before = {process.pid for process in engines()}
        serve = running.recipe.serve.model_copy(update={"slots": 6})
        changed = running.recipe.model_copy(update={"serve": serve})
        ray_serve.run(application.application(changed), name=application.NAME)
        done.set()
    assert len(answers) > 10
    assert set(answers) == {200}
    assert not before & {process.pid for process in engines()}


def test_prompts_that_begin_alike_go_to_one_replica_and_others_spread() -> None:
    replicas = ["a", "b", "c"]
    ids = list(range(200))
    assert len({of_prefix([*ids, extra], replicas) for extra in range(50)}) == 1
    assert {of_prefix([first, *ids], replicas) for first in range(50)} == {0, 1, 2}


def test_a_replica_that_goes_moves_only_its_own_prompts() -> None:
    prompts = [[first, 2, 3] for first in range(200)]
    before = [["a", "b", "c"][of_prefix(ids, ["a", "b", "c"])] for ids in prompts]
    after = [["a", "b"][of_prefix(ids, ["a", "b"])] for ids in prompts]
    assert all(new == old for old, new in zip(before, after, strict=True) if old != "c")


def test_other_machines_are_not_served_without_a_key(root: Path) -> None:
    with pytest.raises(RecipeError, match="there is no API key"):
        application.application(recipe(root, host="0.0.0.0").model_copy(update={"name": "locked"}))


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "serve/configs").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_configurations_are_what_ray_serve_takes_and_name_recipes_and_keys_that_there_are(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    served_application = ServeDeploySchema.model_validate(plain).applications[0]
    assert served_application.import_path == f"{build.__name__}:{build.deployed.__name__}"
    monkeypatch.chdir(REPOSITORY)
    served = recipes.load_recipe(
        served_application.args["recipe"], served_application.args["overrides"]
    ).serve
    assert served.host == plain["http_options"]["host"]


def test_a_port_in_use_is_told_before_ray_starts(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot be used"):
        application.free_port("127.0.0.1", taken.getsockname()[1])

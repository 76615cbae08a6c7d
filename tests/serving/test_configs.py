"""serve/configs: each builds the application that it says, and deploys on a cluster as far as one without
GPUs can."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from ray.serve._private.build_app import build_app

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.exports import LINEAGE
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.serving.api import keys
from ctllm_ray.serving.ray import application
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.conftest import REPOSITORY
from tests.ray_cluster import COMMAND_S, Cluster, free_port, started
from tests.serving.test_ray_serve import SHAPE
from tests.serving.vllm_installed import vllm_installed

CONFIGS = sorted((REPOSITORY / "serve/configs").glob("*.yaml"))
SMALL = [
    "serve.engine=torch",
    "serve.precision=fp32",
    "serve.gpus=0",
    "serve.cpus=0.5",
    "serve.threads=1",
    "serve.slots=4",
    "serve.replicas=[1, 2]",
]


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def arguments(config: dict[str, Any], root: Path, *more: str) -> dict[str, Any]:
    """The arguments of the application, with its root here."""
    [application] = config["applications"]
    return application["args"] | {"overrides": [*application["args"]["overrides"], f"root={root}", *more]}


@pytest.fixture
def root(tmp_path: Path, tokenizer: SentencePiece, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root in which both recipes of the configurations have exported a model of random weights, and a
    key."""
    monkeypatch.chdir(REPOSITORY)
    for name in {read(file)["applications"][0]["args"]["recipe"] for file in CONFIGS}:
        of = recipes.load_recipe(name, [f"root={tmp_path}"])
        folder = storage.join(of.folder("export"), "7")
        hugging_face.save_model(llama.build(SHAPE, 1), SHAPE, folder, dtype=torch.float32)
        for file, content in tokenizer.files().items():
            storage.write_bytes(storage.join(folder, file), content)
        storage.write_json(storage.join(folder, LINEAGE), {"step": 7})
    return tmp_path


def key(of: Recipe) -> str:
    return keys.create_key(keys.file_of(of.root, of.name), "team")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_configuration_builds_the_application_that_its_recipe_and_overrides_say(
    file: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(read(file), root)
    of = recipes.load_recipe(given["recipe"], given["overrides"])
    key(of)
    with vllm_installed(monkeypatch):
        built = build_app(application.deployed(given), name="ctllm", default_runtime_env={})
    found = {deployment.name: deployment for deployment in built.deployments}
    assert {"api", "engine", "limits"} <= found.keys()
    assert built.ingress_deployment_name == "api"
    engine = found["engine"]
    assert engine.ray_actor_options["num_cpus"] == of.serve.cpus
    bundles = engine._replica_config.placement_group_bundles or [{}]  # vLLM's workers are actors of their own
    assert (
        engine.ray_actor_options.get("num_gpus", 0) + sum(b.get("GPU", 0) for b in bundles) == of.serve.gpus
    )
    off_gpu_nodes = of.resources.label_selector()
    assert off_gpu_nodes
    for name, deployment in found.items():
        if name != "engine":
            assert deployment.ray_actor_options["label_selector"] == off_gpu_nodes
    assert engine.ray_actor_options.get("label_selector", {}) == ({} if of.serve.gpus else off_gpu_nodes)
    scaling = engine._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == of.serve.replicas
    assert (
        scaling.target_ongoing_requests == of.serve.target_requests <= of.serve.slots
    )  # scales before it queues
    assert engine.max_ongoing_requests == of.serve.slots + of.serve.max_waiting
    assert found["api"].num_replicas == of.serve.ingresses


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started() as found:
        yield found


def status(cluster: Cluster) -> dict[str, Any]:
    return yaml.safe_load(cluster.run("serve", "status", "--name", "ctllm").stdout)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_serve_deploy_takes_the_configuration_and_it_answers(
    file: Path, root: Path, cluster: Cluster, tmp_path: Path
) -> None:
    config = read(file)
    port = config["http_options"]["port"] = free_port()
    config["applications"][0]["args"] = given = arguments(config, root, *SMALL)
    headers = {"Authorization": f"Bearer {key(recipes.load_recipe(given['recipe'], given['overrides']))}"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        done = cluster.run("serve", "deploy", str(tmp_path / "config.yaml"))
        assert done.returncode == 0, done.stdout + done.stderr
        deadline = time.monotonic() + COMMAND_S
        while (told := status(cluster))["status"] != "RUNNING":
            assert time.monotonic() < deadline, told
            assert told["status"] != "DEPLOY_FAILED", told
            time.sleep(1)
        url = f"http://127.0.0.1:{port}/v1"
        [model] = httpx.get(f"{url}/models", headers=headers, timeout=60).raise_for_status().json()["data"]
        assert model["lineage"] == {"step": 7}
        body = {"model": model["id"], "prompt": "今天", "max_tokens": 5}
        assert httpx.post(f"{url}/completions", json=body, timeout=60).status_code == 401
        answer = (
            httpx.post(f"{url}/completions", json=body, headers=headers, timeout=60).raise_for_status().json()
        )
        assert answer["usage"]["completion_tokens"] == 5
    finally:
        cluster.run("serve", "shutdown", "--yes")

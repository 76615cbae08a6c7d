"""Evaluations on Ray Serve: beside the model, with the scores of one in process, and kept over a restart."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from ray import serve as ray_serve

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import NotFound
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.evaluate import run
from ctllm_ray.evaluate.plan import locate_paths
from ctllm_ray.model.fingerprint import hash_model
from ctllm_ray.serving.ray import application
from tests.evaluate.conftest import exam_rows, lines
from tests.serving.test_ray_serve import Running, recipe, replicas, root

__all__ = ["root"]  # a fixture


def quiet(kind: str, done: int, total: int) -> None:
    """Nothing."""


def evaluating(plain: dict, name: str, tasks: list[dict]) -> Recipe:
    """The recipe with a name of its own, and tasks."""
    part = {"model": plain["serve"]["model"], "tasks": tasks, "resamples": 50}
    return recipes.parse_recipe(plain | {"name": name, "evaluate": part})


def ended(url: str, id_: str) -> dict:
    end = time.monotonic() + 120
    while (state := httpx.get(f"{url}/v1/evaluations/{id_}", timeout=60).json())["status"] in (
        "queued",
        "running",
    ):
        assert time.monotonic() < end, state
        time.sleep(0.2)
    return state


def test_the_deployment_evaluates_through_the_engines_deployment(root: Path) -> None:
    tasks = [{"use": "cmmlu", "path": lines(root / "exam.jsonl", exam_rows()), "shots": 0, "limit": 2}]
    served = evaluating(recipe(root).model_dump(mode="json"), "local", tasks)
    facts = {
        "serve": served.serve.model_dump(mode="json"),
        "folder": served.serve.model,
        "sha256": hash_model(served.serve.model),
        "context_tokens": 256,
        "vocab_size": 900,
        "evaluate": locate_paths(served).model_dump(mode="json"),
        "evaluations": str(root / "evaluations"),
        "decontaminated": "",
    }
    engines = application._engines(served, served.serve.model, facts)
    deployment = application._evaluations(facts, engines, application._actor_options(served))
    handle = ray_serve.run(deployment, name="local", _local_testing_mode=True)  # in this process, without Ray
    assert handle.task_names.remote().result() == ["cmmlu"]
    state = handle.submit.remote([], 0).result()
    end = time.monotonic() + 60
    while not (state := handle.one.remote(state.id).result()).over:
        assert time.monotonic() < end, state
        time.sleep(0.05)
    assert (state.status, state.error) == ("done", "")
    assert state.scores == run.evaluate(served, quiet)["scores"]
    with pytest.raises(NotFound):
        handle.cancel.remote("eval-0").result()


@pytest.mark.cluster
def test_an_evaluation_beside_the_model_has_the_scores_of_one_in_process_and_is_kept(
    running: Running,
) -> None:
    """Kept where its replica is killed; over a restart of all: test_evaluations.py."""
    url = running.url
    asked = httpx.post(f"{url}/v1/evaluations", json={}, timeout=60).raise_for_status().json()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(running.post, prompt="今天", max_tokens=20) for _ in range(4)]
        assert [answer.result().status_code for answer in answers] == [200] * 4
    done = ended(url, asked["id"])
    through_the_api = run.evaluate(running.recipe, quiet, url=f"{url}/v1")
    assert done["status"] == "done", done
    [evaluator] = replicas("evaluations")
    evaluator.kill()
    psutil.wait_procs([evaluator], timeout=60)
    kept = listed(url)
    in_process = run.evaluate(running.recipe.model_copy(update={"name": "here"}), quiet)
    assert done["scores"] == in_process["scores"] == through_the_api["scores"]
    assert [(state["id"], state["status"], state["scores"]) for state in kept] == [
        (done["id"], "done", done["scores"])
    ]


def listed(url: str) -> list[dict]:
    """All evaluations, once the server knows of them."""
    end = time.monotonic() + 120
    while (answer := httpx.get(f"{url}/v1/evaluations", timeout=120)).status_code != 200:
        assert time.monotonic() < end, answer.text
        time.sleep(0.2)
    return answer.json()["data"]

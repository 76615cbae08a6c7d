"""Evaluations beside a served model: what HTTP clients see, and that they equal those in process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import EngineFailed
from ctllm_ray.base.recipe_evaluation import Evaluate
from ctllm_ray.corpus import pipeline
from ctllm_ray.evaluate.formats.chat_form import ChatForm
from ctllm_ray.evaluate.models.model_under_test import EngineModel
from ctllm_ray.evaluate.scoring import contamination, item_results
from ctllm_ray.inference.engine import Engine, Token
from ctllm_ray.serving.api import keys
from ctllm_ray.serving.evaluations.service import MOST_WAITING, EvaluationContext, Evaluations
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.corpus.conftest import run_here
from tests.evaluate.conftest import exam_rows, lines, seeing
from tests.inference import tiny_engines
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import Client
from tests.serving.conftest import Start

Evaluating = Callable[..., Client]


class Held(ScriptedEngine):
    """Scores only while `go` is set."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(context_tokens=2000, **settings)
        self.go = False
        self.scored = 0

    async def logprobs(self, *given: Any, **named: Any) -> list[Token]:
        while not self.go:
            await asyncio.sleep(0.005)
        self.scored += 1
        return await super().logprobs(*given, **named)


@pytest.fixture
def evaluating(start: Start, tokenizer: SentencePiece, tmp_path: Path) -> Evaluating:
    """Starts a server around an engine, with an exam of twelve questions to be evaluated on."""
    exam = lines(tmp_path / "exam.jsonl", exam_rows())
    part = Evaluate.model_validate(
        {"tasks": [{"use": "cmmlu", "path": exam, "subjects": (), "shots": 1, "limit": 0}], "resamples": 50}
    )

    def started(engine: Engine, decontaminated: str = "", **changes: Any) -> Client:
        subject = EngineModel(engine, tokenizer, frozenset({tokenizer.eos_id}))
        folder, model = str(tmp_path / "evaluations"), {"weights": {}, "tokenizer": ""}
        there = EvaluationContext(part, folder, subject, ChatForm(tokenizer, ""), model, 2, decontaminated)
        return start(engine, evaluations=Evaluations(lambda: there), **changes)

    return started


def submit(client: Client, **body: Any) -> dict[str, Any]:
    answer = client.http.post("/v1/evaluations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def one(client: Client, id_: str) -> dict[str, Any]:
    return client.http.get(f"/v1/evaluations/{id_}").raise_for_status().json()


def until(client: Client, id_: str, *statuses: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while (state := one(client, id_))["status"] not in statuses:
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def stop(client: Client) -> None:
    """What a server does at its end."""
    evaluations = client.served.evaluations
    assert isinstance(evaluations, Evaluations)
    assert evaluations._worker is not None
    asyncio.run_coroutine_threadsafe(evaluations.close(), evaluations._worker.get_loop()).result()


def test_an_evaluation_is_queued_runs_and_keeps_its_scores(evaluating: Evaluating, tmp_path: Path) -> None:
    client = evaluating(ScriptedEngine(context_tokens=2000))
    assert client.http.get("/v1/evaluations").json() == {"object": "list", "data": [], "tasks": ["cmmlu"]}
    asked = submit(client)
    assert (asked["object"], asked["tasks"]) == ("evaluation", ["cmmlu"])
    done = until(client, asked["id"], "done", "failed")
    assert (done["status"], done["answered"], done["total"]) == ("done", 12, 12)
    assert [(s["part"], s["items"]) for s in done["scores"]] == [("", 12), ("anatomy", 6), ("arts", 6)]
    assert done["created"] <= done["started"] <= done["finished"]
    assert len(item_results.read_items(str(tmp_path / "evaluations" / asked["id"]))) == 12
    assert [e["id"] for e in client.http.get("/v1/evaluations").json()["data"]] == [asked["id"]]


def test_items_that_the_corpus_held_are_marked(evaluating: Evaluating, tmp_path: Path) -> None:
    started = {"name": "tiny", "version": "1", "seed": 1, "root": str(tmp_path / "out"), "stages": []}
    recipe = recipes.parse_recipe(started | seeing(tmp_path, str(tmp_path / "exam.jsonl")))
    pipeline.prepare(recipe, run_here)
    client = evaluating(ScriptedEngine(context_tokens=2000), decontaminated=contamination.folder_of(recipe))
    done = until(client, submit(client)["id"], "done", "failed")
    assert [(s["part"], s["seen"]) for s in done["scores"]] == [("", 3), ("anatomy", 3), ("arts", 0)]


def test_scores_are_those_of_an_evaluation_in_process(
    evaluating: Evaluating, tokenizer: SentencePiece, tmp_path: Path
) -> None:
    from ctllm_ray.evaluate import harness
    from ctllm_ray.evaluate.tasks.cmmlu import cmmlu
    from tests.evaluate.subjects import asking

    shape = replace(tiny_engines.SHAPE, vocab_size=tokenizer.vocab_size, context_tokens=512)
    with tiny_engines.engine(shape) as engine:
        client = evaluating(engine)
        asked = submit(client)
        assert until(client, asked["id"], "done", "failed")["status"] == "done"
        subject = EngineModel(engine, tokenizer, frozenset({tokenizer.eos_id}))
        with asking(subject, tmp_path / "here") as here:
            tasks = {"cmmlu": cmmlu(path=str(tmp_path / "exam.jsonl"), shots=1)}
            wanted = harness.evaluate(tasks, harness.EngineLM(here, tokenizer))
    found = {item.item: item for item in item_results.read_items(str(tmp_path / "evaluations" / asked["id"]))}
    assert len(found) == len(wanted) == 12
    for item in wanted:
        assert found[item.item].score == item.score
        assert found[item.item].logprobs == pytest.approx(item.logprobs, abs=1e-5)


def test_one_runs_at_a_time_the_queue_is_bounded_and_a_cancelled_one_ends(evaluating: Evaluating) -> None:
    engine = Held()
    client = evaluating(engine)
    first = submit(client, limit=1)
    until(client, first["id"], "running")
    waiting = [submit(client, tasks=["cmmlu"], limit=1) for _ in range(MOST_WAITING)]
    full = client.http.post("/v1/evaluations", json={})
    assert (full.status_code, full.headers["Retry-After"]) == (429, "60")
    cancelled = client.http.post(f"/v1/evaluations/{first['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert client.http.post(f"/v1/evaluations/{waiting[0]['id']}/cancel").json()["status"] == "cancelled"
    engine.go = True
    assert {until(client, e["id"], "done", "failed")["status"] for e in waiting[1:]} == {"done"}
    assert [one(client, e["id"])["status"] for e in (first, waiting[0])] == ["cancelled", "cancelled"]
    again = client.http.post(f"/v1/evaluations/{waiting[1]['id']}/cancel").json()
    assert again["status"] == "done"


def test_a_second_evaluation_of_the_same_items_asks_nothing(evaluating: Evaluating) -> None:
    engine = Held()
    engine.go = True
    client = evaluating(engine)
    first = until(client, submit(client)["id"], "done")
    scored = engine.scored
    second = until(client, submit(client)["id"], "done")
    assert (scored, engine.scored) == (12, 12)
    assert second["scores"] == first["scores"]


def test_chat_is_answered_while_an_evaluation_runs(evaluating: Evaluating) -> None:
    engine = Held()
    client = evaluating(engine)
    asked = submit(client)
    until(client, asked["id"], "running")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: client.complete(f"第{n}句", max_tokens=3)["usage"], range(8)))
    assert all(usage["completion_tokens"] == 3 for usage in answers)
    assert one(client, asked["id"])["status"] == "running"
    engine.go = True
    until(client, asked["id"], "done")


def test_a_restarted_server_has_what_was_done_and_goes_on_with_what_was_not(
    evaluating: Evaluating, tokenizer: SentencePiece, tmp_path: Path
) -> None:
    engine = Held()
    before = evaluating(engine)
    engine.go = True
    done = until(before, submit(before, limit=2)["id"], "done")
    engine.go = False
    running, queued = submit(before), submit(before, limit=3)
    until(before, running["id"], "running")
    stop(before)
    begun = tmp_path / "evaluations" / running["id"] / "begun.json"
    begun.write_text('{"seen": "less than is known now"}')
    after = evaluating(ScriptedEngine(context_tokens=2000))
    listed = after.http.get("/v1/evaluations").json()["data"]
    assert [e["id"] for e in listed] == [queued["id"], running["id"], done["id"]]
    assert listed[2]["scores"] == done["scores"]
    assert {until(after, e["id"], "done", "failed")["status"] for e in (running, queued)} == {"done"}


def test_what_goes_wrong_is_told_and_the_next_one_runs(evaluating: Evaluating) -> None:
    class Dying(Held):
        async def logprobs(self, *given: Any, **named: Any) -> list[Token]:
            if not self.go:
                raise EngineFailed("it died", remedy="start it again")
            return await super().logprobs(*given, **named)

    engine = Dying()
    client = evaluating(engine)
    failed = until(client, submit(client)["id"], "done", "failed")
    assert (failed["status"], failed["error"]) == ("failed", "it died; start it again")
    engine.go = True
    assert until(client, submit(client)["id"], "done", "failed")["status"] == "done"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"tasks": ["mmlu"]}, 400, "cmmlu"),
        ({"limit": -1}, 400, "limit"),
        ({"task": "cmmlu"}, 400, "task"),
        ({"tasks": "cmmlu"}, 400, "tasks"),
    ],
)
def test_a_bad_request_is_told(evaluating: Evaluating, body: dict, status: int, said: str) -> None:
    client = evaluating(ScriptedEngine(context_tokens=2000))
    answer = client.http.post("/v1/evaluations", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_what_is_not_there_is_not_found(evaluating: Evaluating, start: Start) -> None:
    client = evaluating(ScriptedEngine(context_tokens=2000))
    answers = [client.http.get("/v1/evaluations/eval-1"), client.http.post("/v1/evaluations/eval-1/cancel")]
    assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [(404, "not_found")] * 2
    bare = start()
    assert bare.http.get("/v1/evaluations").json() == {"object": "list", "data": [], "tasks": []}
    answer = bare.http.post("/v1/evaluations", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_evaluations")


def test_evaluations_want_a_key_like_everything_else(evaluating: Evaluating, tmp_path: Path) -> None:
    client = evaluating(ScriptedEngine(context_tokens=2000))
    key = keys.create_key(str(tmp_path / "keys.json"), "team")
    end = time.monotonic() + 30
    while client.http.get("/v1/evaluations").status_code != 401 and time.monotonic() < end:
        time.sleep(0.1)
    known = httpx.Client(
        base_url=client.http.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    assert [
        client.http.post("/v1/evaluations", json={}).status_code,
        known.get("/v1/evaluations").status_code,
    ] == [
        401,
        200,
    ]
    known.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.1)

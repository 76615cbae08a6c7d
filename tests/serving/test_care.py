"""Beside the completions: models, tokens, health, metrics, reports, the page's headers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ctllm_ray.base import outage
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.serving.api import model_card
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.train.checkpoint.lineage import PARENT_MODEL, PARENT_SHA256
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL, Client
from tests.serving.conftest import Start


def measured(client: Client) -> dict[tuple[str, str], float]:
    """Values by name and first label's value."""
    families = text_string_to_metric_families(client.http.get("/metrics").text)
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for f in families
        for sample in f.samples
    }


def test_models_tell_the_one_there_is_with_its_lineage(start: Start) -> None:
    client = start()
    listed = client.http.get("/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert client.http.get(f"/v1/models/{MODEL}").json() == model
    assert (model["id"], model["object"], model["context_tokens"], model["chat"]) == (
        MODEL,
        "model",
        64,
        False,
    )
    assert model["lineage"] == {"step": 64}
    assert model["model_sha256"] == ""
    known = start(card=model_card.ModelCard(MODEL, 64, sha256="ab" * 32)).http
    assert known.get("/v1/models").json()["data"][0]["model_sha256"] == "ab" * 32


@pytest.mark.parametrize("text", ["", "山里🎏\n\n  走", "<|end|></s>"])
def test_tokenize_and_detokenize_are_each_others_reverse(
    start: Start, tokenizer: SentencePiece, text: str
) -> None:
    client = start()
    found = client.http.post(
        "/tokenize", json={"model": MODEL, "prompt": text, "add_special_tokens": False}
    ).json()
    assert found["tokens"] == tokenizer.encode([text])[0].tolist()
    assert (found["count"], len(found["token_strs"])) == (len(found["tokens"]), len(found["tokens"]))
    assert client.http.post("/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": text}


def test_tokenize_counts_a_conversation_as_chat_would(start: Start) -> None:
    engine = ScriptedEngine()
    client = start(engine)
    messages = [{"role": "user", "content": "山里"}]
    found = client.http.post("/tokenize", json={"messages": messages}).json()
    client.chat("山里", max_tokens=1)
    assert engine.seen[0][0] == found["tokens"]
    assert client.http.post("/tokenize", json={}).status_code == 400
    assert client.http.post("/tokenize", json={"prompt": "a", "messages": messages}).status_code == 400


def test_health_and_readiness_follow_the_engine(start: Start) -> None:
    well = start(serve=Serve(max_waiting=1)).http
    assert well.get("/health").json() == {"status": "ok"}
    assert well.get("/ready").json() == {"status": "ready", "model": MODEL}
    dead = start(ScriptedEngine(fails_after=0)).http
    assert dead.get("/health").status_code == dead.get("/ready").status_code == 503
    assert "ctllm_engine_up 0.0" in dead.get("/metrics").text


def test_metrics_count_requests_tokens_and_split_the_time(start: Start) -> None:
    client = start(ScriptedEngine(delay_s=0.002))
    client.complete([70, 71], max_tokens=5)
    client.stream("/v1/completions", prompt=[70, 71], max_tokens=5, n=2)
    client.http.post("/v1/completions", json={"model": "x", "prompt": "y"})
    client.http.get("/some/secret/path")
    found = measured(client)
    assert found["ctllm_tokens_total", "prompt"] == 4
    assert found["ctllm_tokens_total", "answer"] == 15
    assert found["ctllm_time_to_first_token_seconds_count", ""] == 3
    assert found["ctllm_time_per_output_token_seconds_count", ""] == 12
    assert found["ctllm_engine_seconds_count", ""] == found["ctllm_framework_seconds_count", ""] == 2
    assert found["ctllm_engine_seconds_sum", ""] >= 0.02  # ten steps of 2 ms, those of n = 2 at the same time
    assert found["ctllm_engine_up", ""] == 1
    assert found["ctllm_slots", ""] == 4
    text = client.http.get("/metrics").text
    assert 'ctllm_requests_total{path="/v1/completions",status="404"} 1.0' in text
    assert 'ctllm_requests_total{path="other",status="404"} 1.0' in text
    assert "secret" not in text


def test_reports_are_served_apart_from_the_page(start: Start, tmp_path: Path) -> None:
    written = tmp_path / "report.html"
    written.write_text("<p>漏斗")
    client = start(reports={"clean": str(written), "train": str(tmp_path / "none.html")})
    assert client.http.get("/reports").json() == {"clean": True, "train": False}
    report = client.http.get("/reports/clean")
    assert report.text == "<p>漏斗"
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts")
    for name in ("train", "other", "../keys.json", "..%2fkeys.json"):
        assert client.http.get(f"/reports/{name}").status_code == 404


def test_a_store_that_does_not_answer_is_told_at_once_and_not_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def exists(uri: str) -> bool:
        asked.append(uri)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(outage, "FIRST_S", 0.01)
    monkeypatch.setattr(outage, "PATIENCE_S", 0.1)
    client = start(reports={"clean": "s3://bucket/report.html"})
    monkeypatch.setattr(
        "ctllm_ray.base.storage.exists", lambda uri: outage.wait_out(uri, lambda: exists(uri))
    )
    for path in ("/reports", "/reports/clean"):
        found = client.http.get(path)
        assert (found.status_code, found.json()["error"]["code"]) == (503, "storage_failed")
    assert asked.count("s3://bucket/report.html") == 2  # tried once for each request


def test_the_page_may_ask_this_server_only(start: Start) -> None:
    page = start().http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy


def test_a_card_reads_lineage_template_and_what_ends_an_answer(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    tokenizer.save(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    foreign = model_card.read_card(str(tmp_path), MODEL, tokenizer, 64)
    assert (foreign.chat, foreign.lineage, foreign.stop_ids) == (True, {}, frozenset())
    assert foreign.created > 0
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    for objective, chat in (("pretrain", False), ("sft", True)):
        lineage = {"recipe": {"train": {"objective": {"use": objective}}}}
        (tmp_path / "lineage.json").write_text(json.dumps(lineage))
        found = model_card.read_card(str(tmp_path), MODEL, tokenizer, 64)
        assert (found.chat, found.lineage, found.stop_ids) == (chat, lineage, {2, 7})


def test_a_card_counts_the_tokens_of_all_phases_or_says_that_it_does_not_know(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    (tmp_path / "base").mkdir()
    base, aligned = tmp_path / "base" / "lineage.json", tmp_path / "lineage.json"
    tokenizer.save(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    base.write_text(json.dumps({"tokens": 1_000_000}))
    code = {
        PARENT_MODEL: str(tmp_path / "base"),
        PARENT_SHA256: hashlib.sha256(base.read_bytes()).hexdigest(),
    }
    aligned.write_text(json.dumps({"tokens": 65_536, "code": code}))
    assert model_card.read_card(str(tmp_path), MODEL, tokenizer, 64).trained_tokens == 1_065_536
    base.write_text(json.dumps({"tokens": 5}))
    assert model_card.read_card(str(tmp_path), MODEL, tokenizer, 64).trained_tokens == 0

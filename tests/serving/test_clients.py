"""The clients that people have: OpenAI's own, curl, and whatever a fuzzer makes of our own document."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import openai
import pytest

from ctllm_ray.serving.api import keys
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL
from tests.serving.conftest import Start

ASK = [{"role": "user", "content": "你好"}]


@pytest.fixture
def said(tokenizer: SentencePiece) -> list[int]:
    return tokenizer.encode(["春天🎏到了"])[0].tolist()


def of(start: Start, engine: ScriptedEngine, secret: str = "none") -> openai.OpenAI:
    base = str(start(engine).http.base_url).rstrip("/")
    return openai.OpenAI(base_url=f"{base}/v1", api_key=secret, max_retries=0)


def test_the_openai_client_completes_chats_and_streams(start: Start, said: list[int]) -> None:
    client = of(start, ScriptedEngine([said]))
    chat = client.chat.completions.create(model=MODEL, messages=ASK, logprobs=True, top_logprobs=2, seed=1)
    assert chat.choices[0].message.content == "春天🎏到了"
    assert chat.choices[0].logprobs.content[0].top_logprobs[0].logprob == -0.25
    assert chat.usage.completion_tokens == len(said)
    parts = list(
        client.chat.completions.create(
            model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "春天🎏到了"
    assert parts[-1].usage.completion_tokens == len(said)
    text = client.completions.create(
        model=MODEL, prompt=["一", "二"], max_tokens=30, logprobs=1, extra_body={"top_k": 5}
    )
    assert [choice.text for choice in text.choices] == ["春天🎏到了"] * 2
    streamed = client.completions.create(model=MODEL, prompt="一", max_tokens=30, stream=True)
    assert "".join(part.choices[0].text for part in streamed) == "春天🎏到了"
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).lineage == {"step": 64}


def test_the_openai_client_parses_an_answer_into_a_type(start: Start, tokenizer: SentencePiece) -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        name: str

    engine = ScriptedEngine([tokenizer.encode(['{"name": "山里"}'])[0].tolist()])
    found = of(start, engine).chat.completions.parse(model=MODEL, messages=ASK, response_format=City)
    assert found.choices[0].message.parsed == City(name="山里")
    assert json.loads(engine.seen[0][1].grammar)["properties"]["name"]["type"] == "string"


def test_the_openai_client_raises_its_own_errors(start: Start, said: list[int], tmp_path: Path) -> None:
    ask = {"model": MODEL, "messages": ASK}
    with pytest.raises(openai.BadRequestError, match="temperature"):
        of(start, ScriptedEngine()).chat.completions.create(**ask, temperature=9)
    with pytest.raises(openai.NotFoundError):
        of(start, ScriptedEngine()).chat.completions.create(model="x", messages=ASK)
    with pytest.raises(openai.RateLimitError):
        of(start, ScriptedEngine(full=True)).chat.completions.create(**ask)
    with pytest.raises(openai.InternalServerError):
        of(start, ScriptedEngine(fails_after=0)).chat.completions.create(**ask)
    with pytest.raises(openai.APIError, match="engine"):
        list(of(start, ScriptedEngine(fails_after=1)).chat.completions.create(**ask, stream=True))
    secret = keys.create_key(str(tmp_path / "keys.json"), "a")
    with pytest.raises(openai.AuthenticationError):
        of(start, ScriptedEngine()).models.list()
    assert of(start, ScriptedEngine(), secret).models.list().data[0].id == MODEL


def test_curl_gets_an_answer_and_a_stream(start: Start, said: list[int]) -> None:
    url = str(start(ScriptedEngine([said])).http.base_url).rstrip("/") + "/v1/chat/completions"
    for fields, shown in (({}, '"content":"春天🎏到了"'), ({"stream": True}, "data: [DONE]\n\n")):
        body = json.dumps({"model": MODEL, "messages": ASK, **fields})
        command = ["curl", "-sSN", url, "-H", "Content-Type: application/json", "-d", body]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert shown in done.stdout

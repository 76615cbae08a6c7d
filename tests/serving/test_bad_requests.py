"""What cannot be done is told in OpenAI's shape with the right status, before the engine hears of it."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from ctllm_ray.base.errors import EngineFailed, StorageError
from ctllm_ray.serving.api import errors, json_schemas, parameters, requests
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL
from tests.serving.conftest import Start

TEXTS, CHATS = "/v1/completions", "/v1/chat/completions"
ASK = [{"role": "user", "content": "一"}]


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (TEXTS, {}, "prompt"),
        (TEXTS, {"prompt": 5}, "prompt"),
        (TEXTS, {"prompt": []}, "prompt"),
        (TEXTS, {"prompt": [[]]}, "prompt"),
        (TEXTS, {"prompt": [1, "a"]}, "prompt"),
        (TEXTS, {"prompt": [True]}, "prompt"),
        (TEXTS, {"prompt": [-1]}, "prompt"),
        (TEXTS, {"prompt": [1_000_000]}, "prompt"),
        (TEXTS, {"prompt": ["一"] * 257}, "prompt"),
        (TEXTS, {"prompt": "一", "max_tokens": "5"}, "max_tokens"),
        (TEXTS, {"prompt": "一", "max_tokens": -1}, "max_tokens"),
        (TEXTS, {"prompt": "一", "max_tokens": 0}, "max_tokens"),
        (TEXTS, {"prompt": "一", "max_tokens": 10**30}, "max_tokens"),
        (TEXTS, {"prompt": "一", "temperature": -1}, "temperature"),
        (TEXTS, {"prompt": "一", "temperature": "hot"}, "temperature"),
        (TEXTS, {"prompt": "一", "top_p": 0}, "top_p"),
        (TEXTS, {"prompt": "一", "n": 0}, "n"),
        (TEXTS, {"prompt": "一", "n": 10**9}, "n"),
        (TEXTS, {"prompt": ["一"] * 100, "n": 16, "max_tokens": 60}, "n"),
        (TEXTS, {"prompt": "一", "seed": 2**70}, "seed"),
        (TEXTS, {"prompt": "一", "stop": ["x"] * 17}, "stop"),
        (TEXTS, {"prompt": "一", "stop": [""]}, "stop"),
        (TEXTS, {"prompt": "一", "stop": "x" * 1000}, "stop"),
        (TEXTS, {"prompt": "一", "logprobs": 21}, "logprobs"),
        (TEXTS, {"prompt": "一", "logprobs": True}, "logprobs"),
        (TEXTS, {"prompt": "一", "stream": "yes"}, "stream"),
        (TEXTS, {"prompt": "一", "logit_bias": {"5": 100}}, "logit_bias"),
        (TEXTS, {"prompt": "一", "suffix": "x"}, "suffix"),
        (TEXTS, {"prompt": "一", "best_of": 3}, "best_of"),
        (CHATS, {"messages": []}, "messages"),
        (CHATS, {"messages": "一"}, "messages"),
        (CHATS, {"messages": [{"role": "user"}]}, "messages"),
        (CHATS, {"messages": [{"role": "robot", "content": "一"}]}, "messages"),
        (CHATS, {"messages": [{"role": "user", "content": None}]}, "messages"),
        (
            CHATS,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages",
        ),
        (CHATS, {"messages": ASK, "tools": [{"type": "function"}]}, "tools"),
        (CHATS, {"messages": ASK, "max_tokens": 0}, "max_tokens"),
        (CHATS, {"messages": ASK, "max_tokens": 64}, "max_tokens"),
        (CHATS, {"messages": ASK, "top_logprobs": 2}, ""),
        (CHATS, {"messages": ASK, "response_format": {"type": "xml"}}, "response_format"),
        (CHATS, {"messages": ASK, "response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_a_wrong_field_is_named(start: Start, path: str, fields: dict, param: str) -> None:
    engine = ScriptedEngine()
    error = problem(start(engine).http.post(path, json={"model": MODEL, **fields}), 400)
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "") == param
    assert len(error["message"]) < 500
    assert engine.seen == []


BINDING = {
    **{name: {"x": 1} for name, values in parameters.NO_EFFECT.items() if {"x": 1} not in values},
    "guided_choice": ["甲", "乙"],
    "min_tokens": 5,
    "add_generation_prompt": False,
    "continue_final_message": True,
    "allowed_token_ids": [70],
    "bad_words": ["春"],
    "reasoning_effort": "high",
    "truncate_prompt_tokens": 10,
    "skip_special_tokens": False,
    "temprature": 0.5,  # nobody has heard of these
    "num_predict": 5,
}


@pytest.mark.parametrize(("path", "prompt"), [(TEXTS, {"prompt": "一"}), (CHATS, {"messages": ASK})])
def test_a_parameter_that_binds_and_is_not_obeyed_is_a_400_that_names_it(
    start: Start, path: str, prompt: dict
) -> None:
    engine = ScriptedEngine()
    client = start(engine)
    for name, value in BINDING.items():
        if path == TEXTS and name in requests.CompletionRequest.fields():
            continue
        error = problem(client.http.post(path, json={"model": MODEL, **prompt, name: value}), 400)
        assert error["param"] == name
        assert f"`{name}`" in error["message"]
    assert engine.seen == []


@pytest.mark.parametrize(("path", "prompt"), [(TEXTS, {"prompt": "一"}), (CHATS, {"messages": ASK})])
def test_a_parameter_that_asks_for_nothing_is_taken(start: Start, path: str, prompt: dict) -> None:
    client = start()
    idle = {name: values[0] for name, values in parameters.NO_EFFECT.items() if values}
    idle |= dict.fromkeys(parameters.NO_EFFECT.keys() - idle.keys()) | {"an_unknown_one": None}
    idle |= {name: {"x": "y"} for name in parameters.IGNORED}
    answer = client.http.post(path, json={"model": MODEL, **prompt, "max_tokens": 2, **idle})
    assert answer.status_code == 200, answer.text


def test_a_misspelt_parameter_is_told_its_right_name(start: Start) -> None:
    answer = start().http.post(TEXTS, json={"model": MODEL, "prompt": "一", "temprature": 0.5})
    assert "did you mean `temperature`?" in problem(answer, 400)["message"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"messages": [ASK[0] | {"tool_calls": [{"id": "1"}]}]}, "`tool_calls`"),
        ({"messages": [ASK[0], {"role": "assistant", "content": "二", "prefix": True}]}, "`prefix`"),
        ({"messages": ASK, "response_format": {"type": "json_object", "schema": {}}}, "`schema`"),
        (
            {"messages": ASK, "response_format": {"type": "text", "json_schema": {"schema": {}}}},
            "`json_schema`",
        ),
        ({"messages": ASK, "stream_options": {"continuous_usage_stats": True}}, "`continuous_usage_stats`"),
    ],
)
def test_a_field_within_a_field_that_is_not_obeyed_is_named(start: Start, fields: dict, named: str) -> None:
    error = problem(start().http.post(CHATS, json={"model": MODEL, **fields}), 400)
    assert named in error["message"]
    assert error["param"] == next(name for name in reversed(fields))


def test_an_answer_of_another_client_can_be_sent_back_as_it_came(start: Start) -> None:
    came = {
        "role": "assistant",
        "content": "二",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "tool_calls": None,
    }
    messages = [ASK[0] | {"name": "a"}, came, {"role": "user", "content": [{"type": "text", "text": "三"}]}]
    assert start().http.post(CHATS, json={"model": MODEL, "messages": messages}).status_code == 200


def test_what_tokenize_does_not_obey_is_named(start: Start) -> None:
    for name, value in (("add_generation_prompt", False), ("chat_template", "x"), ("frobnicate", 1)):
        answer = start().http.post("/tokenize", json={"messages": ASK, name: value})
        assert problem(answer, 400)["param"] == name
    answer = start().http.post("/tokenize", json={"messages": ASK, "add_special_tokens": True})
    assert "`add_special_tokens`" in problem(answer, 400)["message"]


TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
LOOPS = [
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"properties": {"x": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": {"allOf": [{"$ref": "#/$defs/a~1b"}]}}},
]


@pytest.mark.parametrize("schema", LOOPS)
def test_a_schema_whose_ref_leads_back_to_itself_is_refused_in_one_sentence(
    start: Start, schema: dict
) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = start().http.post(CHATS, json={"model": MODEL, "messages": ASK, "response_format": wanted})
    error = problem(answer, 400)
    assert error["param"] == "response_format"
    assert "leads back to itself" in error["message"]
    assert "\n" not in error["message"]


def test_a_schema_of_trees_and_refs_to_nowhere_are_no_loops() -> None:
    assert [
        json_schemas.find_loop(schema) for schema in (TREE, {"$ref": "#/no/where"}, {"$ref": "x.json#/a"}, {})
    ] == [""] * 4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b'{"model": "tiny-1", "prompt": "\xff"}',
        b'{"model": "tiny-1", "prompt": "\\ud800"}',
        b'{"model": "tiny-1", "prompt": ["a", "\\udfff"]}',
        b'{"model": "tiny-1", "prompt": "a", "stop": "\\ud800"}',
        b'{"model": "tiny-1", "prompt": "a", "temperature": NaN}',
        b'{"model": "tiny-1", "prompt": "a", "temperature": 1e999}',
        b'{"model": "tiny-1", "prompt": "a", "max_tokens": ' + b"9" * 50_000 + b"}",
        b'{"model": "tiny-1", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' * 20_000 + b"1" + b"}" * 20_000,
    ],
)
def test_a_body_that_is_no_request_is_a_400(start: Start, body: bytes) -> None:
    client = start()
    problem(client.http.post(TEXTS, content=body, headers={"Content-Type": "application/json"}), 400)
    assert client.complete("一", max_tokens=1)["choices"]


def test_a_form_is_told_to_be_json(start: Start) -> None:
    error = problem(start().http.post(TEXTS, data={"model": MODEL}), 400)
    assert "application/json" in error["message"]


def test_a_nested_schema_is_refused(start: Start) -> None:
    schema: dict = {}
    for _ in range(100):
        schema = {"properties": {"a": schema}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = problem(
        start().http.post(CHATS, json={"model": MODEL, "messages": ASK, "response_format": wanted}), 400
    )
    assert "deep" in error["message"]


def test_an_unknown_model_is_a_404_and_so_is_an_unknown_path(start: Start) -> None:
    client = start()
    error = problem(client.http.post(TEXTS, json={"model": "gpt-9", "prompt": "一"}), 404)
    assert error["code"] == "model_not_found"
    problem(client.http.get("/v1/models/gpt-9"), 404)
    for method, path in (
        ("POST", "/v1/responses"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/files"),
    ):
        error = problem(client.http.request(method, path), 404)
        assert (error["code"], error["type"]) == ("unknown_url", "invalid_request_error")
        assert f"{method} {path}" in error["message"]
    problem(client.http.get(TEXTS), 405)


def test_a_prompt_over_the_context_is_refused_before_any_compute(start: Start) -> None:
    engine = ScriptedEngine(context_tokens=64)
    client = start(engine)
    for body in ({"prompt": [70] * 64}, {"prompt": "山" * 2000}, {"prompt": [70] * 60, "max_tokens": 5}):
        assert (
            problem(client.http.post(TEXTS, json={"model": MODEL, **body}), 400)["code"]
            == errors.CONTEXT_EXCEEDED
        )
    messages = [{"role": "user", "content": "山" * 30_000}]
    error = problem(client.http.post(CHATS, json={"model": MODEL, "messages": messages}), 400)
    assert (error["code"], error["param"]) == (errors.CONTEXT_EXCEEDED, "messages")
    assert engine.seen == []


def test_too_many_log_probabilities_at_once_are_refused(start: Start) -> None:
    engine = ScriptedEngine(context_tokens=4096, slots=64)
    body = {"model": MODEL, "prompt": [[70] * 4000] * 16, "echo": True, "logprobs": 20, "max_tokens": 1}
    assert problem(start(engine).http.post(TEXTS, json=body), 400)["param"] == "logprobs"


def test_a_body_over_the_limit_is_refused_by_its_declared_length(start: Start) -> None:
    client = start()
    with socket.create_connection(("127.0.0.1", client.http.base_url.port or 0), timeout=30) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n")
        assert line.recv(12) == b"HTTP/1.1 413"


def test_a_body_over_the_limit_is_refused_while_it_comes(start: Start) -> None:
    client = start()
    with socket.create_connection(("127.0.0.1", client.http.base_url.port or 0), timeout=30) as line:
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(17):  # of 16 KiB: one more than the limit of 256 KiB has room for
            line.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        assert line.recv(12) == b"HTTP/1.1 413"


def test_a_full_queue_is_a_429_with_the_time_to_wait(start: Start) -> None:
    client = start(ScriptedEngine(full=True))
    for body in ({}, {"stream": True}, {"echo": True, "logprobs": 1}):
        answer = client.http.post(TEXTS, json={"model": MODEL, "prompt": "一", **body})
        assert problem(answer, 429)["type"] == "rate_limit_error"
        assert answer.headers["retry-after"] == "2"


def test_an_engine_that_died_is_a_503_and_says_nothing_of_paths(start: Start) -> None:
    client = start(ScriptedEngine(fails_after=0))
    for body in ({}, {"stream": True}):
        error = problem(client.http.post(TEXTS, json={"model": MODEL, "prompt": "一", **body}), 503)
        assert error["type"] == "server_error"
    inner = StorageError("cannot be read", where="/secret/path", remedy="look at /secret/path")
    assert "secret" not in errors.problem_of(inner).error.message
    assert errors.status_of(EngineFailed("x")) == 503


def test_ids_that_there_are_not_cannot_be_decoded(start: Start) -> None:
    problem(start().http.post("/detokenize", json={"tokens": [900_000]}), 400)


def test_depth_counts_lists_and_objects() -> None:
    assert [json_schemas.depth(value) for value in (1, [1], {"a": [1]}, [[], {"a": {"b": 1}}])] == [
        0,
        1,
        2,
        3,
    ]

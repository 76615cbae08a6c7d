"""/v1/completions: every kind of prompt, echo with log-probabilities, stop, n, streams."""

from __future__ import annotations

import math

import pytest

from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL
from tests.serving.conftest import Start

PATH = "/v1/completions"


def ids_of(tokenizer: SentencePiece, text: str) -> list[int]:
    return tokenizer.encode([text])[0].tolist()


def test_an_answer_has_text_reason_and_counts(start: Start, tokenizer: SentencePiece) -> None:
    answer = ids_of(tokenizer, "春天到了，花开。")
    client = start(ScriptedEngine([[*answer, tokenizer.eos_id]]))
    found = client.complete("山里", max_tokens=40)
    assert found["object"] == "text_completion"
    assert found["model"] == MODEL
    assert found["id"].startswith("cmpl-")
    [choice] = found["choices"]
    assert (choice["text"], choice["finish_reason"], choice["logprobs"]) == ("春天到了，花开。", "stop", None)
    prompt = 1 + len(ids_of(tokenizer, "山里"))
    assert found["usage"]["prompt_tokens"] == prompt
    assert found["usage"]["completion_tokens"] == len(answer) + 1
    assert found["usage"]["total_tokens"] == prompt + len(answer) + 1


def test_a_text_gets_bos_and_ids_are_taken_as_they_are(start: Start, tokenizer: SentencePiece) -> None:
    engine = ScriptedEngine()
    client = start(engine)
    client.complete("桥", max_tokens=1)
    client.complete("桥", max_tokens=1, add_special_tokens=False)
    client.complete([70, 71], max_tokens=1)
    plain = ids_of(tokenizer, "桥")
    assert [ids for ids, _ in engine.seen] == [[tokenizer.bos_id, *plain], plain, [70, 71]]


def test_text_that_spells_a_special_stays_text(start: Start, tokenizer: SentencePiece) -> None:
    engine = ScriptedEngine()
    start(engine).complete("<s></s><|end|><|user|>", max_tokens=1)
    [(ids, _)] = engine.seen
    assert ids[0] == tokenizer.bos_id
    assert not {*ids[1:]} & {*tokenizer.specials.values()}


@pytest.mark.parametrize("prompts", [["一", "二"], [[70, 71], [72]]])
def test_several_prompts_give_choices_in_their_order(start: Start, prompts: list) -> None:
    engine = ScriptedEngine()
    found = start(engine).complete(prompts, max_tokens=2, n=2)
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert len(engine.seen) == 4
    texts = [choice["text"] for choice in found["choices"]]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    once = start(ScriptedEngine()).complete(prompts, max_tokens=1)
    assert found["usage"]["prompt_tokens"] == once["usage"]["prompt_tokens"]


def seeds(start: Start, **asked: object) -> list[int | None]:
    """The seeds of the choices of a request, in no order."""
    engine = ScriptedEngine()
    start(engine).complete(**{"prompt": "一", "max_tokens": 1} | asked)
    return [sampling.seed for _, sampling in engine.seen]


def test_the_first_choice_has_the_seed_of_the_request_and_no_choice_has_that_of_another(start: Start) -> None:
    asked = [seeds(start, n=4, seed=seed) for seed in (-1, 0, 77, 78, 79, 2**63 - 1)]
    assert [seed in found for seed, found in zip((-1, 0, 77, 78), asked, strict=False)] == [True] * 4
    drawn = [seed for found in asked for seed in found]
    assert len(set(drawn)) == len(drawn) == 24
    assert all(-(2**63) <= seed < 2**63 for seed in drawn)  # of what vLLM takes


def test_prompts_of_one_seeded_request_have_seeds_of_their_own(start: Start) -> None:
    assert len(set(seeds(start, prompt=["一", "一", "一"], n=2, seed=5))) == 6
    assert seeds(start, prompt=["一"], seed=5) == [5]


def test_sampling_arrives_as_it_was_asked_for(start: Start, tokenizer: SentencePiece) -> None:
    engine = ScriptedEngine()
    asked = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "seed": 3,
    }
    asked |= {"presence_penalty": 0.2, "frequency_penalty": -0.3, "max_tokens": 7}
    client = start(engine)
    client.complete("一", **asked)
    client.complete("一", top_k=-1, temperature=None, seed=None, user="u", metadata={"a": "b"}, store=True)
    client.complete("一", ignore_eos=True)
    first, second, third = (sampling for _, sampling in engine.seen)
    assert {name: getattr(first, name) for name in asked} == asked
    assert first.stop_ids == {tokenizer.eos_id, tokenizer.specials["<|end|>"]}
    assert (second.top_k, second.temperature, second.seed, second.max_tokens) == (0, 1.0, None, 16)
    assert third.stop_ids == frozenset()


def test_a_stop_string_ends_the_answer_before_it_and_frees_the_slot(
    start: Start, tokenizer: SentencePiece
) -> None:
    engine = ScriptedEngine([ids_of(tokenizer, "春天到了。花开得很好。我们去山里")])
    found = start(engine).complete("一", max_tokens=40, stop=["花开", "山里"])
    [choice] = found["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("春天到了。", "stop")
    assert engine.cancelled == 1


def test_a_stop_id_of_a_request_ends_the_answer_and_its_text_is_left_out(
    start: Start, tokenizer: SentencePiece
) -> None:
    answer = ids_of(tokenizer, "春天到了。花开")
    engine = ScriptedEngine([answer])
    for fields in ({}, {"ignore_eos": True}):
        found = start(engine).complete("一", max_tokens=40, stop_token_ids=[answer[2], 999], **fields)
        [choice] = found["choices"]
        assert (choice["text"], choice["finish_reason"]) == (tokenizer.decode(answer[:2]), "stop")
        assert found["usage"]["completion_tokens"] == 3
    first, second = (sampling.stop_ids for _, sampling in engine.seen)
    assert second == {answer[2], 999} < first
    body = {"model": MODEL, "prompt": "一", "stop_token_ids": [1000]}
    assert start(engine).http.post(PATH, json=body).json()["error"]["param"] == "stop_token_ids"


def test_a_stream_gives_the_same_text_as_the_whole_answer(start: Start, tokenizer: SentencePiece) -> None:
    text = "春天🎏到了。\u2028花開\r\n得很好"  # not in the vocabulary: byte pieces; a line separator
    client = start(ScriptedEngine([ids_of(tokenizer, text)]))
    for fields in ({}, {"stop": ["很"]}, {"n": 3}, {"logprobs": 2}, {"echo": True}):
        whole = client.complete("山里", max_tokens=50, **fields)
        texts = ["" for _ in whole["choices"]]
        for event in client.stream(PATH, prompt="山里", max_tokens=50, **fields):
            [choice] = event["choices"]
            texts[choice["index"]] += choice["text"]
            assert "\ufffd" not in choice["text"]
        assert texts == [choice["text"] for choice in whole["choices"]]
        assert text[:5] in texts[0]


def test_a_stream_ends_with_counts_where_they_are_asked_for(start: Start) -> None:
    client = start()
    events = client.stream(PATH, prompt="山里", max_tokens=3, stream_options={"include_usage": True})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == client.complete("山里", max_tokens=3)["usage"]
    assert not any(event["usage"] for event in client.stream(PATH, prompt="山里", max_tokens=3))


def test_echo_with_logprobs_tells_all_tokens_of_prompt_and_answer(
    start: Start, tokenizer: SentencePiece
) -> None:
    ids = [tokenizer.bos_id, *ids_of(tokenizer, "山里🎏走")]
    found = start(ScriptedEngine()).complete(ids, max_tokens=1, echo=True, logprobs=1)
    [choice] = found["choices"]
    told = choice["logprobs"]
    assert choice["text"].startswith("山里🎏走")
    assert told["token_logprobs"] == [None, *(-(1 + i % 7) / 4 for i in [*ids[1:], ids[0]])]
    assert told["top_logprobs"][0] is None
    assert all(len(top) == 1 and math.isclose(max(top.values()), -0.25) for top in told["top_logprobs"][1:])
    assert told["tokens"][0] == "<s>"
    assert len(told["tokens"]) == len(told["text_offset"]) == len(ids) + 1
    flag = [f"bytes:\\x{byte:02x}" for byte in "🎏".encode()]
    at = told["tokens"].index(flag[0])
    assert told["tokens"][at : at + 4] == flag
    assert told["text_offset"][at : at + 5] == [2, 2, 2, 2, 3]
    assert told["text_offset"][0] == told["text_offset"][1] == 0


def test_echo_without_an_answer_asks_the_engine_for_none(start: Start) -> None:
    engine = ScriptedEngine()
    found = start(engine).complete("山里", max_tokens=0, echo=True, logprobs=0)
    [choice] = found["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("山里", "length")
    assert choice["logprobs"]["top_logprobs"] is None
    assert engine.seen == []


def test_logprobs_of_a_stream_add_up_to_those_of_the_whole_answer(
    start: Start, tokenizer: SentencePiece
) -> None:
    client = start(ScriptedEngine([ids_of(tokenizer, "花🎏开")]))
    asked = {"prompt": "一", "max_tokens": 30, "logprobs": 2, "echo": True}
    whole = client.complete(**asked)["choices"][0]["logprobs"]
    parts = [event["choices"][0]["logprobs"] for event in client.stream(PATH, **asked)]
    for name, values in whole.items():
        assert [value for part in parts for value in part[name]] == values


def test_a_large_batch_leaves_the_queue_to_others(start: Start) -> None:
    engine = ScriptedEngine(slots=2, max_waiting=16, delay_s=0.001)
    found = start(engine).complete([[70 + i] for i in range(100)], max_tokens=1)
    assert len(found["choices"]) == 100

"""What every engine keeps to: the scripted one of other tests, the one that computes, and our side of
vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ctllm_ray.base.errors import InputError, Overloaded
from ctllm_ray.inference.engine import Engine, Sampling
from ctllm_ray.serving.ray.engines.vllm import VllmEngine
from tests.inference.scripted_engine import ScriptedEngine
from tests.inference.tiny_engines import GREEDY, collect, engine, finish_of, ids_of, together, tokens_of
from tests.serving.vllm_stand_in import StandIn

CONTEXT = 64


@pytest.fixture(params=["scripted", "torch", "vllm"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "scripted":
        yield ScriptedEngine(vocab_size=128, context_tokens=CONTEXT)
    else:
        with engine(context_tokens=CONTEXT) as opened:
            is_vllm = request.param == "vllm"  # its side of the wire; behind it stands ours
            yield VllmEngine(StandIn(opened).completions, 4, CONTEXT, 128) if is_vllm else opened


def test_an_answer_has_as_many_tokens_as_were_asked_for(any_engine: Engine) -> None:
    [outputs] = together(collect(any_engine, [5, 6, 7]))
    assert len(ids_of(outputs)) == GREEDY.max_tokens
    assert finish_of(outputs) == "length"
    assert all(output.tokens for output in outputs)
    assert not any(output.finish for output in outputs[:-1])


def test_an_answer_ends_where_the_context_is_full(any_engine: Engine) -> None:
    [outputs] = together(collect(any_engine, [5] * (CONTEXT - 3), Sampling(max_tokens=1000, temperature=0)))
    assert len(ids_of(outputs)) == 3
    assert finish_of(outputs) == "length"


def test_a_stop_id_ends_the_answer_and_is_given(any_engine: Engine) -> None:
    [outputs] = together(collect(any_engine, [5, 6, 7]))
    stop = ids_of(outputs)[1]
    until = ids_of(outputs).index(stop) + 1
    [outputs] = together(
        collect(any_engine, [5, 6, 7], Sampling(12, temperature=0, stop_ids=frozenset({stop, 127})))
    )
    assert len(ids_of(outputs)) == until
    assert ids_of(outputs)[-1] == stop
    assert finish_of(outputs) == "stop"


def test_as_many_likely_ids_are_told_as_were_asked_for_and_fall(any_engine: Engine) -> None:
    [outputs] = together(collect(any_engine, [5, 6, 7], Sampling(4, temperature=0, top_logprobs=3)))
    for token in tokens_of(outputs):
        values = [value for _, value in token.top]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert token.logprob <= values[0] <= 0


def test_log_probabilities_are_told_for_each_id_from_the_start_on(any_engine: Engine) -> None:
    found, late, none = together(
        any_engine.logprobs([5, 6, 7, 8]),
        any_engine.logprobs([5, 6, 7, 8], 3, 2),
        any_engine.logprobs([5], 1),
    )
    assert [token.id for token in found] == [6, 7, 8]
    assert [token.id for token in late] == [8]
    assert late[0].logprob == pytest.approx(found[2].logprob, abs=1e-5)
    assert len(late[0].top) == 2
    assert none == []


def test_others_in_the_place_of_the_last_id_are_told_as_if_each_had_been_asked_for(
    any_engine: Engine,
) -> None:
    one, *each = together(
        any_engine.logprobs([5, 6, 7, 8], 2, 1, [9, 10, 8]),
        *(any_engine.logprobs([5, 6, 7, last], 2, 1) for last in (8, 9, 10, 8)),
    )
    assert [token.id for token in one] == [7, 8]
    assert len(one[0].top) == 1
    (likely, *others), (first, *_) = one[1].top, each[0][1].top
    assert likely[0] == first[0]
    assert [id_ for id_, _ in others] == [9, 10, 8]
    for (_, logprob), found in zip([(8, one[1].logprob), *others], each, strict=True):
        assert logprob == pytest.approx(found[-1].logprob, abs=1e-5)


@pytest.mark.parametrize("ids", [[], [128], [-1], [1] * CONTEXT, [1] * 1000])
def test_a_prompt_that_cannot_be_computed_is_an_input_error(any_engine: Engine, ids: list[int]) -> None:
    with pytest.raises(InputError):
        together(collect(any_engine, ids))
    assert together(collect(any_engine, [1]))  # and nothing is lost


def test_closing_an_answer_frees_its_slot_at_once(any_engine: Engine) -> None:
    async def leave() -> tuple[int, int]:
        answer = any_engine.generate([5, 6, 7], Sampling(40))
        await anext(answer)
        before = (await any_engine.load()).running
        await answer.aclose()  # type: ignore[attr-defined]
        return before, (await any_engine.load()).running

    assert asyncio.run(leave()) == (1, 0)


def test_more_requests_than_slots_wait_and_are_all_answered(any_engine: Engine) -> None:
    found = together(*(collect(any_engine, [n, n + 1]) for n in range(20)))
    assert [len(ids_of(outputs)) for outputs in found] == [GREEDY.max_tokens] * 20
    load = together(any_engine.load())[0]
    assert (load.running, load.waiting, load.used_tokens) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["scripted", "torch"])
def test_a_full_queue_is_told_at_once(kind: str) -> None:
    async def crowd(of: Engine) -> int:
        asked = [asyncio.create_task(collect(of, [n], Sampling(30))) for n in range(12)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, list | Overloaded) for each in found)
        return sum(isinstance(each, Overloaded) for each in found)

    if kind == "scripted":
        assert asyncio.run(crowd(ScriptedEngine(slots=2, max_waiting=3))) == 7
    else:
        with engine(slots=2, max_waiting=3) as opened:
            assert asyncio.run(crowd(opened)) == 7

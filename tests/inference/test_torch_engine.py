"""The torch engine says what transformers says, whoever else is served, and gives up nothing when things go
wrong."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctllm_ray.base.errors import EngineFailed, InputError
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import Sampling
from ctllm_ray.inference.requests import GenerateRequest, Inbox, ScoreRequest
from ctllm_ray.inference.sampling import Chooser
from ctllm_ray.inference.slots import WORTH_WAITING_TOKENS
from ctllm_ray.inference.steps import Steps
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model.config import ModelConfig
from tests.inference.tiny_engines import (
    GREEDY,
    PLAIN,
    SHAPE,
    collect,
    decoder,
    engine,
    expected,
    expected_logprobs,
    ids_of,
    model,
    prompts,
    together,
    tokens_of,
)

torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [SHAPE, PLAIN], ids=["grouped", "plain"])
def test_greedy_answers_are_those_of_transformers_for_ragged_prompts_joined_at_different_times(
    shape: ModelConfig,
) -> None:
    async def late(ids: Sequence[int], before_s: float) -> list[int]:
        await asyncio.sleep(before_s)
        return ids_of(await collect(opened, ids))

    given = prompts(14)
    with engine(shape) as opened:
        found = together(*(late(ids, 0.01 * (n // 3)) for n, ids in enumerate(given)))
    assert found == [expected(ids, GREEDY.max_tokens, shape) for ids in given]


def test_biases_and_stretched_rope_are_computed_as_transformers_does() -> None:
    scaling = {
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    for shape in (
        ModelConfig(2, 64, 4, 2, 16, 96, 128, 96, attention_bias=True, mlp_bias=True, init_std=0.2),
        ModelConfig(2, 64, 4, 2, 16, 96, 128, 96, rope_scaling=scaling, init_std=0.2),
    ):
        [ids] = prompts(1, 30, 30)
        with engine(shape) as opened:
            [outputs] = together(collect(opened, ids))
        assert ids_of(outputs) == expected(ids, GREEDY.max_tokens, shape)


def test_log_probabilities_are_those_of_transformers_within_1e_4() -> None:
    [ids] = prompts(1, 60, 60)
    exact = expected_logprobs(ids)
    with engine() as opened:
        [found, outputs] = together(
            opened.logprobs(ids, start=5, top=4), collect(opened, ids[:20], Sampling(6, top_logprobs=128))
        )
    for position, token in enumerate(found, start=5):
        assert token.logprob == pytest.approx(float(exact[position - 1, token.id]), abs=1e-4)
        best = exact[position - 1].topk(4)
        assert [id_ for id_, _ in token.top] == best.indices.tolist()
        assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    told = tokens_of(outputs)[0]
    assert dict(told.top) == pytest.approx(dict(enumerate(exact[19].tolist())), abs=1e-4)
    assert told.logprob == pytest.approx(float(exact[19, told.id]), abs=1e-4)


def test_the_same_seed_gives_the_same_answer_whoever_else_is_served() -> None:
    mine, *others = prompts(9)
    seeded = Sampling(max_tokens=20, seed=7, temperature=0.9, top_p=0.95)
    with engine() as opened:
        [alone] = together(collect(opened, mine, seeded))
        [crowded, *_] = together(
            collect(opened, mine, seeded), *(collect(opened, ids, Sampling(30)) for ids in others)
        )
        [other] = together(
            collect(opened, mine, Sampling(max_tokens=20, seed=8, temperature=0.9, top_p=0.95))
        )
    assert ids_of(alone) == ids_of(crowded) != ids_of(other)


def test_an_answer_that_goes_on_from_another_engine_is_the_same_answer() -> None:
    whole = Sampling(20, seed=3, repetition_penalty=1.3, frequency_penalty=0.2, stop_ids=frozenset({0}))
    [ids] = prompts(1)
    with engine() as opened:
        answer = ids_of(together(collect(opened, ids, whole))[0])
        rest = replace(whole, max_tokens=13, answer_prefix_tokens=7)
        assert ids_of(together(collect(opened, [*ids, *answer[:7]], rest))[0]) == answer[7:]


def test_a_shared_prefix_is_taken_over_and_changes_no_answer() -> None:
    shared = prompts(1, 50, 50)[0]
    given = [[*shared, *ids] for ids in prompts(10, 1, 9, seed=1)]
    with engine() as opened:
        found = together(*(collect(opened, ids) for ids in given))
        again = together(*(collect(opened, ids) for ids in given))
    exact = [expected(ids, GREEDY.max_tokens) for ids in given]
    assert [ids_of(outputs) for outputs in found] == exact == [ids_of(outputs) for outputs in again]
    least = len(shared) - WORTH_WAITING_TOKENS
    assert [outputs[0].cached_tokens > least for outputs in found] == [False, *[True] * 9]
    assert not any(output.cached_tokens for outputs in found for output in outputs[1:])


def test_a_conversation_that_goes_on_computes_its_new_part_only() -> None:
    [first, second] = prompts(2, 20, 20)
    with engine(slots=2) as opened:
        [outputs] = together(collect(opened, first))
        longer = [*first, *ids_of(outputs), *second]
        [more] = together(collect(opened, longer))
    assert more[0].cached_tokens == len(first) + GREEDY.max_tokens - 1  # the last id was never put in
    assert ids_of(more) == expected(longer, GREEDY.max_tokens)


def test_a_request_cancelled_in_the_midst_of_its_prompt_harms_no_other() -> None:
    async def cancelled(ids: Sequence[int]) -> None:
        waiting = asyncio.create_task(collect(opened, ids))
        await asyncio.sleep(0.002)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    given = prompts(8, 60, 80)
    with engine(prefill_tokens=4) as opened:
        found = together(*(cancelled(ids) if n % 2 else collect(opened, ids) for n, ids in enumerate(given)))
        load = together(opened.load())[0]
    assert (load.running, load.waiting) == (0, 0)
    assert [ids_of(found[n]) for n in range(0, 8, 2)] == [
        expected(given[n], GREEDY.max_tokens) for n in range(0, 8, 2)
    ]


def test_a_crowd_that_comes_and_goes_gets_exact_answers_only() -> None:
    draw = random.Random(0)
    roots = prompts(3, 20, 60)
    given = [
        root[: draw.randrange(2, 60)] + ids for root in roots for ids in prompts(4, 1, 15, seed=len(root))
    ]
    exact = [(expected(ids, GREEDY.max_tokens), expected_logprobs(ids)) for ids in given]

    async def client(number: int) -> None:
        own = random.Random(number)
        for _ in range(8):
            n = own.randrange(len(given))
            match own.randrange(4):
                case 0:
                    leaving = asyncio.create_task(collect(opened, given[n]))
                    await asyncio.sleep(own.random() * 0.02)
                    leaving.cancel()
                case 1:
                    for at, token in enumerate(await opened.logprobs(given[n])):
                        assert token.logprob == pytest.approx(float(exact[n][1][at, token.id]), abs=1e-4)
                case _:
                    assert ids_of(await collect(opened, given[n])) == exact[n][0]

    with engine(prefill_tokens=24) as opened:
        together(*(client(number) for number in range(24)))
        load = together(opened.load())[0]
    assert (load.running, load.waiting, load.used_tokens) == (0, 0, 0)


def test_prompts_that_somebody_waits_for_go_before_those_that_are_only_scored() -> None:
    async def planned() -> list[tuple[type, int]]:
        steps = Steps(decoder(slots=2), prefill_tokens=16)
        steps.waiting += [ScoreRequest([n] * 30, Inbox(), 1, 0) for n in range(3)]
        steps.waiting += [GenerateRequest([9] * 8, Inbox(), Chooser(GREEDY, [9]), 4)]
        return [(type(request), len(piece.ids)) for request, piece in steps.begin().planned]

    assert asyncio.run(planned()) == [(GenerateRequest, 8), (ScoreRequest, 8)]


def test_an_engine_whose_thread_dies_tells_all_who_wait_and_all_who_come() -> None:
    async def all_fail() -> None:
        asked = [asyncio.create_task(collect(opened, [n], Sampling(60))) for n in range(6)]
        await asyncio.sleep(0.01)
        opened._decoder.forward = broken  # type: ignore[method-assign]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, EngineFailed)
            assert "out of memory" in str(outcome)
        with pytest.raises(EngineFailed):
            await opened.load()
        with pytest.raises(EngineFailed):
            await collect(opened, [1])

    def broken(pieces: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with engine() as opened:
        asyncio.run(all_fail())


def test_a_step_that_never_ends_is_noticed() -> None:
    go_on = threading.Event()

    async def stuck() -> None:
        forward = opened._decoder.forward
        opened._decoder.forward = lambda pieces: (go_on.wait(), forward(pieces))[1]  # type: ignore[method-assign]
        with pytest.raises(EngineFailed, match="no step finished"):
            await collect(opened, [1, 2])
        with pytest.raises(EngineFailed, match="no step finished"):
            await opened.load()

    with engine(stuck_s=0.2) as opened:
        asyncio.run(stuck())
        go_on.set()


def test_closing_an_engine_ends_its_threads_and_tells_who_waits() -> None:
    async def closed_meanwhile() -> None:
        asked = asyncio.create_task(collect(opened, [1], Sampling(90)))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(opened.close)
        with pytest.raises(EngineFailed, match="closed"):
            await asked

    with engine() as opened:
        asyncio.run(closed_meanwhile())
    assert not any(thread.is_alive() for thread in opened._threads)


def test_a_folder_is_served_within_the_context_that_the_cache_allows(tmp_path: Path) -> None:
    hugging_face.save_model(model(), SHAPE, str(tmp_path))
    opened = TorchEngine.open(str(tmp_path), Serve(slots=2, cache_tokens=100))
    try:
        assert (opened.context_tokens, opened.vocab_size) == (50, 128)
        [outputs] = together(collect(opened, [1, 2, 3]))
        assert ids_of(outputs) == expected([1, 2, 3], GREEDY.max_tokens)
    finally:
        opened.close()


def test_bf16_answers_as_the_rounded_model_does(tmp_path: Path) -> None:
    hugging_face.save_model(model(), SHAPE, str(tmp_path))
    opened = TorchEngine.open(str(tmp_path), Serve(slots=2, precision="bf16"))
    exact = expected_logprobs([1, 2, 3, 4, 5])
    try:
        [found] = together(opened.logprobs([1, 2, 3, 4, 5]))
        for position, token in enumerate(found):
            assert token.logprob == pytest.approx(float(exact[position, token.id]), abs=0.3)
    finally:
        opened.close()


def test_a_corrupted_folder_is_an_input_error(tmp_path: Path) -> None:
    broken = model()
    broken.model.layers[1].mlp.down_proj.weight.data[3, 4] = float("nan")
    hugging_face.save_model(broken, SHAPE, str(tmp_path))
    with pytest.raises(InputError, match="NaN or infinity"):
        TorchEngine.open(str(tmp_path), Serve())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError):
        TorchEngine.open(str(tmp_path), Serve())
    weights.unlink()
    with pytest.raises(InputError):
        TorchEngine.open(str(tmp_path), Serve())


def test_a_gpu_that_is_not_there_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hugging_face.save_model(model(), SHAPE, str(tmp_path))
    with pytest.raises(InputError, match="GPU"):
        TorchEngine.open(str(tmp_path), Serve(gpus=1))

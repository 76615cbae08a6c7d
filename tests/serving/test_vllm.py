"""vLLM's side of the engine: requests in its own terms, its errors, the configuration of Ray Serve LLM."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.build_app import build_app

from ctllm_ray.base.errors import CtllmError, EngineFailed, InputError
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import Sampling, Token
from ctllm_ray.model.fingerprint import hash_model
from ctllm_ray.serving.ray import application, model_replaced
from ctllm_ray.serving.ray.engines import vllm
from ctllm_ray.serving.ray.engines.vllm import VllmEngine
from tests.inference.scripted_engine import ScriptedEngine
from tests.inference.tiny_engines import collect, engine, prompts, together, tokens_of
from tests.serving.vllm_installed import vllm_installed
from tests.serving.vllm_stand_in import StandIn, Whole

SERVE = Serve(engine="vllm", gpus=2, slots=48, precision="bf16")
FACTS = {"sha256": "0" * 64, "context_tokens": 4096, "vocab_size": 128}


def over(*items: Any) -> VllmEngine:
    """An engine to which vLLM answers this, whatever it is asked."""

    async def completions(plain: dict[str, Any]) -> AsyncGenerator[Any]:
        for item in items:
            yield item

    return VllmEngine(completions, 4, 64, 128)


def agree(some: Sequence[Token], others: Sequence[Token]) -> None:
    """The same ids, and log-probabilities within what the company in a batch changes."""
    assert [(t.id, [id_ for id_, _ in t.top]) for t in some] == [
        (t.id, [id_ for id_, _ in t.top]) for t in others
    ]
    values = [[t.logprob for t in tokens] for tokens in (some, others)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_what_vllm_tells_is_what_the_engine_below_it_told() -> None:
    """Ids, log-probabilities and the most likely ones come through its API unchanged."""
    sampling = Sampling(10, temperature=0.8, top_k=20, seed=3, top_logprobs=3, stop_ids=frozenset({9}))
    with engine() as below:
        ours = VllmEngine(StandIn(below).completions, 4, 96, 128)
        for ids in prompts(5):
            [through, direct] = together(collect(ours, ids, sampling), collect(below, ids, sampling))
            agree(tokens_of(through), tokens_of(direct))
            scored, expected = together(ours.logprobs(ids, 1, 2, [7, 8]), below.logprobs(ids, 1, 2, [7, 8]))
            agree(scored, expected)


def test_every_choice_of_a_sampling_is_told_and_none_left_to_the_folder() -> None:
    stand_in = StandIn(ScriptedEngine(vocab_size=128))
    sampling = Sampling(5, 0.7, 0.9, 40, 0.05, 1.1, 0.2, 0.3, 17, frozenset({2, 1}), 4, '{"type":"object"}')
    together(collect(VllmEngine(stand_in.completions, 4, 64, 128), [5, 6], sampling))
    [asked] = stand_in.asked
    assert (asked.max_tokens, asked.temperature, asked.top_p, asked.top_k, asked.min_p) == (
        5,
        0.7,
        0.9,
        40,
        0.05,
    )
    assert (asked.repetition_penalty, asked.presence_penalty, asked.frequency_penalty) == (1.1, 0.2, 0.3)
    assert (asked.seed, asked.stop_token_ids, asked.logprobs) == (17, [1, 2], 4)
    assert asked.structured_outputs == {"json": '{"type":"object"}'}
    assert asked.ignore_eos
    assert not asked.add_special_tokens


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        ([Whole(error={"message": "too long", "code": 400})], InputError),
        ([Whole(error={"message": "CUDA error", "code": 500})], EngineFailed),
        (['data: {"error": {"message": "died", "code": 500}}\n\n'], EngineFailed),
        (['data: {"choices": [{"token_ids": [], "finish_reason": "abort"}]}\n\n'], EngineFailed),
    ],
)
def test_what_vllm_complains_of_is_an_error_of_ours(items: list[Any], kind: type[CtllmError]) -> None:
    with pytest.raises(kind):
        together(collect(over(*items), [5]))


def test_an_answer_that_never_came_is_an_error_and_leaves_nothing_behind() -> None:
    silent = over()
    with pytest.raises(EngineFailed, match="without an answer"):
        asyncio.run(silent.logprobs([5, 6]))
    assert asyncio.run(silent.load()).running == 0


def test_ray_serve_llm_takes_the_configuration() -> None:
    from ray.llm._internal.serve.core.configs.llm_config import LLMConfig  # the public name imports vLLM

    config = LLMConfig(**vllm.config(SERVE, "/models/m", 4096))
    assert config.model_loading_config.model_source == "/models/m"
    assert config.engine_kwargs["tensor_parallel_size"] == 2
    assert config.engine_kwargs["dtype"] == "bfloat16"
    assert config.engine_kwargs["max_num_seqs"] == 48
    assert config.experimental_configs["stream_batching_interval_ms"] == 0


class Server:
    """As much of Ray Serve LLM's server as there is without vLLM."""

    async def __init__(self, llm_config: object) -> None:
        self.config, self.started = llm_config, False
        await self.start()

    async def start(self) -> None:
        self.started = True

    async def check_health(self) -> None:
        """It is well."""


async def made_in(folder: Path, sha256: str, patch: pytest.MonkeyPatch) -> Any:
    """A replica that was deployed with this hash."""
    patch.setattr(vllm, "replica_id", lambda: "r1")
    kind = vllm.replica(Server)
    made = kind.__new__(kind)
    await made.__init__("config", str(folder), sha256, slots=4, context_tokens=64, vocab_size=128)
    return made


def test_a_replica_of_another_model_starts_no_vllm_and_answers_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        made = await made_in(tmp_path, "0" * 64, monkeypatch)
        assert not made.started
        assert (await made.load()).refusing == 1
        await made.check_health()
        monkeypatch.setattr(model_replaced, "AGAIN_S", -1.0)
        for asked in (
            made.check_health(),
            made.logprobs([5], 1, 0, []),
            anext(made.generate([5], Sampling(1))),
        ):
            with pytest.raises(model_replaced.ModelReplaced, match=str(tmp_path)):
                await asked

    asyncio.run(ask())


def test_replicas_have_the_methods_of_ours_and_speak_to_the_server_that_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandIn(ScriptedEngine(vocab_size=128))

    async def ask() -> tuple[list[int], int]:
        made = await made_in(tmp_path, hash_model(str(tmp_path)), monkeypatch)
        assert made.started
        made._ours = VllmEngine(stand_in.completions, 4, 64, 128)
        await made.check_health()
        ids = [token.id async for output in made.generate([5, 6, 7], Sampling(3)) for token in output.tokens]
        return ids, len(await made.logprobs([5, 6, 7], 1, 0, []))

    assert asyncio.run(ask()) == ([5, 6, 7], 2)


def test_ray_serve_llm_builds_the_deployment_with_the_options_of_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = application.engine_options(SERVE)
    with vllm_installed(monkeypatch):
        bound = vllm.bind_engine(SERVE, "/models/m", FACTS, options)
        made = build_app(bound, name="a", default_runtime_env={})
    [engine] = made.deployments
    assert engine.name == "engine"
    assert engine.max_ongoing_requests == options["max_ongoing_requests"]
    assert engine._deployment_config.autoscaling_config == options["autoscaling_config"]
    assert [bundle["GPU"] for bundle in engine._replica_config.placement_group_bundles] == [1, 1]
    methods = ["start", "check_health", "generate", "logprobs", "load"]
    assert [name for name in vars(engine.func_or_class) if not name.startswith("_")] == methods


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_deployment_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r"ctllm-ray\[vllm\]"):
        vllm.bind_engine(SERVE, "/models/m", FACTS, application.engine_options(SERVE))

"""Runs `ctllm evaluate`: a recipe's benchmarks on a model in this process or behind an API.

In process, the engine is the one that serves (inference/torch_engine.py) with the recipe's part
`serve`: slots, precision, threads. Its queue is kept filled, twice as many requests as slots. No Ray:
one process has the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.evaluate.evaluation import EvaluationRun
from ctllm_ray.evaluate.formats.chat_form import choose_form
from ctllm_ray.evaluate.models import model_identity, openai_model
from ctllm_ray.evaluate.models.concurrency import Runner, Tell, own_loop
from ctllm_ray.evaluate.models.model_under_test import EngineModel, ModelUnderTest
from ctllm_ray.evaluate.models.openai_client import Client, key_of
from ctllm_ray.evaluate.models.probes import Probes
from ctllm_ray.evaluate.plan import locate_paths, plan_evaluation
from ctllm_ray.evaluate.scoring import contamination
from ctllm_ray.model.folder import GENERATION
from ctllm_ray.tokenizer import specials
from ctllm_ray.tokenizer.tokenizer import Tokenizer, load_tokenizer
from ctllm_ray.train.checkpoint import export


def evaluate(recipe: Recipe, tell: Tell, *, url: str = "", key_env: str = "") -> dict[str, Any]:
    """Evaluates and returns the results, which are stored in the
    recipe's folder `evaluate`. With `url`, the model served there.

    Raises `RecipeError` if the recipe has no evaluation, `VersionConflict` if its folder has another one.
    """
    part = locate_paths(recipe)
    folder = part.model or export.newest_export(recipe)
    tokenizer = load_tokenizer(folder)
    planned = plan_evaluation(part, tokenizer, contamination.folder_of(recipe))
    with own_loop() as loop:
        runner = Runner(loop)
        behind = (
            _open_served(url, key_env, runner, tokenizer, part.at_once)
            if url
            else _in_process(recipe, folder, tokenizer)
        )
        with behind as (subject, model, at_once):
            probes = Probes(subject, tokenizer) if url else None
            form = choose_form(folder, tokenizer, part.judge.form if part.judge else "auto")
            work = EvaluationRun(
                planned, recipe.folder("evaluate"), subject, form, model, at_once, probes=probes
            )
            return work.carry_out(runner, tell)


@contextmanager
def _in_process(
    recipe: Recipe, folder: str, tokenizer: Tokenizer
) -> Iterator[tuple[ModelUnderTest, dict[str, Any], int]]:
    from ctllm_ray.inference.torch_engine import TorchEngine  # imports torch

    at_once = recipe.serve.slots + min(recipe.serve.slots, recipe.serve.max_waiting)
    model = model_identity.identify_model(folder, tokenizer) | model_identity.describe_engine(
        recipe.serve, "torch"
    )
    engine = TorchEngine.open(folder, recipe.serve)
    try:
        yield EngineModel(engine, tokenizer, stop_ids(folder, tokenizer)), model, at_once
    finally:
        engine.close()


@contextmanager
def _open_served(
    url: str, key_env: str, runner: Runner, tokenizer: Tokenizer, at_once: int
) -> Iterator[tuple[ModelUnderTest, dict[str, Any], int]]:
    client = Client(url, key_of(key_env))
    runner.run(client.__aenter__())
    try:
        served_model = runner.run(openai_model.find_served_model(client))
        runner.run(openai_model.check_tokenizer(client, served_model.id, tokenizer))
        if not served_model.context_tokens:
            remedy = "serve the model with `ctllm serve` or vLLM, which report it"
            raise InputError("the API does not report the model's context length", where=url, remedy=remedy)
        subject = openai_model.OpenAIModel(client, served_model.id, served_model.context_tokens, tokenizer)
        yield (
            subject,
            {"weights": _weights(served_model, url), "tokenizer": tokenizer.sha256, "engine": "api"},
            at_once,
        )
    finally:
        runner.finish(client.__aexit__(None, None, None))


def _weights(served: openai_model.ServedModel, url: str) -> dict[str, str]:
    """Identifies a served model by the most certain facts of its API; probes check that it stays the same."""
    if served.sha256:
        return {"model_sha256": served.sha256}
    return model_identity.weights_of_lineage(served.lineage) or {"id": served.id, "url": url}


def stop_ids(folder: str, tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end an answer: EOS, the end of a turn, and those in the
    folder's generation_config.json."""
    path = storage.join(folder, GENERATION)
    named = (storage.read_json(path) if storage.exists(path) else {}).get("eos_token_id")
    turn = tokenizer.specials.get(specials.END, tokenizer.eos_id)
    return frozenset([named] if isinstance(named, int) else named or []) | {tokenizer.eos_id, turn}

"""The whole ladder on one machine: crawl, shards, tokenizer, pretraining, SFT, DPO, sweep, evaluation, served
model.

Every rung is what its own command does, with the recipes that stand side by side (`tiny.yaml`,
`tiny_sft.yaml`, `tiny_dpo.yaml`), so a second demo finds all of it done. Ray is started once for all rungs.
At the end the model is asked one question over HTTP, as any client would.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe, load_recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine.progress import SectionProgress
from ctllm_ray.corpus.report.render import write_corpus_report
from ctllm_ray.evaluate import terminal
from ctllm_ray.evaluate.run import evaluate
from ctllm_ray.mixture import plan
from ctllm_ray.mixture.launch import run_sweep
from ctllm_ray.mixture.report import outcome
from ctllm_ray.model import config
from ctllm_ray.serving.ray import application
from ctllm_ray.train.checkpoint import export
from ctllm_ray.train.ray.launch import run_training
from ctllm_ray.train.report.progress import Following
from ctllm_ray.train.report.render import write_training_report

QUESTION, TOKENS = "“大”的反义词是什么？", 48
ALIGNED = ("sft", "dpo")  # recipes beside the first one: <name>_sft.yaml, <name>_dpo.yaml
Tell = Callable[[str], None]


def run_demo(path: str, recipe: Recipe, tell: Tell, stay: bool) -> None:
    """Climbs the ladder, asks the served model one question, and with `stay` serves on until Ctrl-C.

    `path` is the recipe's file, beside which those of the aligned models stand; they share its root and
    resources. `tell` is given lines for people. Raises `CtllmError` as the rungs do.
    """
    began = time.monotonic()
    with application.serving_session(os.cpu_count() or 1, recipe.resources.object_store_mb):
        rung = _Rung(tell, 5 + len(ALIGNED))
        made = pipeline.prepare(recipe, progress=SectionProgress.to_stderr())
        kept, seen = made[recipe.corpus].counts["kept"], made["clean"].counts["in"]
        write_corpus_report(recipe.folder(recipe.corpus), _report(recipe, "clean"))
        rung.finish(
            f"crawl: {kept:,} of {seen:,} pages kept, {made['tokens'].counts['tokens']:,} tokens to train on"
        )
        folder = _train_and_export(recipe)
        tokens = recipe.training()[1].tokens
        parameters = config.parameters(config.of_folder(folder))
        rung.finish(f"pretrain: {parameters:,} parameters, {tokens:,} tokens: {folder}")
        aligned = [_beside(path, name, recipe) for name in ALIGNED]
        for name, other in zip(ALIGNED, aligned, strict=True):
            read = pipeline.prepare(other, progress=SectionProgress.to_stderr())[other.corpus].counts["kept"]
            folder = _train_and_export(other)
            rung.finish(f"{name}: {read:,} {'pairs' if name == 'dpo' else 'conversations'}: {folder}")
        planned = plan.plan_sweep(recipe)
        chosen = outcome.write(planned, run_sweep(planned, lambda line: None))
        rung.finish(f"sweep: {planned.sweep.trials} mixtures; {outcome.words(chosen.shares)} ({chosen.by})")
        results = evaluate(_of(recipe, folder), terminal.EvaluationProgress())
        rung.finish("evaluation:")
        for line in terminal.format_scores(results):
            tell(f"    {line}")
        served = aligned[-1].model_copy(update={"serve": recipe.serve.model_copy(update={"model": folder})})
        with application.serving(served) as url:
            rung.finish(f"served: {url}")
            tell(f"\n问：{QUESTION}\n答：{_ask_question(url)}\n")
            tell(
                f"{time.monotonic() - began:.0f} s from the crawl to this answer. "
                f"{_honestly(parameters, tokens)}"
            )
            for section in ("clean", "train", "sweep", "evaluate"):
                tell(f"    {_report(recipe, section)}")
            if stay:
                tell(f"\nopen {url} (Ctrl-C ends it)")
                application.wait_and_drain(served, tell)


def _beside(path: str, name: str, recipe: Recipe) -> Recipe:
    """The recipe of an aligned model, with the root and the width of the first one."""
    file = Path(path)
    result = load_recipe(str(file.with_name(f"{file.stem}_{name}{file.suffix}")))
    return result.model_copy(update={"root": recipe.root, "resources": recipe.resources})


def _train_and_export(recipe: Recipe) -> str:
    """The export of a recipe's model, after what is left of its training."""
    with Following(recipe.folder("train"), recipe.training()[1].tokens) as progress:
        run_training(recipe, progress.print_above)
    write_training_report(recipe, _report(recipe, "train"))
    return export.export_checkpoint(recipe)


def _of(recipe: Recipe, folder: str) -> Recipe:
    """The recipe with the model that is to be evaluated."""
    if recipe.evaluate is None:
        return recipe
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"model": folder})})


def _report(recipe: Recipe, section: str) -> str:
    return storage.join(recipe.folder(section), "report.html")


def _honestly(parameters: int, tokens: int) -> str:
    """What so small a model can do."""
    return (
        f"A model of {parameters / 1e6:.1f} million parameters that has read {tokens:,} tokens has learnt "
        f"characters, "
        "some words and the manner of an answer, and nothing of the world; larger sizes and more text take "
        "the same "
        "commands."
    )


class _Rung:
    """Counts rungs and their seconds."""

    def __init__(self, tell: Tell, count: int) -> None:
        self._tell, self._count, self._number, self._since = tell, count, 0, time.monotonic()

    def finish(self, what: str) -> None:
        """One more is climbed."""
        self._number += 1
        now = time.monotonic()
        self._tell(f"[{self._number}/{self._count}] {what} ({now - self._since:.0f} s)")
        self._since = now


def _ask_question(url: str) -> str:
    """What the served model answers to `QUESTION`."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as answer:
        model = json.load(answer)["data"][0]["id"]
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        result: dict[str, Any] = json.load(answer)
    return result["choices"][0]["message"]["content"]

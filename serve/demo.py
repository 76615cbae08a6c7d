"""The whole ladder on one machine: crawl -> clean shards -> tokenizer -> token shards -> model -> served model.

Every rung is what its own command does, with the same recipe, so that a second demo finds all of it done. Ray is
started once for all rungs. At the end the model is asked one question over HTTP, as any client would.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus import report as corpus_report
from ctllm_ray.corpus.progress import Progress
from ctllm_ray.model import config
from ctllm_ray.ray_session import session
from ctllm_ray.train import export, launch
from ctllm_ray.train import report as training_report
from ctllm_ray.train.progress import Following
from serve import build

PROMPT, TOKENS = "春天来了，", 48
RUNGS = 4


def run(recipe: Recipe, tell: Callable[[str], None], stay: bool) -> None:
    """Climbs the ladder, asks the served model one question, and with `stay` serves on until Ctrl-C.

    `tell` is given lines for people. Raises `CtllmError` as the rungs do.
    """
    _, train = recipe.training()
    began = time.monotonic()
    with session(os.cpu_count() or 1, recipe.resources.object_store_mb):
        rung = _Rung(tell)
        made = pipeline.prepare(recipe, progress=Progress.to_stderr())
        kept, seen = made["clean"].counts["kept"], made["clean"].counts["in"]
        corpus_report.write(recipe.folder("clean"), storage.join(recipe.folder("clean"), "report.html"))
        rung.done(f"crawl: {kept:,} of {seen:,} pages kept, {made['tokens'].counts['tokens']:,} tokens to train on")
        with Following(recipe.folder("train"), train.tokens) as progress:
            state = launch.run(recipe, progress.tell)
        training_report.write(recipe, storage.join(recipe.folder("train"), "report.html"))
        rung.done(f"training: {state.step} steps over {state.tokens:,} tokens")
        folder = export.export(recipe)
        parameters = config.parameters(config.of_folder(folder))
        rung.done(f"model: {parameters:,} parameters in {folder}")
        with build.serving(recipe) as url:
            rung.done(f"served: {url}")
            tell(f"\n{PROMPT}{_asked(url)}\n")
            tell(
                f"{time.monotonic() - began:.0f} s from the crawl to this answer. {_honestly(parameters, state.tokens)}"
            )
            if stay:
                tell(f"\nopen {url} (Ctrl-C ends it)")
                build.wait()


def _honestly(parameters: int, tokens: int) -> str:
    """What so small a model can do."""
    return (
        f"A model of {parameters / 1e6:.1f} million parameters that has read {tokens:,} tokens has learnt characters "
        "and some words, and nothing of the world; larger sizes and more text take the same commands."
    )


class _Rung:
    """Counts rungs and their seconds."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._number, self._since = tell, 0, time.monotonic()

    def done(self, what: str) -> None:
        """One more is climbed."""
        self._number += 1
        now = time.monotonic()
        self._tell(f"[{self._number}/{RUNGS}] {what} ({now - self._since:.0f} s)")
        self._since = now


def _asked(url: str) -> str:
    """What the served model writes after `PROMPT`."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as answer:
        model = json.load(answer)["data"][0]["id"]
    asked = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0.7, "top_p": 0.9, "seed": 1}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)
    return found["choices"][0]["text"]

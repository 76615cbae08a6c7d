"""Sections in order, each resumable: what `ctllm prepare` and `ctllm tokenizer` run.

Clean shards, then the tokenizer where the recipe names one, then token shards where it asks for them. Each section
reads the manifest of the one before and writes its own; a finished one is only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ctllm_ray.base.recipe import Recipe, from_plain
from ctllm_ray.corpus import resumable, tokens
from ctllm_ray.corpus import tokenizer as tokenizers
from ctllm_ray.corpus.progress import Progress
from ctllm_ray.corpus.resumable import Runner
from ctllm_ray.corpus.section import Done
from ctllm_ray.corpus.splits import Split
from ctllm_ray.shards.manifest import Manifest

CLEAN: Final = "clean"
TOKENIZER: Final = "tokenizer"
TOKENS: Final = "tokens"


def on_ray(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterable[Done]:
    """The runner of production: what each split says of itself, in no order."""
    from ctllm_ray.corpus import launch  # Ray takes seconds to import, and a finished section needs none

    return launch.run(recipe, folder, splits)


def prepare(recipe: Recipe, run: Runner = on_ray, progress: Progress | None = None) -> dict[str, Manifest]:
    """The manifests by name of all sections that the recipe has, after doing what is left. Raises `CtllmError`."""
    tokens.check(recipe)
    finished = {CLEAN: clean(recipe, run, progress)}
    if recipe.tokenizer:
        finished[TOKENIZER] = tokenizer(recipe, run, progress)
    if recipe.tokens:
        finished[TOKENS] = resumable.complete(TOKENS, recipe, run, progress or Progress.silent())
    return finished


def clean(recipe: Recipe, run: Runner = on_ray, progress: Progress | None = None) -> Manifest:
    """The manifest of the clean section, after doing what is left of it. Raises `CtllmError`."""
    return resumable.complete(CLEAN, recipe, run, progress or Progress.silent())


def tokenizer(recipe: Recipe, run: Runner = on_ray, progress: Progress | None = None) -> Manifest:
    """The manifest of the tokenizer section, after the clean section that it is made from. Raises `CtllmError`."""
    progress = progress or Progress.silent()
    clean(recipe, run, progress)
    return tokenizers.prepare(recipe, lambda line: progress.note(f"{TOKENIZER}: {line}"))


def recipe_of(finished: Manifest) -> Recipe:
    """The recipe that a finished section was made with, as the manifest holds it."""
    return from_plain(finished.recipe | {"data": finished.recipe["data"] | {"max_error_share": 1.0}}, "manifest")

"""Runs the sections in order, each resumable, for `ctllm prepare` and `ctllm tokenizer`.

Clean shards, then the passes over all of them, then the tokenizer where the recipe names one, then token
shards where it asks for them. Each section reads the manifest of the one before and writes its own; a
finished one is only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from ctllm_ray.base.recipe import CLEAN, Recipe, parse_recipe
from ctllm_ray.corpus import tokenizer, tokens
from ctllm_ray.corpus.engine import phase, section_run
from ctllm_ray.corpus.engine.progress import SectionProgress
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.section_run import Runner
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import input_forms
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest

__all__ = [
    "CLEAN",
    "TOKENIZER",
    "TOKENS",
    "clean",
    "prepare",
    "prepare_corpus",
    "prepare_tokenizer",
    "recipe_of",
]

TOKENIZER: Final = "tokenizer"
TOKENS: Final = "tokens"


def prepare(
    recipe: Recipe, run: Runner | None = None, progress: SectionProgress | None = None
) -> dict[str, Manifest]:
    """Finishes all sections of the recipe; returns their manifests by name. Raises `CtllmError`."""
    tokens.check(recipe)
    tokenizer.check(recipe)
    with _runner(run) as run:
        finished = prepare_corpus(recipe, run, progress)
        if recipe.tokenizer:
            finished[TOKENIZER] = _tokenizer(recipe, progress)
        if recipe.tokens:
            finished[TOKENS] = section_run.complete(TOKENS, recipe, run, progress or SectionProgress.silent())
    return finished


def prepare_corpus(
    recipe: Recipe, run: Runner | None = None, progress: SectionProgress | None = None
) -> dict[str, Manifest]:
    """Finishes the clean section and the passes; returns their manifests by name. Raises `CtllmError`."""
    check(recipe)
    with _runner(run) as run:
        finished = {CLEAN: clean(recipe, run, progress)}
        for part in recipe.passes:
            finished[part.use] = _run_pass(part.use, recipe, run, progress or SectionProgress.silent())
    return finished


def clean(recipe: Recipe, run: Runner | None = None, progress: SectionProgress | None = None) -> Manifest:
    """Finishes the clean section; returns its manifest. Raises `CtllmError`."""
    with _runner(run) as run:
        return section_run.complete(CLEAN, recipe, run, progress or SectionProgress.silent())


@contextmanager
def _runner(run: Runner | None) -> Iterator[Runner]:
    """The given runner, else Ray: one session for many sections, started by the first that has work."""
    if run:
        yield run
        return
    with ExitStack() as until_all_are_done:

        def on_ray(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterable[Done]:
            from ctllm_ray.corpus.engine import (
                launch,
            )  # importing Ray takes seconds, and a finished section does not need it

            until_all_are_done.enter_context(launch.ray_for(recipe))
            return launch.run_splits(recipe, folder, splits)

        yield on_ray


def _run_pass(use: str, recipe: Recipe, run: Runner, progress: SectionProgress) -> Manifest:
    """Finishes the phases of a pass; returns its manifest."""
    folder, made = recipe.folder(use), phase.load_pass(use, recipe)
    if not manifest.is_finished(folder):
        for name in made.order(recipe):
            section_run.complete(name, recipe, run, progress)
    finished = section_run.complete(use, recipe, run, progress)
    phase.sweep(folder, made.lasting)
    return finished


def prepare_tokenizer(
    recipe: Recipe, run: Runner | None = None, progress: SectionProgress | None = None
) -> Manifest:
    """Finishes the corpus, then the tokenizer section; returns its manifest. Raises `CtllmError`."""
    tokenizer.check(recipe)
    prepare_corpus(recipe, run, progress)
    return _tokenizer(recipe, progress)


def _tokenizer(recipe: Recipe, progress: SectionProgress | None) -> Manifest:
    return tokenizer.prepare(
        recipe, lambda line: (progress or SectionProgress.silent()).note(f"{TOKENIZER}: {line}")
    )


def check(recipe: Recipe) -> None:
    """Raises `RecipeError` if a stage or pass cannot handle the inputs, or needs
    columns that do not exist yet."""
    input_forms.check(recipe)
    for part in recipe.passes:
        phase.load_pass(part.use, recipe).check(recipe)


def recipe_of(finished: Manifest) -> Recipe:
    """The recipe of a finished section, from its manifest."""
    bounds = {"max_error_share": 1.0, "max_unfinished_file_share": 1.0}
    return parse_recipe(finished.recipe | {"data": finished.recipe["data"] | bounds}, "manifest")

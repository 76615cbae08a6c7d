"""Verbs of the corpus: shards, tokenizer, and why a page was kept or dropped."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


def prepare(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Clean shards, then what the recipe has of passes, tokenizer and token shards. After a crash: again."""
    from ctllm_ray.corpus import pipeline, terminal
    from ctllm_ray.corpus.engine.progress import SectionProgress

    loaded = load(recipe, overrides)
    for section, finished in pipeline.prepare(loaded, progress=SectionProgress.to_stderr()).items():
        terminal.print_section(section, finished, loaded.folder(section))


def tokenizer(recipe: RecipePath, overrides: Overrides = None) -> None:
    """The tokenizer alone, and its report: characters per token by source, script and kind of character."""
    from ctllm_ray.corpus import pipeline, terminal
    from ctllm_ray.corpus.engine.progress import SectionProgress

    loaded = load(recipe, overrides)
    finished = pipeline.prepare_tokenizer(loaded, progress=SectionProgress.to_stderr())
    terminal.print_section(pipeline.TOKENIZER, finished, loaded.folder(pipeline.TOKENIZER))


def why(
    recipe: RecipePath,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[KEY=VALUE]... ID_OR_URL",
            help="Overrides, then the page: an id such as crawl/0.jsonl#1234, or its url",
        ),
    ],
) -> None:
    """Every measure of a page, each rule's bound, which one dropped it, its copies, and the text."""
    from ctllm_ray.corpus import pipeline, terminal
    from ctllm_ray.corpus.explain import why
    from ctllm_ray.shards import manifest

    if re.match(r"[\w.]+=", arguments[-1]):
        raise typer.BadParameter(f"{arguments[-1]!r} is an override; the id or url of the page comes last")
    loaded = load(recipe, arguments[:-1])
    folder = loaded.folder(loaded.corpus)
    finished = manifest.read_manifest(folder)
    terminal.print_pages(why.explain_page(folder, finished, pipeline.recipe_of(finished), arguments[-1]))


def replay(
    recipe: RecipePath,
    overrides: Overrides = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="RULE.BOUND=NUMBER",
            help="Another bound, for example document.char_count.max=20000; =none takes it away; may be given again",
        ),
    ] = None,
) -> None:
    """What other bounds would keep and drop, from stored scores, in seconds."""
    from ctllm_ray.corpus import pipeline, terminal
    from ctllm_ray.corpus.explain.replay import replay_bounds
    from ctllm_ray.shards import manifest

    loaded = load(recipe, overrides)
    folder = loaded.folder(loaded.corpus)
    finished = manifest.read_manifest(folder)
    terminal.print_replay(replay_bounds(folder, finished, pipeline.recipe_of(finished), sets or []))

"""Verbs of the corpus: `prepare`, `tokenizer`, `why` and `replay`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


def prepare(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Clean the inputs; run the passes, the tokenizer and the token shards of the recipe. Resumes."""
    from ctllm_ray import api
    from ctllm_ray.corpus import terminal

    loaded = load(recipe, overrides)
    for section, finished in api.prepare_data(loaded).items():
        terminal.print_section(section, finished, loaded.folder(section))


def tokenizer(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train the tokenizer only, with a report: characters per token by source, script and character class."""
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
            metavar="[KEY=VALUE]... ID_OR_URL_OR_FILE",
            help="Overrides, then the page: its id, for example crawl/0.jsonl#1234, or its URL; or an input file",
        ),
    ],
) -> None:
    """Explain one page: measures, each rule's threshold, the rule that dropped it, duplicates, text. Of an input file:
    what was read, what was lost, and why."""
    from ctllm_ray import api
    from ctllm_ray.corpus import terminal

    if re.match(r"[\w.]+=", arguments[-1]):
        raise typer.BadParameter(f"{arguments[-1]!r} is an override; put the page or the file last")
    loaded, key = load(recipe, arguments[:-1]), arguments[-1]
    if files := api.explain_input_file(loaded, key):
        terminal.print_input_files(files)
    else:
        terminal.print_pages(api.explain_page(loaded, key))


def replay(
    recipe: RecipePath,
    overrides: Overrides = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="RULE.BOUND=NUMBER",
            help="Another threshold, for example document.char_count.max=20000; =none removes it; repeatable",
        ),
    ] = None,
) -> None:
    """Show what other thresholds would keep and drop, from stored scores, in seconds."""
    from ctllm_ray import api
    from ctllm_ray.corpus import terminal

    terminal.print_replay(api.replay_thresholds(load(recipe, overrides), sets or []))

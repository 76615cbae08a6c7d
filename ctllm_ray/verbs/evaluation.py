"""Verbs of evaluation: `evaluate`, `compare` and `items`."""

from __future__ import annotations

from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


def evaluate(
    recipe: RecipePath,
    overrides: Overrides = None,
    url: Annotated[
        str,
        typer.Option(
            help="URL of a served model, for example http://127.0.0.1:8000/v1; default: load the "
            "model in this process"
        ),
    ] = "",
    key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the API key of the served model")
    ] = "",
) -> None:
    """Score the newest export (or evaluate.model=PATH) on the recipe's tasks, with intervals. Resumes."""
    from ctllm_ray import api
    from ctllm_ray.evaluate import terminal

    loaded = load(recipe, overrides)
    for line in terminal.format_scores(api.evaluate_model(loaded, url=url, key_env=key_env)):
        typer.echo(line)
    typer.echo(f"{loaded.folder('evaluate')}/report.html")


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder of the first evaluation")],
    second: Annotated[
        str, typer.Argument(metavar="B", help="Folder of the second evaluation, over the same items")
    ],
    resamples: Annotated[
        int, typer.Option(help="Number of resamples of the bootstrap and the permutation test")
    ] = 10_000,
) -> None:
    """Compare B with A, item by item: differences with intervals and paired tests."""
    from ctllm_ray.evaluate import terminal
    from ctllm_ray.evaluate.scoring import compare

    for line in terminal.format_comparison(compare.compare(first, second, resamples)):
        typer.echo(line)


def items(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK...", help="Names of lm-eval tasks or groups, or item files")
    ],
    to: Annotated[str, typer.Option(help="File to write, for example eval/mmlu.jsonl")],
) -> None:
    """Write the items of lm-eval tasks as JSON lines, for the pass `decontaminate`."""
    from ctllm_ray.evaluate.formats import native_items

    for name, count in native_items.write_native_items(tasks, to).items():
        typer.echo(f"{name}  {count:,} items")
    typer.echo(to)

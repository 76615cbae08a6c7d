"""Verbs of evaluation: a model's scores, and how two models' scores differ."""

from __future__ import annotations

from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


def evaluate(
    recipe: RecipePath,
    overrides: Overrides = None,
    url: Annotated[
        str, typer.Option(help="Of a served model, such as http://127.0.0.1:8000/v1; else in process")
    ] = "",
    key_env: Annotated[str, typer.Option(help="The environment variable that holds its key")] = "",
) -> None:
    """Scores the newest export (or evaluate.model=PATH) on the recipe's tasks, with intervals. After a crash:
    again."""
    from ctllm_ray.evaluate import run, terminal

    loaded = load(recipe, overrides)
    for line in terminal.format_scores(
        run.evaluate(loaded, terminal.EvaluationProgress(), url=url, key_env=key_env)
    ):
        typer.echo(line)
    typer.echo(f"{loaded.folder('evaluate')}/report.html")


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="The folder of an evaluation")],
    second: Annotated[str, typer.Argument(metavar="B", help="And of another, of the same items")],
    resamples: Annotated[int, typer.Option(help="Of the bootstrap and the permutation test")] = 10_000,
) -> None:
    """B against A, item by item: differences with intervals and paired tests."""
    from ctllm_ray.evaluate import terminal
    from ctllm_ray.evaluate.scoring import compare

    for line in terminal.format_comparison(compare.compare(first, second, resamples)):
        typer.echo(line)


def items(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK...", help="lm-eval's names of tasks or groups, or files")
    ],
    to: Annotated[str, typer.Option(help="The file to write, such as eval/mmlu.jsonl")],
) -> None:
    """Writes the items of lm-eval's tasks as JSON lines, for the pass `decontaminate`."""
    from ctllm_ray.evaluate.formats import native_items

    for name, count in native_items.write(tasks, to).items():
        typer.echo(f"{name}  {count:,} items")
    typer.echo(to)

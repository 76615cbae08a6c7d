"""Pages about what was done."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


class Section(StrEnum):
    """What a report is about."""

    clean = "clean"
    train = "train"


def report(
    recipe: RecipePath,
    overrides: Overrides = None,
    of: Annotated[Section, typer.Option(help="The documents, or the training run")] = Section.clean,
    to: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Where the page goes; by default report.html in the section's folder"
        ),
    ] = "",
) -> None:
    """One self-contained HTML page: funnel, histograms and dropped pages, or the curves of a training run."""
    loaded = load(recipe, overrides)
    target = to or f"{loaded.folder(of.value)}/report.html"
    if of is Section.train:
        from ctllm_ray.train.report import render as training

        training.write(loaded, target)
    else:
        from ctllm_ray.corpus.report import render as corpus

        corpus.write(loaded.folder(loaded.corpus), target)
    typer.echo(target)

"""The verb `report`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


class ReportSection(StrEnum):
    """The section that a report describes."""

    clean = "clean"
    train = "train"


def report(
    recipe: RecipePath,
    overrides: Overrides = None,
    of: Annotated[
        ReportSection, typer.Option(help="Which report: the cleaned documents, or the training run")
    ] = ReportSection.clean,
    to: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="HTML file to write; default: report.html in the folder of the section"
        ),
    ] = "",
) -> None:
    """Write one self-contained HTML page about the cleaned documents, or about the training run."""
    loaded = load(recipe, overrides)
    target = to or f"{loaded.folder(of.value)}/report.html"
    if of is ReportSection.train:
        from ctllm_ray.train.report.render import write_training_report

        write_training_report(loaded, target)
    else:
        from ctllm_ray.corpus.report.render import write_corpus_report

        write_corpus_report(loaded.folder(loaded.corpus), target)
    typer.echo(target)

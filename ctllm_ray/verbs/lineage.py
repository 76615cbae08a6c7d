"""The verb `lineage`."""

from __future__ import annotations

from typing import Annotated

import typer


def lineage(
    model: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_URL",
            help="An export, checkpoint, run or section; or the URL of a server, for example "
            "http://127.0.0.1:8000",
        ),
    ],
) -> None:
    """Show where a model comes from, down to the source files, and what is missing or has changed."""
    from ctllm_ray.lineage import format_lineage, trace_lineage

    for line in format_lineage(trace_lineage(model)):
        typer.echo(line)

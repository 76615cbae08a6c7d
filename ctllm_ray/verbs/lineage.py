"""The verb that tells where a model comes from."""

from __future__ import annotations

from typing import Annotated

import typer


def lineage(
    model: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_URL",
            help="An export, checkpoint, run or section, or a server: http://127.0.0.1:8000",
        ),
    ],
) -> None:
    """Where a model comes from: runs, parents, token shards, tokenizer, clean shards, source files; what is
    missing."""
    from ctllm_ray.lineage import format_lineage, trace_lineage

    for line in format_lineage(trace_lineage(model)):
        typer.echo(line)

"""Verbs that run on a cluster: `submit`."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import RecipePath, load


def submit(
    verb: Annotated[str, typer.Argument(metavar="VERB", help="The verb to run, for example train")],
    recipe: RecipePath,
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS",
            help="URL of the cluster's Ray dashboard, for example http://HEAD:8265",
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]... [-- OPTION]...",
            help="Overrides of recipe keys; after --, options of the verb",
        ),
    ] = None,
    shared_root: Annotated[
        bool, typer.Option("--shared-root", help="Set this if all nodes mount the folder `root`")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files that would be sent, and send nothing")
    ] = False,
) -> None:
    """Run a verb as a job on a cluster and stream its log. Ctrl-C detaches; the job keeps running."""
    from ctllm_ray import submission

    if verb not in submission.VERBS:
        raise typer.BadParameter(f"no job is called {verb!r}; choose from {', '.join(submission.VERBS)}")
    options = arguments or []
    loaded = load(recipe, [argument for argument in options if re.match(r"[\w.]+=", argument)])
    tell = partial(typer.echo, nl=False)
    if dry_run:
        submission.list_files(recipe, tell)
        return
    raise typer.Exit(submission.submit(verb, recipe, options, loaded, address, shared_root, tell))

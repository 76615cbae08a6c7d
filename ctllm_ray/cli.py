"""`ctllm`: one verb per job, a recipe first, then `key=value` overrides.

Errors that a user can cause end in one message (what, where, remedy) and an exit code of their own; so do Ctrl-C and
SIGTERM, after which the same command goes on. Anything else is a fault of this program and keeps its traceback.
"""

from __future__ import annotations

import re
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from ctllm_ray.base.errors import CtllmError

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes as a shell gives them

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Chinese-centric language models on Ray: from raw crawl to served model.",
    epilog="Exit codes: 2 recipe or command line, 3 input, 4 too many unreadable records, 5 storage, "
    "6 version conflict, 7 not found, 8 worker lost, 9 no cluster, 130 interrupted, 143 terminated.",
)

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, for example jobs/recipes/tiny.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, for example root=out")]


@app.command()
def prepare(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Clean shards out of raw data, then the funnel. Run again after a crash: it goes on."""
    from ctllm_ray.corpus import pipeline, screen
    from ctllm_ray.corpus.progress import Progress

    loaded = _load(recipe, overrides)
    finished = pipeline.prepare(loaded, progress=Progress.to_stderr())[pipeline.CLEAN]
    screen.funnel(finished, loaded.folder(pipeline.CLEAN))


@app.command()
def report(
    recipe: RecipePath,
    overrides: Overrides = None,
    to: Annotated[
        str, typer.Option(metavar="FILE", help="Where the page goes; by default report.html in the section's folder")
    ] = "",
) -> None:
    """One self-contained HTML page about a finished section: funnel, histograms, dropped examples."""
    from ctllm_ray.corpus import pipeline
    from ctllm_ray.corpus import report as page

    folder = _load(recipe, overrides).folder(pipeline.CLEAN)
    target = to or f"{folder}/report.html"
    page.write(folder, target)
    typer.echo(target)


@app.command()
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
    """Every measure of a page, each rule's bound, which one dropped it, and the text."""
    from ctllm_ray.corpus import ledger, pipeline, screen
    from ctllm_ray.shards import manifest

    if re.match(r"[\w.]+=", arguments[-1]):
        raise typer.BadParameter(f"{arguments[-1]!r} is an override; the id or url of the page comes last")
    loaded = _load(recipe, arguments[:-1])
    folder = loaded.folder(pipeline.CLEAN)
    finished = manifest.read(folder)
    screen.pages(ledger.why(folder, finished, pipeline.recipe_of(finished), arguments[-1]))


@app.command()
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
    from ctllm_ray.corpus import pipeline, screen
    from ctllm_ray.corpus import replay as again
    from ctllm_ray.shards import manifest

    folder = _load(recipe, overrides).folder(pipeline.CLEAN)
    finished = manifest.read(folder)
    screen.replayed(again.replay(folder, finished, pipeline.recipe_of(finished), sets or []))


def _load(path: str, overrides: list[str] | None) -> Any:
    from ctllm_ray.base import recipe  # imported late, as in every command: `ctllm --help` answers at once

    return recipe.load(path, overrides or [])


def run(arguments: list[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    try:
        app(arguments, prog_name="ctllm")
        code = 0
    except CtllmError as error:
        sys.stderr.write(f"ctllm: {error}\n")
        code = error.exit_code
    except SystemExit as stop:
        code = int(stop.code or 0)
        code = TERMINATED if code == signal.SIGTERM else code  # what Ray makes of the signal while it starts
    if code in (INTERRUPTED, TERMINATED):
        sys.stderr.write("\nctllm: stopped before the end\n  remedy: run the same command again: it goes on\n")
    return code


def main(arguments: list[str] | None = None) -> None:
    """The console script: ends the process with the exit code."""
    sys.path.insert(0, str(Path.cwd()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Chinese must not end a command
    sys.exit(run(arguments))

"""`ctllm`: one verb per job, a recipe first, then `key=value` overrides.

Errors that a user can cause end in one message (what, where, remedy) and an exit code of their own; anything else is a
fault of this program and keeps its traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ctllm_ray.base.errors import CtllmError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Chinese-centric language models on Ray: from raw crawl to served model.",
    epilog="Exit codes: 2 recipe, 3 input, 4 too many unreadable records, 5 storage, 6 version conflict, 7 not found, 8 worker lost.",
)

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, for example jobs/recipes/tiny.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, for example root=out")]


@app.command()
def prepare(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Clean shards out of raw data. Run again after a crash: it goes on."""
    from ctllm_ray.corpus import pipeline, screen
    from ctllm_ray.corpus.progress import Progress

    loaded = _load(recipe, overrides)
    finished = pipeline.prepare(loaded, progress=Progress.to_stderr())
    screen.funnel(finished, loaded.folder(pipeline.CLEAN))


@app.command()
def report(
    recipe: RecipePath, overrides: Overrides = None, to: Annotated[str, typer.Option(help="Where to")] = ""
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
        list[str], typer.Argument(metavar="[KEY=VALUE]... ID_OR_URL", help="Overrides, then the page")
    ],
) -> None:
    """Every measure of a page, each rule's bound, which one dropped it, and the text."""
    from ctllm_ray.corpus import ledger, pipeline, screen
    from ctllm_ray.shards import manifest

    loaded = _load(recipe, arguments[:-1])
    folder = loaded.folder(pipeline.CLEAN)
    finished = manifest.read(folder)
    screen.pages(ledger.why(folder, finished, pipeline.recipe_of(finished), arguments[-1]))


@app.command()
def replay(
    recipe: RecipePath,
    overrides: Overrides = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="RULE.BOUND=NUMBER, or =none")] = None,
) -> None:
    """What other bounds would keep and drop, from stored scores, in seconds."""
    from ctllm_ray.corpus import pipeline, screen
    from ctllm_ray.corpus import replay as again
    from ctllm_ray.shards import manifest

    folder = _load(recipe, overrides).folder(pipeline.CLEAN)
    finished = manifest.read(folder)
    screen.replayed(again.replay(folder, finished, pipeline.recipe_of(finished), sets or []))


def _load(path: str, overrides: list[str] | None):  # type: ignore[no-untyped-def]  # Recipe: imported late, start-up stays fast
    from ctllm_ray.base import recipe

    return recipe.load(path, overrides or [])


def run(arguments: list[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    try:
        app(arguments, standalone_mode=False)
    except CtllmError as error:
        sys.stderr.write(f"ctllm: {error}\n")
        return error.exit_code
    except (typer.Exit, typer.Abort) as stop:
        return getattr(stop, "exit_code", 1)
    except typer.BadParameter as error:
        sys.stderr.write(f"ctllm: {error.format_message()}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("ctllm: interrupted; run the same command again to go on\n")
        return 130
    return 0


def main() -> None:
    """The console script."""
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(run())

"""`ctllm`: one verb per job, a recipe first, then `key=value` overrides.

Errors that a user can cause end in one message (what, where, remedy) and an exit code of their own; so do Ctrl-C and
SIGTERM, after which the same command goes on. Anything else is a fault of this program and keeps its traceback.
"""

from __future__ import annotations

import re
import signal
import sys
from enum import StrEnum
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
    "6 version conflict, 7 not found, 8 worker lost, 9 no cluster, 10 the loss diverged, 11 overloaded, "
    "12 the engine failed, 130 interrupted, 143 terminated.",
)

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, for example jobs/recipes/tiny.yaml")]


class Section(StrEnum):
    """What a report is about."""

    clean = "clean"
    train = "train"


Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, for example root=out")]


@app.command()
def prepare(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Clean shards out of raw data, then tokenizer and token shards where the recipe has them. After a crash: again."""
    from ctllm_ray.corpus import pipeline, screen
    from ctllm_ray.corpus.progress import Progress

    loaded = _load(recipe, overrides)
    for section, finished in pipeline.prepare(loaded, progress=Progress.to_stderr()).items():
        screen.section(section, finished, loaded.folder(section))


@app.command()
def tokenizer(recipe: RecipePath, overrides: Overrides = None) -> None:
    """The tokenizer alone, and its report: characters per token by source, script and kind of character."""
    from ctllm_ray.corpus import pipeline, screen
    from ctllm_ray.corpus.progress import Progress

    loaded = _load(recipe, overrides)
    finished = pipeline.tokenizer(loaded, progress=Progress.to_stderr())
    screen.section(pipeline.TOKENIZER, finished, loaded.folder(pipeline.TOKENIZER))


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="The card: h100, h200, a100, ..., or cpu")] = "",
    gpus: Annotated[int, typer.Option(help="How many; by default the workers of the recipe")] = 0,
    mfu: Annotated[float, typer.Option(help="Share of the cards' peak that training is taken to reach")] = 0.4,
) -> None:
    """What a run takes, before it starts: parameters, FLOPs, memory by ZeRO stage, hours, storage, steps, epochs."""
    from ctllm_ray.train import plan as plans
    from ctllm_ray.train import plan_screen

    plan_screen.show(plans.plan(_load(recipe, overrides), gpu=gpu, gpus=gpus, mfu=mfu))


@app.command()
def train(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Trains on the token shards with Ray Train. Run again after a crash: it goes on."""
    from ctllm_ray.train import launch
    from ctllm_ray.train.progress import Following

    loaded = _load(recipe, overrides)
    tokens = loaded.train.tokens if loaded.train else 0
    with Following(loaded.folder("train"), tokens) as progress:
        state = launch.run(loaded, progress.tell)
    typer.echo(f"step {state.step}, {state.tokens:,} tokens: {loaded.folder('train')}")


@app.command()
def export(
    recipe: RecipePath,
    overrides: Overrides = None,
    step: Annotated[int, typer.Option(help="Of which checkpoint; by default the newest")] = 0,
    fp32: Annotated[bool, typer.Option("--fp32", help="Weights in fp32 instead of bf16")] = False,
) -> None:
    """A checkpoint as a Hugging Face folder, with its lineage."""
    from ctllm_ray.train import export as exports

    typer.echo(exports.export(_load(recipe, overrides), step or None, "fp32" if fp32 else "bf16"))


@app.command()
def serve(recipe: RecipePath, overrides: Overrides = None) -> None:
    """The exported model behind an OpenAI-compatible API and a web page, on Ray Serve, until Ctrl-C."""
    from serve import build

    build.run(_load(recipe, overrides), typer.echo)


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as root=out")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Another recipe")] = "jobs/recipes/tiny.yaml",
    once: Annotated[bool, typer.Option("--once", help="End after one answer instead of serving on")] = False,
) -> None:
    """The whole ladder on this machine, in minutes: crawl, shards, tokenizer, training, served model."""
    from serve import demo as ladder

    ladder.run(_load(recipe, overrides), typer.echo, stay=not once)


keys = typer.Typer(no_args_is_help=True, help="Keys to the served model; they live under the recipe's root.")
app.add_typer(keys, name="keys")
KeyName = Annotated[str, typer.Option(help="Of the team or program that has it")]


@keys.command()
def create(
    recipe: RecipePath,
    name: KeyName,
    overrides: Overrides = None,
    requests_per_minute: Annotated[int, typer.Option(help="0: no limit")] = 0,
    tokens_per_day: Annotated[int, typer.Option(help="Prompts and answers, UTC days; 0: no limit")] = 0,
) -> None:
    """Prints a new key, once."""
    from serve import keys as files

    typer.echo(files.create(_keys(recipe, overrides), name, requests_per_minute, tokens_per_day))


@keys.command()
def rotate(
    recipe: RecipePath,
    name: KeyName,
    overrides: Overrides = None,
    grace_s: Annotated[float, typer.Option(help="Seconds that the old key still counts")] = 0,
) -> None:
    """Prints a new key in place of one, once."""
    from serve import keys as files

    typer.echo(files.rotate(_keys(recipe, overrides), name, grace_s))


@keys.command()
def revoke(recipe: RecipePath, name: KeyName, overrides: Overrides = None) -> None:
    """Ends a key: whoever shows it is refused, running servers included."""
    from serve import keys as files

    files.revoke(_keys(recipe, overrides), name)
    typer.echo(f"revoked: {name}")


@keys.command(name="list")
def list_keys(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Names and limits; the keys themselves are stored nowhere."""
    from serve import keys as files

    for key in files.read(_keys(recipe, overrides)):
        limits = f"{key.requests_per_minute or 'any'} requests/minute, {key.tokens_per_day or 'any'} tokens/day"
        typer.echo(f"{key.name}: {'revoked' if key.revoked else limits}")


def _keys(recipe: str, overrides: list[str] | None) -> str:
    from serve import keys as files

    loaded = _load(recipe, overrides)
    return files.file_of(loaded.root, loaded.name)


@app.command()
def batch(
    recipe: RecipePath,
    overrides: Overrides = None,
    step: Annotated[int, typer.Option(help="The batch that this training step was made with, from 1")] = 0,
    number: Annotated[int, typer.Option("--batch", help="Or the number of a batch, from 0")] = -1,
    rank: Annotated[int, typer.Option(help="The rows of this worker, ...")] = 0,
    world: Annotated[int, typer.Option(help="... of so many; by default all rows")] = 1,
) -> None:
    """The documents of a training step, computed again; their ids go to `ctllm why`."""
    from ctllm_ray.train import inspect_batch

    if (step > 0) == (number >= 0):
        raise typer.BadParameter("give --step N (from 1) or --batch N (from 0)")
    loaded = _load(recipe, overrides)
    chosen = number if number >= 0 else inspect_batch.batch_of_step(loaded, step)
    for line in inspect_batch.lines(inspect_batch.inspect(loaded, chosen, rank, world)):
        typer.echo(line)


@app.command()
def report(
    recipe: RecipePath,
    overrides: Overrides = None,
    of: Annotated[Section, typer.Option(help="The clean section, or the training run")] = Section.clean,
    to: Annotated[
        str, typer.Option(metavar="FILE", help="Where the page goes; by default report.html in the section's folder")
    ] = "",
) -> None:
    """One self-contained HTML page: funnel, histograms and dropped pages, or the curves of a training run."""
    loaded = _load(recipe, overrides)
    target = to or f"{loaded.folder(of.value)}/report.html"
    if of is Section.train:
        from ctllm_ray.train import report as training

        training.write(loaded, target)
    else:
        from ctllm_ray.corpus import report as corpus

        corpus.write(loaded.folder(of.value), target)
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

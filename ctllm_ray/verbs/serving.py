"""Verbs of the served model: server, demo, keys."""

from __future__ import annotations

from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


def serve(recipe: RecipePath, overrides: Overrides = None) -> None:
    """The exported model behind an OpenAI-compatible API and a web page, on Ray Serve, until Ctrl-C."""
    from ctllm_ray.serving.ray import application

    application.serve_until_signal(load(recipe, overrides), typer.echo)


def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as root=out")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Another recipe")] = "jobs/recipes/tiny.yaml",
    once: Annotated[bool, typer.Option("--once", help="End after one answer instead of serving on")] = False,
) -> None:
    """The whole ladder on this machine, in minutes: crawl, shards, training, SFT, DPO, sweep, scores, served
    model."""
    from ctllm_ray.serving.demo import run_demo

    run_demo(recipe, load(recipe, overrides), typer.echo, stay=not once)


keys = typer.Typer(no_args_is_help=True, help="Keys to the served model; they live under the recipe's root.")
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
    from ctllm_ray.serving.api.keys import create_key

    typer.echo(create_key(_keys(recipe, overrides), name, requests_per_minute, tokens_per_day))


@keys.command()
def rotate(
    recipe: RecipePath,
    name: KeyName,
    overrides: Overrides = None,
    grace_s: Annotated[float, typer.Option(help="Seconds that the old key still counts")] = 0,
) -> None:
    """Prints a new key in place of one, once."""
    from ctllm_ray.serving.api.keys import rotate_key

    typer.echo(rotate_key(_keys(recipe, overrides), name, grace_s))


@keys.command()
def revoke(recipe: RecipePath, name: KeyName, overrides: Overrides = None) -> None:
    """Ends a key: whoever shows it is refused, running servers included."""
    from ctllm_ray.serving.api.keys import revoke_key

    revoke_key(_keys(recipe, overrides), name)
    typer.echo(f"revoked: {name}")


@keys.command(name="list")
def list_keys(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Names and limits; the keys themselves are stored nowhere."""
    from ctllm_ray.serving.api.keys import read_keys

    for key in read_keys(_keys(recipe, overrides)):
        limits = (
            f"{key.requests_per_minute or 'any'} requests/minute, {key.tokens_per_day or 'any'} tokens/day"
        )
        typer.echo(f"{key.name}: {'revoked' if key.revoked else limits}")


def _keys(recipe: str, overrides: list[str] | None) -> str:
    from ctllm_ray.serving.api.keys import file_of

    loaded = load(recipe, overrides)
    return file_of(loaded.root, loaded.name)

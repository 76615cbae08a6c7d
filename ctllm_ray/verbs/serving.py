"""Verbs of serving: `serve`, `demo` and `keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


def serve(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Serve the exported model: an OpenAI-compatible API and a chat page on Ray Serve, until Ctrl-C."""
    from ctllm_ray.serving.ray import application

    application.serve_until_signal(load(recipe, overrides), typer.echo)


def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides of recipe keys, for example root=out"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Another recipe")] = "jobs/recipes/tiny.yaml",
    once: Annotated[bool, typer.Option("--once", help="Answer one prompt, then stop the server")] = False,
) -> None:
    """Run every step here in minutes: crawl, shards, training, SFT, DPO, sweep, scores, serving."""
    from ctllm_ray.serving.demo import run_demo

    run_demo(recipe, load(recipe, overrides), typer.echo, stay=not once)


keys = typer.Typer(no_args_is_help=True, help="API keys of the served model, stored under the recipe's root.")
KeyName = Annotated[str, typer.Option(help="Name of the team or program that uses the key")]


@keys.command()
def create(
    recipe: RecipePath,
    name: KeyName,
    overrides: Overrides = None,
    requests_per_minute: Annotated[int, typer.Option(help="Limit; 0 means none")] = 0,
    tokens_per_day: Annotated[
        int, typer.Option(help="Limit on prompt and answer tokens per UTC day; 0 means none")
    ] = 0,
) -> None:
    """Create a key and print it. It cannot be printed again."""
    from ctllm_ray.serving.api.keys import create_key

    typer.echo(create_key(_keys(recipe, overrides), name, requests_per_minute, tokens_per_day))


@keys.command()
def rotate(
    recipe: RecipePath,
    name: KeyName,
    overrides: Overrides = None,
    grace_s: Annotated[float, typer.Option(help="Seconds for which the old key stays valid")] = 0,
) -> None:
    """Replace a key and print the new one. It cannot be printed again."""
    from ctllm_ray.serving.api.keys import rotate_key

    typer.echo(rotate_key(_keys(recipe, overrides), name, grace_s))


@keys.command()
def revoke(recipe: RecipePath, name: KeyName, overrides: Overrides = None) -> None:
    """Revoke a key. Running servers refuse it too."""
    from ctllm_ray.serving.api.keys import revoke_key

    revoke_key(_keys(recipe, overrides), name)
    typer.echo(f"revoked: {name}")


@keys.command(name="list")
def list_keys(recipe: RecipePath, overrides: Overrides = None) -> None:
    """List names and limits. The keys themselves are not stored."""
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

"""Arguments that all verbs share: the recipe and its overrides.

A verb is a function in the file of its topic and a line of `VERBS` in cli.py. It imports what it needs inside
the function, so `ctllm --help` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctllm_ray.base.recipe import Recipe

RecipePath = Annotated[
    str, typer.Argument(metavar="RECIPE", help="The recipe: a YAML file, for example jobs/recipes/tiny.yaml")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Overrides of recipe keys, for example root=out"),
]


def load(path: str, overrides: list[str] | None) -> Recipe:
    """Returns the recipe with its overrides. Raises `RecipeError`."""
    from ctllm_ray.base import recipe

    return recipe.load_recipe(path, overrides or [])

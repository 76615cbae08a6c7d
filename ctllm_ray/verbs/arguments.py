"""What every verb takes: a recipe, then overrides of it.

A verb is a function in the file of its topic and a line of `VERBS` in cli.py. What it needs is imported
inside it, so that `ctllm --help` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctllm_ray.base.recipe import Recipe

RecipePath = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, for example jobs/recipes/tiny.yaml")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, for example root=out")
]


def load(path: str, overrides: list[str] | None) -> Recipe:
    """The recipe with its overrides. Raises `RecipeError`."""
    from ctllm_ray.base import recipe

    return recipe.load_recipe(path, overrides or [])

"""Hand-made pages through the stages of a shipped recipe; for the tests of pitfalls and of released bugs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pyarrow as pa

from ctllm_ray.base import recipe
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import clean
from ctllm_ray.shards import schema
from tests.conftest import REPOSITORY


@cache
def shipped(name: str) -> Recipe:
    """A recipe of jobs/recipes."""
    return recipe.load_recipe(str(REPOSITORY / "jobs" / "recipes" / f"{name}.yaml"))


def through(name: str, *pages: str | dict[str, Any]) -> list[dict[str, Any]]:
    """What becomes of pages, texts or rows of the RAW schema, after the stages of a shipped recipe."""
    rows = [
        {"id": f"x#{i}"} | ({"text": page} if isinstance(page, str) else page) for i, page in enumerate(pages)
    ]
    table = schema.working(pa.Table.from_pylist(rows, schema=schema.RAW), "x")
    return clean.run_stages(shipped(name).stages, table).to_pylist()


def rejects(name: str, *pages: str | dict[str, Any]) -> list[str | None]:
    """For each page the rule that rejects it, None for a kept one."""
    return [row["reject"] for row in through(name, *pages)]

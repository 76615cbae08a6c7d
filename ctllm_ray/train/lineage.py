"""Where a model comes from: code, packages, parent. It stands in every checkpoint and, with the recipe, in RUN.json."""

from __future__ import annotations

from typing import Any

from ctllm_ray.base import provenance, storage
from ctllm_ray.base.recipe import Recipe

RUN = "RUN.json"
PACKAGES = ("torch", "transformers", "deepspeed", "liger-kernel", "safetensors")


def of_code() -> dict[str, str]:
    """The commit of the code where it is a checkout, the versions of what computes, and of Python."""
    return dict(provenance.of_code(PACKAGES))


def write_run(recipe: Recipe, lineage: dict[str, str], data: str) -> None:
    """Writes RUN.json: what the run began with. Later starts leave it as it is."""
    facts: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "lineage": lineage, "data": data}
    storage.write_json(storage.join(recipe.folder("train"), RUN), facts)

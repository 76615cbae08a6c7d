"""The lineage of a model: code, packages and parent. Stored in every checkpoint and in RUN.json."""

from __future__ import annotations

from typing import Any

from ctllm_ray.base import provenance, storage
from ctllm_ray.base.exports import LINEAGE
from ctllm_ray.base.recipe import Recipe

RUN = "RUN.json"
PARENT_MODEL = "parent_model"  # folder of the initial model of a run
PARENT_SHA256 = "parent_sha256"
PACKAGES = ("torch", "transformers", "deepspeed", "liger-kernel", "safetensors")


def of_code() -> dict[str, str]:
    """The commit of a git checkout, the versions of the computing packages, and of Python."""
    return dict(provenance.of_code(PACKAGES))


def of_parent(folder: str) -> dict[str, str]:
    """The initial model folder of a run and the SHA-256 of its description; empty without a folder.

    The paper is lineage.json, which has the hashes of the weights; of a foreign model its config.json.
    `model.path` alone would not tell: `root:...` means the newest export, another one tomorrow.
    """
    names = [
        name for name in (LINEAGE, "config.json") if folder and storage.exists(storage.join(folder, name))
    ]
    paper = {PARENT_SHA256: storage.size_and_sha256(storage.join(folder, names[0]))[1]} if names else {}
    return {PARENT_MODEL: storage.absolute(folder)} | paper if folder else {}


def write_run(recipe: Recipe, lineage: dict[str, str], data: str) -> None:
    """Writes RUN.json, the state at the start of the run. Later starts do not change it."""
    facts: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "lineage": lineage, "data": data}
    storage.write_json(storage.join(recipe.folder("train"), RUN), facts)

"""Where a model comes from: code, packages, parent. It stands in every checkpoint and, with the recipe, in RUN.json."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe

RUN = "RUN.json"
PACKAGES = ("ctllm-ray", "torch", "transformers", "deepspeed", "liger-kernel", "ray", "numpy", "pyarrow", "safetensors")


@cache
def of_code() -> dict[str, str]:
    """The commit of the code where it is a checkout, the versions of what computes, and of Python."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        commit = ""
    return _versions() | {"python": platform.python_version(), "commit": commit or "not a checkout"}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_run(recipe: Recipe, lineage: dict[str, str], data: str) -> None:
    """Writes RUN.json: what the run began with. Later starts leave it as it is."""
    facts: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "lineage": lineage, "data": data}
    storage.write_json(storage.join(recipe.folder("train"), RUN), facts)

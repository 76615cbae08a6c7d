"""Exported models in their folder `<export>/<step>/`. An export is finished once its lineage is written.

Training writes them (train/checkpoint/export.py); recipes
that go on from one, and serving, look for the newest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.errors import NotFound

LINEAGE = "lineage.json"


def is_base(lineage: Mapping[str, Any]) -> bool:
    """True for an export whose objective does not teach turns, according to its lineage. An empty
    lineage is a foreign model."""
    objective = lineage.get("recipe", {}).get("train", {}).get("objective", {})
    if objective.get("use") not in resolve.names(resolve.OBJECTIVES):
        return False
    function = resolve.resolve(resolve.OBJECTIVES, objective["use"])
    known = resolve.options(function).model_fields
    return not function(**{key: value for key, value in objective.items() if key in known}).teaches_chat


def read_lineage(folder: str) -> dict[str, Any]:
    """The lineage of an export; empty for a foreign model, which has no lineage.json."""
    path = storage.join(folder, LINEAGE)
    return storage.read_json(path) if storage.exists(path) else {}


def newest(folder: str, remedy: str = "run `ctllm export` of that recipe first") -> str:
    """The finished export with the most steps in a folder. Raises `NotFound` if there is none."""
    finished_steps = [
        path.removesuffix(f"/{LINEAGE}") for path in storage.list_tree(folder) if path.endswith(f"/{LINEAGE}")
    ]
    steps = [int(name) for name in finished_steps if name.isdecimal()]
    if not steps:
        raise NotFound("the folder has no finished export", where=folder, remedy=remedy)
    return storage.join(folder, str(max(steps)))

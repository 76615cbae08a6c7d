"""A task: what lm-eval is to ask, of which items, after which examples.

A function of evaluate/tasks makes tasks out of files in their native form (base/rows.py). Prompts are lm-eval's own
where it has the benchmark (`published` reads them from the installed package), so that a score here means what it means
elsewhere. lm-eval gets the rows themselves, so it never looks for a data set anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import xxhash
import yaml

from ctllm_ray.base.errors import InputError
from ctllm_ray.base.rows import ID, Row

#: Of lm-eval's configuration: where it would find the data, and how it is listed.
_ELSEWHERE = (
    "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "test_split",
    "fewshot_split", "fewshot_config", "tag", "group", "include", "task",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A part of a benchmark (a subject, a data set), which has its own prompts and examples."""

    name: str
    config: Mapping[str, Any]  # lm-eval's, without the data
    items: Sequence[Row]
    shots: Sequence[Row] = ()  # examples before each item, in this order
    measure: str = "acc"  # lm-eval's metric that is the score, with its filter behind a comma
    chance: float | None = None  # share that guessing gets right; None: next to nothing
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by URI


def chosen(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most so many rows (0: all), in their order; those whose ids hash lowest, whatever else is in the file."""
    if not limit or len(rows) <= limit:
        return list(rows)
    kept = {row[ID] for row in sorted(rows, key=_hash)[:limit]}
    return [row for row in rows if row[ID] in kept]


def _hash(row: Row) -> tuple[int, str]:
    return xxhash.xxh3_64_intdigest(row[ID].encode()), row[ID]


def examples(rows: Sequence[Row], shots: int, where: str) -> list[Row]:
    """The first `shots` rows. Raises `InputError` where there are fewer."""
    if len(rows) < shots:
        remedy = f"set shots to {len(rows)} at most, or give more examples"
        raise InputError(f"{shots} examples are wanted, there are {len(rows)}", where=where, remedy=remedy)
    return list(rows[:shots])


def by(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """The rows by what `key` says of each, in the order of their first ones."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def published(name: str) -> dict[str, Any]:
    """lm-eval's own configuration of a task, such as `cmmlu/cmmlu_anatomy`, without where its data would come from.

    Raises `InputError` where lm-eval has no such task.
    """
    folder = resources.files(installed()) / "tasks"
    return {key: value for key, value in _included(folder, f"{name}.yaml").items() if key not in _ELSEWHERE}


def _included(folder: Any, name: str) -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        raise InputError(f"lm-eval has no task {name.removesuffix('.yaml')!r}", remedy="name a part that it has")
    plain = yaml.safe_load(file.read_text("utf-8"))
    above = _included(folder, f"{name.rpartition('/')[0]}/{plain['include']}") if "include" in plain else {}
    return above | plain


def installed() -> str:
    """`lm_eval`, where it is installed. Raises `InputError` with the remedy where it is not."""
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        remedy = "pip install 'ctllm-ray[evaluate]'"
        raise InputError("evaluation needs lm-eval, which is not installed", remedy=remedy)
    return "lm_eval"

"""Writes the items of lm-eval's own tasks to a file, for the pass `decontaminate` and the tasks here.

lm-eval takes a task's data from where its configuration
says, which for most is a hub; nothing else here asks one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.evaluate.task import require_lm_eval

SUFFIX = ".jsonl"


def write_native_items(names: Sequence[str], uri: str) -> dict[str, int]:
    """Writes one JSON line per item with the fields of its task. Returns the number of items by task.

    A task that two names lead to is written once. `names` are lm-eval's: tasks, groups, tags, files of YAML.
    Items are those that it asks: the test split, else the validation split. Raises `InputError` if a name
    is unknown or the data cannot be loaded.
    """
    if not uri.endswith(SUFFIX):
        raise InputError(
            "the output must be a JSON lines file",
            where=uri,
            remedy=f"give a file name that ends in {SUFFIX}",
        )
    results: dict[str, list[str]] = {}
    for task, documents in _documents(names):
        if task not in results:
            results[task] = [
                json.dumps(dict(row), ensure_ascii=False, default=str) + "\n" for row in documents
            ]
    storage.write_bytes(uri, "".join(line for lines in results.values() for line in lines).encode())
    return {task: len(lines) for task, lines in results.items()}


def _documents(names: Sequence[str]) -> Iterator[tuple[str, Sequence[dict[str, Any]]]]:
    require_lm_eval()
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    for name in names:
        try:
            result = manager.load([name])["tasks"]
            yield from ((task.task_name, task.eval_docs) for task in result.values())
        except Exception as error:  # lm-eval, datasets and hub clients raise errors of all kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            remedy = (
                "`lm-eval ls tasks` lists the names; most data come from a hub, which must be "
                "reachable or cached"
            )
            raise InputError(f"lm-eval cannot load this task: {reason}", where=name, remedy=remedy) from error

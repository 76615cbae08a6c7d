"""A task: prompts of lm-eval, the items, and the examples before them.

A function of evaluate/tasks makes tasks out of files in their native form (benchmark_files.py).
Prompts are lm-eval's own where it has the benchmark (`read_published` reads them from the installed
package), so that a score here means what it means elsewhere. lm-eval gets the rows themselves, so it
never looks for a data set anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import orjson
import xxhash
import yaml

from ctllm_ray.base.errors import InputError
from ctllm_ray.benchmark_files import ID, Row
from ctllm_ray.evaluate.scoring.item_results import BAD, NO_LABEL, SHOWN

#: Keys of lm-eval's configuration that locate data or list the task.
_ELSEWHERE = (
    "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "test_split",
    "fewshot_split", "fewshot_config", "tag", "group", "include", "task",
)  # fmt: skip


class NoLabel(InputError):
    """A row without a label."""


@dataclass(frozen=True)
class LeftOut:
    """An item that is counted but not asked."""

    item: str
    status: str
    why: str


@dataclass(frozen=True)
class Note:
    """What a reader of a score should know about its items. `kind` names the texts in report/words.py."""

    kind: str
    count: int
    example: str


@dataclass(frozen=True)
class Task:
    """A part of a benchmark (a subject, a data set) with its own prompts and examples."""

    name: str
    config: Mapping[str, Any]  # lm-eval's, without the data
    items: Sequence[Row]
    shots: Sequence[Row] = ()  # examples before each item, in this order
    measure: str = "acc"  # lm-eval's metric for the score; its filter follows a comma
    chance: float | None = None  # score of random guessing; None: almost zero
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by URI
    left_out: Sequence[LeftOut] = ()
    notes: Sequence[Note] = ()
    # decides whether a generated text is right; None: lm-eval's metric does
    grade: Callable[[Row, str], bool] | None = None


def sort_out(rows: Iterable[Row], build: Callable[[Row], Row]) -> tuple[list[Row], list[LeftOut]]:
    """The rows as converted by `build`, and those that it rejects."""
    built, left_out = [], []
    for row in rows:
        try:
            built.append(build(row))
        except InputError as error:
            left_out.append(LeftOut(row[ID], NO_LABEL if isinstance(error, NoLabel) else BAD, error.what))
    return built, left_out


def finish(tasks: Sequence[Task], where: str) -> list[Task]:
    """The tasks with notes on repeated items, and on items among their own examples.

    Raises `InputError` if there are no items.
    """
    if not any(task.items for task in tasks):
        first = next((each for task in tasks for each in task.left_out), None)
        what = (
            f"no item can be used; the first one: {first.why}" if first else "there are no items to evaluate"
        )
        remedy = "correct the rows" if first else "give a file and a split with items"
        raise InputError(what, where=f"{where}: {first.item}" if first else where, remedy=remedy)
    return [replace(task, notes=[*task.notes, *_copies(task), *_among_examples(task)]) for task in tasks]


def leave_out_shown(task: Task) -> Task:
    """The task without items that are among its examples, which contain their answers."""
    shown = set(map(_content, task.shots))
    left_out_items = [
        LeftOut(item[ID], SHOWN, "the item is one of the examples")
        for item in task.items
        if _content(item) in shown
    ]
    kept = [item for item in task.items if _content(item) not in shown]
    return replace(task, items=kept, left_out=[*task.left_out, *left_out_items])


def _copies(task: Task) -> list[Note]:
    first: dict[bytes, str] = {}
    copies = [
        f"{item[ID]} repeats {original}"
        for item in task.items
        if (original := first.setdefault(_content(item), item[ID])) != item[ID]
    ]
    return [Note("copies", len(copies), copies[0])] if copies else []


def _among_examples(task: Task) -> list[Note]:
    shown = set(map(_content, task.shots))
    held = [item[ID] for item in task.items if _content(item) in shown]
    return [Note("among_examples", len(held), held[0])] if held else []


def _content(row: Row) -> bytes:
    """The content of a row, independent of its address."""
    content = {name: value for name, value in row.items() if name != ID}
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS, default=str)


def choose_rows(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` rows (0: all) in order: those with the lowest id hashes, independent of other rows."""
    if not limit or len(rows) <= limit:
        return list(rows)
    kept = {row[ID] for row in sorted(rows, key=_hash)[:limit]}
    return [row for row in rows if row[ID] in kept]


def _hash(row: Row) -> tuple[int, str]:
    return xxhash.xxh3_64_intdigest(row[ID].encode()), row[ID]


def examples(rows: Sequence[Row], shots: int, where: str) -> list[Row]:
    """The first `shots` rows. Raises `InputError` if there are fewer."""
    if len(rows) < shots:
        remedy = f"set shots to at most {len(rows)}, or give more examples"
        raise InputError(
            f"{shots} examples are needed, but there are {len(rows)}", where=where, remedy=remedy
        )
    return list(rows[:shots])


def by(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """The rows grouped by `key`, in the order of first occurrence."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def read_published(name: str) -> dict[str, Any]:
    """lm-eval's own configuration of a task, such as `cmmlu/cmmlu_anatomy`, without the location of its data.

    Raises `InputError` if lm-eval has no such task.
    """
    folder = resources.files(require_lm_eval()) / "tasks"
    return {
        key: value for key, value in _read_include(folder, f"{name}.yaml").items() if key not in _ELSEWHERE
    }


def is_published(name: str) -> bool:
    """True if lm-eval has the task."""
    return (resources.files(require_lm_eval()) / "tasks" / f"{name}.yaml").is_file()


def _read_include(folder: Any, name: str) -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        raise InputError(
            f"lm-eval has no task {name.removesuffix('.yaml')!r}", remedy="use a part that lm-eval has"
        )
    plain = yaml.safe_load(file.read_text("utf-8"))
    above = (
        _read_include(folder, f"{name.rpartition('/')[0]}/{plain['include']}") if "include" in plain else {}
    )
    return above | plain


def require_lm_eval() -> str:
    """Returns `lm_eval`. Raises `InputError` with the remedy if it is not installed."""
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        remedy = "pip install 'ctllm-ray[evaluate]'"
        raise InputError("evaluation needs lm-eval, which is not installed", remedy=remedy)
    return "lm_eval"

"""Multiple-choice tasks that lm-eval does not have: a text, its possible continuations, and the right one.

The choices are not listed in the text. The score compares how likely each is as the continuation, which needs
no instructions and suits base models of any size. If choices differ in length, the score is `acc_norm`, the
log-probability per character, else `acc`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from ctllm_ray.base.errors import InputError
from ctllm_ray.benchmark_files import ID, Row
from ctllm_ray.evaluate.task import Task

CONFIG = {
    "output_type": "multiple_choice",
    "doc_to_text": "text",
    "doc_to_choice": "choices",
    "doc_to_target": "target",
    "target_delimiter": "",
    "metric_list": [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
    ],
    "metadata": {"version": 1.0},
}


def row(id_: str, text: str, choices: Sequence[str], right: str) -> Row:
    """An item or an example. Raises `InputError` if the right answer is not among the choices."""
    if right not in choices:
        raise InputError(
            f"the answer {right!r} is not among the choices {list(choices)}",
            where=id_,
            remedy="correct the row",
        )
    return {ID: id_, "text": text, "choices": list(choices), "target": list(choices).index(right)}


def task(
    name: str, items: Sequence[Row], shots: Sequence[Row], files: Mapping[str, str], *, measure: str
) -> Task:
    """The task with these items."""
    chance = fmean(1 / len(item["choices"]) for item in items) if items else None
    return Task(name, CONFIG, items, shots, measure, chance, files)

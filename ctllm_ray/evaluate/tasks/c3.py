"""C3: questions about dialogues and texts with two to four answers in words (Sun et al. 2020).

lm-eval does not have it. The prompt is the context, `问题：` and the question, `答案：`; answers differ in length, so
the score is by character.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from ctllm_ray.base.errors import InputError
from ctllm_ray.base.rows import ID, Row, field_of, table
from ctllm_ray.evaluate import choices
from ctllm_ray.evaluate.task import Task, chosen, examples


def c3(
    *,
    path: str,
    split: str = "test",
    shots: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=0)] = 0,
) -> list[Task]:
    """One task: the questions of rows whose `split` ends with the option's word; examples are of `dev`."""
    found = table(path)
    items, dev = (list(_questions(_of_split(found.rows, name))) for name in (split, "dev"))
    if not items:
        raise InputError(f"no rows of the split {split!r}", where=path, remedy="set split to one that is there")
    shown = examples(dev, shots, path)
    left = [item for item in items if item not in shown]
    return [choices.task("c3", chosen(left, limit), shown, found.files, measure="acc_norm")]


def _of_split(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if str(field_of(row, "split", "_split")).endswith(name)]


def _questions(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        context = "\n".join(field_of(row, "context"))
        for number, asked in enumerate(field_of(row, "questions")):
            text = f"{context}\n问题：{asked['question']}\n答案："
            yield choices.row(f"{row[ID]}.{number}", text, asked["choice"], asked["answer"])

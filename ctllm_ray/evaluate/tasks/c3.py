"""C3: questions about dialogues and texts, with two to four answers in words (Sun et al. 2020).

lm-eval does not have it. The prompt is the context, `问题：` and the question, `答案：`; answers differ in length,
so the score is by character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from ctllm_ray.base.errors import InputError
from ctllm_ray.benchmark_files import ID, Row, field_of
from ctllm_ray.evaluate.formats import choices
from ctllm_ray.evaluate.formats.published_files import read_table
from ctllm_ray.evaluate.task import Task, choose_rows, examples, finish, sort_out

NO_SPLIT = "none"  # split of a file whose name has none: its questions are asked


def c3(
    *,
    path: str,
    split: str = "test",
    shots: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=0)] = 0,
) -> list[Task]:
    """One task: questions of rows whose `split` ends with the option's value; examples come from `dev`."""
    table = read_table(path, _of_list)
    rows = _of_split(table.rows, split, NO_SPLIT)
    if not rows:
        there = sorted({str(row.get("split") or row.get("_split")) for row in table.rows})
        remedy = f"set split to an existing one: {', '.join(there)}"
        raise InputError(f"there are no rows of the split {split!r}", where=path, remedy=remedy)
    items, left_out = sort_out(choose_rows(list(_questions(rows)), limit), _build_row)
    dev, _ = sort_out(_questions(_of_split(table.rows, "dev")), _build_row)
    task = choices.task("c3", items, examples(dev, shots, path), table.files, measure="acc_norm")
    return finish([replace(task, left_out=left_out)], path)


def _of_list(values: Sequence[Any], name: str) -> Row:
    """A text in the published form: sentences, questions, id. The file's name gives the split."""
    context, questions, id_ = values
    split = re.search(r"train|dev|test", name)
    return {"id": id_, "context": context, "questions": questions, "split": split[0] if split else NO_SPLIT}


def _of_split(rows: Sequence[Row], *names: str) -> list[Row]:
    """The rows whose split ends with one of the names."""
    return [row for row in rows if str(field_of(row, "split", "_split")).endswith(names)]


def _questions(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        for number, question in enumerate(field_of(row, "questions")):
            yield {**question, "context": field_of(row, "context"), ID: f"{row[ID]}.{number}"}


def _build_row(row: Row) -> Row:
    text = "\n".join(row["context"]) + f"\n问题：{field_of(row, 'question')}\n答案："
    return choices.row(row[ID], text, field_of(row, "choice"), field_of(row, "answer"))

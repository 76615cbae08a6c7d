"""Math word problems with written answers: GSM8K and MGSM with lm-eval's prompts, graded by number.

lm-eval compares strings: its `exact_match` ignores punctuation, so 4.60 equals 460, but 460.0 and 四百六十 do
not. Here numbers are compared (numbers.py); the value of lm-eval's metric is reported next to each score.
"""

from __future__ import annotations

from collections.abc import Callable

from ctllm_ray.base.errors import InputError
from ctllm_ray.benchmark_files import ID, BenchmarkTable, Row, table
from ctllm_ray.evaluate.formats.numbers import is_same_number
from ctllm_ray.evaluate.task import (
    Task,
    choose_rows,
    examples,
    finish,
    leave_out_shown,
    read_published,
    sort_out,
)

#: lm-eval's filter that takes the last number in any form.
MEASURE = "exact_match,flexible-extract"


def read_math_problems(
    name: str,
    path: str,
    shown: str,
    *,
    config: str,
    shots: int,
    limit: int,
    answer_tokens: int,
    row: Callable[[Row], Row],
    target: Callable[[Row], str],
    read: Callable[[str], BenchmarkTable] = table,
) -> list[Task]:
    """One task; `target` returns the number of a row made by `row`.

    Examples are the first rows of the file `shown`, and rows of `path` that are the same are left out; where
    none is named, they are the first of `path`, and are not asked.
    """
    problems = read(path)
    source = read(shown) if shown else BenchmarkTable(problems.rows[:shots], problems.files)
    rows = problems.rows if shown else problems.rows[shots:]
    if not rows:
        raise InputError(
            "all rows are used as examples, so none is left to ask",
            where=path,
            remedy="use fewer shots, or give a separate file of examples",
        )
    taught = read_published(config)
    settings = {**taught, "generation_kwargs": {**taught["generation_kwargs"], "max_gen_toks": answer_tokens}}
    items, left_out = sort_out(choose_rows(rows, limit), row)
    before = examples(sort_out(source.rows, row)[0], shots, shown or path)
    files = {**source.files, **problems.files}

    def grade(item: Row, answer: str) -> bool:
        return is_same_number(answer, target(item))

    task = Task(name, settings, items, before, MEASURE, None, files, left_out, grade=grade)
    return finish([leave_out_shown(task) if shown else task], path)


def number(row: Row, text: str) -> str:
    """The number of a target. Raises `InputError` if it is not a number."""
    plain = text.replace(",", "").strip()
    try:
        float(plain)
    except ValueError:
        raise InputError(
            f"the answer {text[:40]!r} is not a number", where=row[ID], remedy="correct the row"
        ) from None
    return plain

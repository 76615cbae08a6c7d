"""Sums in words, answered by writing: GSM8K and MGSM as lm-eval asks them, marked by the last number of the answer."""

from __future__ import annotations

from collections.abc import Callable

from ctllm_ray.base.errors import InputError
from ctllm_ray.base.rows import ID, Row, Table, table
from ctllm_ray.evaluate.task import Task, chosen, examples, published

#: lm-eval's filter that takes the last number, whatever the answer's form.
MEASURE = "exact_match,flexible-extract"


def sums(
    name: str,
    path: str,
    shown: str,
    *,
    config: str,
    shots: int,
    limit: int,
    answer_tokens: int,
    row: Callable[[Row], Row],
) -> list[Task]:
    """One task. Examples are the first rows of the file `shown`; where none is named, of `path`, and are not asked."""
    found = table(path)
    source = table(shown) if shown else Table(found.rows[:shots], found.files)
    asked = found.rows if shown else found.rows[shots:]
    if not asked:
        raise InputError("no row is left to ask", where=path, remedy="take fewer shots, or name a file of examples")
    taught = published(config)
    given = {**taught, "generation_kwargs": {**taught["generation_kwargs"], "max_gen_toks": answer_tokens}}
    items, first = ([row(each) for each in rows] for rows in (chosen(asked, limit), source.rows))
    return [
        Task(name, given, items, examples(first, shots, shown or path), MEASURE, None, {**source.files, **found.files})
    ]


def number(row: Row, text: str) -> str:
    """The number that an answer is. Raises `InputError` where it is none."""
    plain = text.replace(",", "").strip()
    try:
        float(plain)
    except ValueError:
        raise InputError(f"the answer {text[:40]!r} is no number", where=row[ID], remedy="correct the row") from None
    return plain

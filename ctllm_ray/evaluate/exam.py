"""Exams of four choices by subject, as CMMLU and C-Eval have them: the first examples of the dev split, then the item.

Files in their native form are one CSV for each subject and split, `<folder>/dev/*.csv` and `<folder>/test/*.csv`; one
file with all of it has the columns `subject` and `split` besides. All items of a subject share their examples, word
for word, so an engine that keeps prefixes computes them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.rows import ID, Row, Table, field_of, table
from ctllm_ray.evaluate.task import Task, by, chosen, examples, published

LETTERS = ("A", "B", "C", "D")
ONE_FILE = (".jsonl", ".json", ".csv", ".parquet", ".zst", ".gz")  # else a folder of files


def exam(
    path: str,
    *,
    split: str,
    subjects: Sequence[str],
    shots: int,
    limit: int,
    task: Callable[[str], str],
    row: Callable[[Row], Row],
) -> list[Task]:
    """A task for each subject: `task` names lm-eval's own, `row` gives a question the names that it has there."""
    dev, found = _tables(path, split)
    questions, shown = by(found.rows, _subject), by(dev.rows, _subject)
    for subject in subjects:
        if subject not in questions:
            remedy = f"subjects there: {', '.join(questions)}"
            raise InputError(f"no questions about {subject!r}", where=path, remedy=remedy)
    files = {**dev.files, **found.files}
    return [
        Task(
            subject,
            published(task(subject)),
            [row(question) for question in chosen(questions[subject], limit)],
            [row(example) for example in examples(shown.get(subject, []), shots, f"{path}: {subject}")],
            chance=1 / len(LETTERS),
            files=files,
        )
        for subject in subjects or questions
    ]


def _tables(path: str, split: str) -> tuple[Table, Table]:
    """The examples and the questions."""
    if not path.endswith(ONE_FILE):
        return _folder(path, "dev"), _folder(path, split)
    whole = table(path)
    dev, found = (_of_split(whole, name) for name in ("dev", split))
    if not found.rows:
        raise InputError(f"no rows of the split {split!r}", where=path, remedy="give a file that has them")
    return dev, found


def _of_split(whole: Table, name: str) -> Table:
    return Table([row for row in whole.rows if field_of(row, "split", "_split") == name], whole.files)


def _folder(path: str, split: str) -> Table:
    """All subjects of a split: `law_dev.csv` or `law.csv` is about law."""
    found = table(storage.join(path, split, "*.csv"))
    return Table([row | {"subject": _stem(row[ID], split)} for row in found.rows], found.files)


def _stem(id_: str, split: str) -> str:
    """The subject that a file is named after."""
    return id_.partition("#")[0].removesuffix(".csv").removesuffix(f"_{split}")


def _subject(row: Row) -> str:
    return str(field_of(row, "subject"))


def question(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    """A question with four choices and the letter of the right one, under `names` of `question` and `answer`."""
    answer = str(field_of(row, "answer", "Answer")).strip()
    if answer not in LETTERS:
        raise InputError(f"the answer is {answer!r}", where=row[ID], remedy="it must be A, B, C or D")
    choices = {letter: str(field_of(row, letter)) for letter in LETTERS}
    text = str(field_of(row, "question", "Question"))
    return {ID: row[ID], names["question"]: text, **choices, names["answer"]: answer}

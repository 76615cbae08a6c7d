"""Four-choice exams by subject, like CMMLU and C-Eval: first examples of the dev split, then the item.

Files in their native form are one CSV for each subject and split, `<folder>/dev/*.csv` and
`<folder>/test/*.csv`; one file with all of it has the columns `subject` and `split` besides. All items
of a subject share their examples, word for word, so an engine that keeps prefixes computes them once.
A subject that lm-eval does not have, of an exam of one's own, is asked in the words of the others,
with its own name in them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.benchmark_files import ID, BenchmarkTable, Row, field_of, table
from ctllm_ray.evaluate.task import (
    Note,
    Task,
    by,
    choose_rows,
    examples,
    finish,
    is_published,
    read_published,
    sort_out,
)

LETTERS = ("A", "B", "C", "D")
_ANSWER = re.compile(r"[(\[]?([ABCD])[)\].。、:,]?")
ONE_FILE = (".jsonl", ".json", ".csv", ".parquet", ".zst", ".gz")  # else a folder of files


@dataclass(frozen=True)
class Prompts:
    """The names of a subject's prompts in lm-eval, and the substitute if lm-eval lacks the subject."""

    name: str  # task name of a subject
    like: str  # a task whose prompts other subjects use
    description: str  # description for a subject that lm-eval lacks


def read_four_choice(
    path: str,
    *,
    split: str,
    subjects: Sequence[str],
    shots: int,
    limit: int,
    prompts: Prompts,
    row: Callable[[Row], Row],
) -> list[Task]:
    """One task per subject. `row` gives a question the field names of lm-eval's prompts."""
    dev, result = _tables(path, split)
    questions, shown = by(result.rows, _subject), by(dev.rows, _subject)
    for subject in subjects:
        if subject not in questions:
            remedy = f"available subjects: {', '.join(questions)}"
            raise InputError(f"there are no questions about {subject!r}", where=path, remedy=remedy)
    files = {**dev.files, **result.files}
    tasks = []
    for subject in subjects or questions:
        items, left_out = sort_out(choose_rows(questions[subject], limit), row)
        before = examples(sort_out(shown.get(subject, []), row)[0], shots, f"{path}: {subject}")
        own = not is_published(prompts.name.format(subject))
        tasks.append(
            Task(
                subject,
                _config(prompts, subject),
                items,
                before,
                chance=1 / len(LETTERS),
                files=files,
                left_out=left_out,
                notes=[Note("own_subject", 1, subject)] if own else [],
            )
        )
    return finish(tasks, path)


def _config(prompts: Prompts, subject: str) -> Mapping[str, Any]:
    """lm-eval's configuration of the subject; or another subject's with this one's name."""
    name = prompts.name.format(subject)
    if is_published(name):
        return read_published(name)
    return read_published(prompts.like) | {"description": prompts.description.format(subject)}


def _tables(path: str, split: str) -> tuple[BenchmarkTable, BenchmarkTable]:
    """The examples and the questions."""
    if not path.endswith(ONE_FILE):
        return _folder(path, "dev"), _folder(path, split)
    whole = table(path)
    dev, result = (_of_split(whole, name) for name in ("dev", split))
    if not result.rows:
        raise InputError(
            f"there are no rows of the split {split!r}", where=path, remedy="give a file that has this split"
        )
    return dev, result


def _of_split(whole: BenchmarkTable, name: str) -> BenchmarkTable:
    return BenchmarkTable(
        [row for row in whole.rows if field_of(row, "split", "_split") == name], whole.files
    )


def _folder(path: str, split: str) -> BenchmarkTable:
    """All subjects of a split: `law_dev.csv` and `law.csv` are about law."""
    result = table(storage.join(path, split, "*.csv"))
    return BenchmarkTable([row | {"subject": _stem(row[ID], split)} for row in result.rows], result.files)


def _stem(id_: str, split: str) -> str:
    """The subject in a file's name."""
    return id_.partition("#")[0].removesuffix(".csv").removesuffix(f"_{split}")


def _subject(row: Row) -> str:
    return str(field_of(row, "subject"))


def question(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    """A four-choice question and the letter of its answer, under the names
    `question` and `answer` in `names`."""
    answer = _letter(row, field_of(row, "answer", "Answer"))
    choices = {letter: str(field_of(row, letter)) for letter in LETTERS}
    text = str(field_of(row, "question", "Question"))
    return {ID: row[ID], names["question"]: text, **choices, names["answer"]: answer}


def _letter(row: Row, answer: Any) -> str:
    """The letter of an answer, also as Ａ, a, A. or (A). Raises `InputError` if it is none."""
    match = _ANSWER.fullmatch(unicodedata.normalize("NFKC", str(answer)).strip().upper())
    if not match:
        raise InputError(
            f"the answer is {str(answer)!r}, not A, B, C or D", where=row[ID], remedy="correct the row"
        )
    return match[1]

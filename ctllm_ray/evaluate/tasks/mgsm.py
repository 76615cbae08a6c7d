"""MGSM in Chinese: 250 translated problems of GSM8K's test (Shi et al. 2022), with
lm-eval's step-by-step prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ctllm_ray.benchmark_files import ID, Row, field_of
from ctllm_ray.evaluate.formats.math_word_problems import number, read_math_problems
from ctllm_ray.evaluate.formats.published_files import read_table
from ctllm_ray.evaluate.task import Task


def mgsm(
    *,
    path: str,
    examples: str = "",
    shots: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=0)] = 0,
    answer_tokens: Annotated[int, Field(gt=0)] = 256,
) -> list[Task]:
    """One task. Its examples show the answer only: no file of this form has the published steps."""
    return read_math_problems(
        "mgsm",
        path,
        examples,
        config="mgsm/native_cot/mgsm_native_cot_zh",
        shots=shots,
        limit=limit,
        answer_tokens=answer_tokens,
        row=_row,
        target=lambda row: row["answer_number"],
        read=lambda uri: read_table(uri, _of_line),
    )


def _of_line(values: Sequence[str], _: str) -> Row:
    """A line of the published .tsv: the question and its number."""
    question, answer = values
    return {"question": question, "answer": answer}


def _row(row: Row) -> Row:
    answer = number(row, str(field_of(row, "answer_number", "answer")))
    return {ID: row[ID], "question": str(field_of(row, "question")), "answer": None, "answer_number": answer}

"""GSM8K: primary school math problems in English with solutions (Cobbe et al. 2021), with lm-eval's prompts.

lm-eval draws other examples for each item; here they are the first of the file, the same for all, which costs
a fraction of the time (a prefix that all share) and makes two evaluations comparable item by item.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ctllm_ray.benchmark_files import ID, Row, field_of
from ctllm_ray.evaluate.formats.math_word_problems import number, read_math_problems
from ctllm_ray.evaluate.task import Task


def gsm8k(
    *,
    path: str,
    examples: str = "",
    shots: Annotated[int, Field(ge=0)] = 5,
    limit: Annotated[int, Field(ge=0)] = 0,
    answer_tokens: Annotated[int, Field(gt=0)] = 256,
) -> list[Task]:
    """One task, from the published JSON lines."""
    return read_math_problems(
        "gsm8k",
        path,
        examples,
        config="gsm8k/gsm8k",
        shots=shots,
        limit=limit,
        answer_tokens=answer_tokens,
        row=_row,
        target=_target,
    )


def _target(row: Row) -> str:
    return number(row, row["answer"].rpartition("#### ")[2])


def _row(row: Row) -> Row:
    answer = str(field_of(row, "answer"))
    _target({ID: row[ID], "answer": answer})  # raises if it is not a number
    return {ID: row[ID], "question": str(field_of(row, "question")), "answer": answer}

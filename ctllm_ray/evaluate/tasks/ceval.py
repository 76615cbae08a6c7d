"""C-Eval: 52 subjects, four choices (Huang et al. 2023), as lm-eval asks it: on `val`, since `test` has no answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ctllm_ray.evaluate.exam import exam, question
from ctllm_ray.evaluate.task import Task

_NAMES = {"question": "question", "answer": "answer"}  # in lm-eval's template


def ceval(
    *,
    path: str,
    subjects: tuple[str, ...] = (),
    shots: Annotated[int, Field(ge=0)] = 5,
    limit: Annotated[int, Field(ge=0)] = 0,
) -> list[Task]:
    """A task for each subject (empty: all that the files have), from the published folder or one file of all."""
    return exam(
        path,
        split="val",
        subjects=subjects,
        shots=shots,
        limit=limit,
        task=lambda subject: f"ceval/ceval-valid_{subject}",
        row=lambda row: question(row, _NAMES),
    )

"""CMMLU: 67 subjects of Chinese school and life, four choices (Li et al. 2023), with lm-eval's prompts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ctllm_ray.evaluate.formats.four_choice import Prompts, question, read_four_choice
from ctllm_ray.evaluate.task import Task

_NAMES = {"question": "Question", "answer": "Answer"}  # in lm-eval's template
_PROMPTS = Prompts(
    "cmmlu/cmmlu_{}", "cmmlu/cmmlu_anatomy", "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n"
)


def cmmlu(
    *,
    path: str,
    subjects: tuple[str, ...] = (),
    shots: Annotated[int, Field(ge=0)] = 5,
    limit: Annotated[int, Field(ge=0)] = 0,
) -> list[Task]:
    """One task per subject (empty: all in the files), from the published folder or a single file."""
    return read_four_choice(
        path,
        split="test",
        subjects=subjects,
        shots=shots,
        limit=limit,
        prompts=_PROMPTS,
        row=lambda row: question(row, _NAMES),
    )

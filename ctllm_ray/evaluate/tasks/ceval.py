"""C-Eval: 52 subjects, four choices (Huang et al. 2023), with lm-eval's prompts; on `val`,
since `test` has no answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ctllm_ray.evaluate.formats.four_choice import Prompts, question, read_four_choice
from ctllm_ray.evaluate.task import Task

_NAMES = {"question": "question", "answer": "answer"}  # in lm-eval's template
_PROMPTS = Prompts(
    "ceval/ceval-valid_{}",
    "ceval/ceval-valid_accountant",
    "以下是中国关于{}的单项选择题，请选出其中的正确答案。\n\n",
)


def ceval(
    *,
    path: str,
    subjects: tuple[str, ...] = (),
    shots: Annotated[int, Field(ge=0)] = 5,
    limit: Annotated[int, Field(ge=0)] = 0,
) -> list[Task]:
    """One task per subject (empty: all in the files), from the published folder or a single file."""
    return read_four_choice(
        path,
        split="val",
        subjects=subjects,
        shots=shots,
        limit=limit,
        prompts=_PROMPTS,
        row=lambda row: question(row, _NAMES),
    )

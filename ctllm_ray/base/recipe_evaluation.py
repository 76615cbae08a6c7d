"""The section `evaluate` of a recipe: tasks, judge and model.

What decides a score (tasks, their files, shots, limits, seed, judge) is held by the evaluation itself, with
the hashes of the files and of the model: see evaluate/run.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctllm_ray.base.recipe_training import NAME, Count, Frozen, Positive

CHC_BENCH = "chc_bench"  # the default judge


class Benchmark(BaseModel):
    """A benchmark: `use` names its file in evaluate/tasks; other keys are its
    options (path, shots, limit)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str
    name: Annotated[str, Field(pattern=NAME)] = ""  # name in results and in the API; default: `use`

    @model_validator(mode="before")
    @classmethod
    def _name_by_use(cls, value: object) -> object:
        return (
            value | {"name": value.get("name") or value.get("use", "")} if isinstance(value, dict) else value
        )


class Bits(Frozen):
    """Bits per byte by group on held-out documents of token sections."""

    corpora: tuple[str, ...] = ()  # folders of token sections; empty: the recipe's own
    max_tokens: Count = 200_000  # per group, from the start of a fixed order


class Judge(Frozen):
    """Another model with an OpenAI-compatible API marks each answer; `use` names a file in evaluate/judging/judges."""

    # Left out where it is the default: evaluations begun before judges had names go on.
    use: Annotated[str, Field(exclude_if=lambda name: name == CHC_BENCH)] = CHC_BENCH
    items: str  # JSON lines or Parquet with the columns `category` (a class of the judge) and `query`
    url: str  # for example https://host/v1
    model: str
    key_env: str = ""  # environment variable with the API key; empty: no key is sent
    form: Literal["auto", "chat", "completion"] = (
        "auto"  # auto: use the chat template if the model was trained on conversations
    )
    answer_tokens: Count = 1024  # of the model's answer
    verdict_tokens: Count = 1024  # of the judge's
    at_once: Count = 4  # requests to the judge
    timeout_s: Positive = 120  # of one request
    attempts: Count = 8  # per request, while the judge is busy, fails or does not answer
    asks: Count = 3  # per mark: a verdict without a mark is requested again, with a reminder
    limit: Annotated[int, Field(ge=0)] = 0  # items of each class; 0: all


class Evaluate(Frozen):
    """Settings of `ctllm evaluate`. The in-process engine uses the section `serve`."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = ""  # distinguishes evaluations of one recipe
    model: str = ""  # a Hugging Face folder; empty: this recipe's newest export
    tasks: tuple[Benchmark, ...] = ()
    bits: Bits | None = None
    judge: Judge | None = None
    seed: int = 0  # for the order of examples, and for the bootstrap
    resamples: Count = 1000  # of the bootstrap
    # concurrent requests to an API, and the maximum that evaluations use of a served model
    at_once: Count = 16

    @model_validator(mode="after")
    def _distinct(self) -> Evaluate:
        names = [task.name for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tasks are named {name!r}: give one of them a `name:`")
        return self

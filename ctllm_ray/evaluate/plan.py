"""Plans an evaluation: reads and checks everything before the first request, and
records what scores depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from ctllm_ray import sample
from ctllm_ray.base import resolve, storage
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_evaluation import Benchmark, Evaluate
from ctllm_ray.benchmark_files import Row
from ctllm_ray.evaluate.judging import judge, marks
from ctllm_ray.evaluate.judging.judge_prompt import prompt_sha256
from ctllm_ray.evaluate.models import openai_client
from ctllm_ray.evaluate.scoring import bits_per_byte, contamination
from ctllm_ray.evaluate.task import Task, require_lm_eval
from ctllm_ray.tokenizer.tokenizer import Tokenizer

PATHS = ("path", "examples")  # task options that are file paths
SCORING = 2  # version of the scoring; 1: math problems by lm-eval's exact_match


@dataclass(frozen=True)
class EvaluationPlan:
    """Tasks by benchmark, held-out documents by group, and items for the judge. Each may be empty."""

    part: Evaluate
    tasks: Mapping[str, Sequence[Task]]
    documents: bits_per_byte.Groups
    judged: Sequence[Row]
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by name
    seen: contamination.Contamination = contamination.NOTHING  # overlap of items with the corpus

    @property
    def items(self) -> int:
        """The number of items."""
        task_items = sum(
            len(task.items) + len(task.left_out) for tasks in self.tasks.values() for task in tasks
        )
        return task_items + sum(map(len, self.documents.values())) + len(self.judged)

    def notes(self) -> list[dict[str, Any]]:
        """Notes on the items of each benchmark, as plain values; each kind of note once."""
        by_kind: dict[tuple[str, str], dict[str, Any]] = {}
        notes = ((name, note) for name, tasks in self.tasks.items() for task in tasks for note in task.notes)
        for name, note in notes:
            kept = by_kind.setdefault((name, note.kind), {"benchmark": name, **asdict(note), "count": 0})
            kept["count"] += note.count
        return list(by_kind.values())


def names(part: Evaluate) -> list[str]:
    """The benchmarks of the recipe, by their names in results."""
    more = [bits_per_byte.NAME] * bool(part.bits)
    return [*(task.name for task in part.tasks), *more, *([part.judge.use] if part.judge else [])]


def select_benchmarks(part: Evaluate, wanted: Sequence[str], limit: int) -> Evaluate:
    """The section with only the named benchmarks (none named: all), and at most `limit`
    items of each (0: as it says).

    Raises `InputError` for a name that the recipe does not have.
    """
    for name in wanted:
        if name not in names(part):
            raise InputError(
                f"the recipe has no benchmark {name!r}", remedy=resolve.nearest(name, names(part))
            )
    kept = [task for task in part.tasks if not wanted or task.name in wanted]
    judged = part.judge if part.judge and (not wanted or part.judge.use in wanted) else None
    return part.model_copy(
        update={
            "tasks": tuple(_limit_items(task, limit) for task in kept),
            "bits": part.bits if not wanted or bits_per_byte.NAME in wanted else None,
            "judge": judged.model_copy(update={"limit": limit}) if judged and limit else judged,
        }
    )


def _limit_items(task: Benchmark, limit: int) -> Benchmark:
    return Benchmark.model_validate(task.model_dump() | {"limit": limit}) if limit else task


def locate_paths(recipe: Recipe) -> Evaluate:
    """The recipe's section with absolute paths. Raises `RecipeError` if it has none."""
    part = recipe.evaluate
    if part is None or not names(part):
        raise RecipeError("the recipe has no evaluation", remedy="add the section `evaluate` with tasks")

    def path(value: str) -> str:
        return storage.absolute(sample.locate(recipe.locate(value))) if value else ""

    tasks = []
    for task in part.tasks:
        options = task.model_dump()
        tasks.append(
            Benchmark.model_validate(options | {key: path(options[key]) for key in PATHS if key in options})
        )
    corpora = tuple(map(path, part.bits.corpora if part.bits else ())) or recipe.token_folders()
    return part.model_copy(
        update={
            "model": path(part.model),
            "tasks": tuple(tasks),
            "bits": part.bits and part.bits.model_copy(update={"corpora": corpora}),
            "judge": part.judge and part.judge.model_copy(update={"items": path(part.judge.items)}),
        }
    )


def plan_evaluation(part: Evaluate, tokenizer: Tokenizer, decontaminated: str = "") -> EvaluationPlan:
    """Reads everything that a section with absolute paths
    names, and the overlaps from the pass in `decontaminated`.

    Raises `InputError` for a file that is not there or not right.
    """
    if part.tasks:
        require_lm_eval()
    tasks = {task.name: _tasks(task) for task in part.tasks}
    judged, judge_files = judge.items(part.judge) if part.judge else ([], {})
    if part.judge:
        openai_client.key_of(part.judge.key_env)  # raises now if there is no key
    files = dict(judge_files) | {
        uri: sha for each in tasks.values() for task in each for uri, sha in task.files.items()
    }
    named = {uri.rpartition("/")[2]: sha256 for uri, sha256 in sorted(files.items())}
    documents = bits_per_byte.documents(part.bits, tokenizer) if part.bits else {}
    return EvaluationPlan(
        part, tasks, documents, judged, named, contamination.read_contamination(decontaminated, named)
    )


def _tasks(benchmark: Benchmark) -> Sequence[Task]:
    """The benchmark's tasks. Raises `InputError` if they have no items."""
    tasks = resolve.resolve(resolve.TASKS, benchmark.use)(**_options(benchmark))
    if not any(task.items for task in tasks):
        remedy = "give a file and a split with items"
        raise InputError(
            "there are no items to evaluate", where=f"evaluate.tasks.{benchmark.name}", remedy=remedy
        )
    return tasks


def _options(task: Benchmark) -> dict[str, Any]:
    """The options, converted to the types that the function takes."""
    options = dict(task.model_extra or {})
    kinds = resolve.options(resolve.resolve(resolve.TASKS, task.use))
    return dict(kinds(**options))


def decisions(plan: EvaluationPlan, model: Mapping[str, Any], form: str) -> dict[str, Any]:
    """What the scores depend on, as plain values. Files count by hash, independent of location.

    `form` is the prompt format of judged benchmarks, `chat` or `completion`.
    """
    part = plan.part
    tasks = [
        {key: value for key, value in task.model_dump(mode="json").items() if key not in PATHS}
        for task in part.tasks
    ]
    values: dict[str, Any] = {
        "model": dict(model),
        "tasks": tasks,
        "files": dict(plan.files),
        "scoring": SCORING,
        "seed": part.seed,
        "resamples": part.resamples,
    }
    if plan.seen.overlap:
        values["seen"] = plan.seen.plain()
    if part.tasks:
        values["lm_eval"] = metadata.version("lm_eval")
    if part.bits:
        values["bits"] = {
            "max_tokens": part.bits.max_tokens,
            "documents": bits_per_byte.identity(plan.documents),
        }
    if part.judge:
        kept = part.judge.model_dump(include={"use", "model", "answer_tokens", "verdict_tokens", "limit"})
        sha256 = prompt_sha256(judge.load(part.judge))
        values["judge"] = kept | {"prompt_sha256": sha256, "marks": marks.GRAMMAR, "form": form}
    return values

"""Runs an evaluation from the first prompt to the results, for any model and any caller.

`<folder>/` holds `begun.json` (what the scores depend on), `probes.json` (a served model's answers to fixed
prompts), `answers/` and `verdicts/` (cached results), `items.parquet`, `report.html`, and `results.json`,
which is written last. A folder without it is not finished, and the same command resumes. If the folder has
another evaluation, it stops and names the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import NotFound
from ctllm_ray.base.recipe_evaluation import Judge
from ctllm_ray.base.resumable import ResumableFolder
from ctllm_ray.evaluate.formats.chat_form import ChatForm
from ctllm_ray.evaluate.judging import judge
from ctllm_ray.evaluate.models.answer_cache import AnswerCache
from ctllm_ray.evaluate.models.batching import RequestBatching
from ctllm_ray.evaluate.models.concurrency import ConcurrentRequests, Runner, Tell
from ctllm_ray.evaluate.models.model_under_test import ModelUnderTest
from ctllm_ray.evaluate.models.openai_client import Client, key_of
from ctllm_ray.evaluate.models.probes import Probes
from ctllm_ray.evaluate.plan import EvaluationPlan, decisions
from ctllm_ray.evaluate.report import render
from ctllm_ray.evaluate.scoring import bits_per_byte, contamination, item_results, scores
from ctllm_ray.evaluate.scoring.item_results import Item

REPORT = "report.html"
FORMAT = 1  # of results.json


@dataclass(frozen=True)
class EvaluationRun:
    """An evaluation to run. `model` identifies the model under evaluation, as plain values."""

    plan: EvaluationPlan
    folder: str
    subject: ModelUnderTest
    form: ChatForm  # prompt format of judged benchmarks; holds the tokenizer
    model: Mapping[str, Any]
    at_once: int
    answers: str = ""  # folder of answers shared by evaluations of this model; empty: a folder of its own
    probes: Probes | None = None  # for a model that may be replaced behind its address

    def carry_out(self, runner: Runner, tell: Tell) -> dict[str, Any]:
        """Runs the evaluation and returns the results. Raises `VersionConflict` if the
        folder has another evaluation."""
        model = {**self.model, "context_tokens": self.subject.context_tokens}
        decided = decisions(self.plan, model, self.form.name)
        if finished := self._read_finished(decided, runner):
            return finished
        cache = AnswerCache(self.answers or storage.join(self.folder, "answers"))
        batching = RequestBatching(self.subject, ConcurrentRequests(runner, cache, self.at_once, tell))
        self._check_lengths(batching)  # before it begins: the remedy is another evaluation
        self._begin(decided, runner)
        items = contamination.mark_items(self._items(batching, runner, tell), self.plan.seen)
        assert len(items) == self.plan.items  # every item is accounted for
        part = self.plan.part
        score_rows = [
            score.plain()
            for score in scores.compute_scores(items, part.seed, part.resamples, self.plan.seen.bound)
        ]
        results = {
            "format": FORMAT,
            "decisions": decided,
            "fingerprint": fingerprint(decided),
            "scores": score_rows,
            "notes": self.plan.notes(),
        }
        item_results.write_items(self.folder, items)
        storage.write_bytes(storage.join(self.folder, REPORT), render.render_page(results, items).encode())
        _files(self.folder).finish(results)
        return results

    def _read_finished(self, decided: dict[str, Any], runner: Runner) -> dict[str, Any]:
        """The results, if they already exist and are complete."""
        files = _files(self.folder)
        if (begun := files.read_begun()) is None:
            return {}
        files.check_unchanged(
            begun,
            decided,
            "the folder holds another evaluation",
            remedy="give this evaluation a name: evaluate.run=NAME; or delete the folder",
        )
        if self.probes:
            self.probes.check(self.folder, runner)
        result = files.read_finished() or {}
        unjudged = sum(score["unparsable"] for score in result.get("scores", ()))
        return {} if unjudged else result  # items without a mark are judged again

    def _begin(self, decided: dict[str, Any], runner: Runner) -> None:
        """Records what the results depend on."""
        if _files(self.folder).read_begun() is not None:
            return
        if self.probes:
            self.probes.write(self.folder, runner)
        _files(self.folder).begin(decided)

    def _check_lengths(self, batching: RequestBatching) -> None:
        """Raises `InputError` if no item of a benchmark fits the context."""
        if self.plan.tasks:
            from ctllm_ray.evaluate import harness  # lm-eval: the import takes four seconds

            harness.check_lengths(self.plan.tasks, harness.EngineLM(batching, self.form.tokenizer))
        if self.plan.part.judge:
            judge.check_lengths(self.plan.part.judge, self.plan.judged, batching, self.form)

    def _items(self, batching: RequestBatching, runner: Runner, tell: Tell) -> list[Item]:
        items: list[Item] = []
        if self.plan.tasks:
            from ctllm_ray.evaluate import harness

            items += harness.evaluate(self.plan.tasks, harness.EngineLM(batching, self.form.tokenizer))
        if self.plan.documents:
            items += bits_per_byte.evaluate(self.plan.documents, batching)
        if self.plan.part.judge:
            items += self._judge_answers(self.plan.part.judge, batching, runner, tell)
        return items

    def _judge_answers(
        self, wanted: Judge, batching: RequestBatching, runner: Runner, tell: Tell
    ) -> list[Item]:
        client = Client(
            wanted.url, key_of(wanted.key_env), timeout_s=wanted.timeout_s, attempts=wanted.attempts
        )
        verdicts = AnswerCache(storage.join(self.folder, "verdicts"), every_s=0)
        crowd = ConcurrentRequests(runner, verdicts, wanted.at_once, tell)
        runner.run(client.__aenter__())
        try:
            return judge.evaluate(wanted, self.plan.judged, batching, self.form, client, crowd)
        finally:
            runner.finish(client.__aexit__(None, None, None))


def results(folder: str) -> dict[str, Any]:
    """The results in a folder. Raises `NotFound` if it has no finished evaluation."""
    finished = _files(folder).read_finished()
    if finished is None:
        raise NotFound(
            "the folder has no finished evaluation",
            where=folder,
            remedy="run `ctllm evaluate` first, or give the folder of a finished evaluation",
        )
    return finished


def restart(folder: str) -> None:
    """Deletes the record of what the evaluation in this folder depends on. Answers are kept."""
    _files(folder).forget()


def _files(folder: str) -> ResumableFolder:
    """The resumable folder. Its units are single answers, too many for one file each, so
    the answer cache keeps them."""
    return ResumableFolder(folder, begun="begun.json", finished="results.json")

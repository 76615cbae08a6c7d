"""Runs evaluations of the served model: one at a time, the others in a queue that survives restarts.

Evaluations use the same engines as all requests, and yield to them: they take at most a quarter of one
replica's slots, their prompts are computed after those of users (inference/steps.py), and they wait if a
queue is full. Each has a folder below `<root>/<name>/<version>/evaluations`, with `state.json` and all output
of `ctllm evaluate`. Answers are stored next to these folders, shared by all evaluations of one model. So a
killed server resumes where it was, and a second evaluation of the same items is quick.

It knows neither HTTP nor Ray. lm-eval runs in a thread and asks through the event loop of the server.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, NotFound, Overloaded
from ctllm_ray.base.recipe_evaluation import Evaluate
from ctllm_ray.evaluate import plan
from ctllm_ray.evaluate.evaluation import EvaluationRun, restart, results
from ctllm_ray.evaluate.formats.chat_form import ChatForm
from ctllm_ray.evaluate.models.answer_cache import key
from ctllm_ray.evaluate.models.concurrency import Runner
from ctllm_ray.evaluate.models.model_under_test import ModelUnderTest

FILE = "state.json"
MOST_WAITING = 8  # in the queue; more get 429
FULL_RETRY_S = 60.0
Status = Literal["queued", "running", "done", "failed", "cancelled"]
_log = logging.getLogger("ctllm.serve")


class State(BaseModel):
    """The state of an evaluation. `scores` are as in its results.json, once it is
    done. Times are Unix seconds."""

    id: str
    object: Literal["evaluation"] = "evaluation"
    status: Status = "queued"
    tasks: list[str]
    limit: int = 0
    created: float
    started: float | None = None
    finished: float | None = None
    asked: str = ""  # what is computed now: scores, answers, verdicts
    answered: int = 0
    total: int = 0
    error: str = ""
    scores: list[dict[str, Any]] = []

    @property
    def over(self) -> bool:
        """True if the evaluation has ended."""
        return self.status in ("done", "failed", "cancelled")


class EvaluationService(Protocol):
    """The interface for the API. Raises `NotFound` for an unknown id."""

    async def task_names(self) -> list[str]:
        """The names of available tasks."""
        ...

    async def submit(self, tasks: Sequence[str], limit: int) -> State:
        """Adds an evaluation (no tasks: all; limit 0: as in the recipe). Raises
        `InputError`, `Overloaded`."""
        ...

    async def all(self) -> list[State]:
        """All evaluations, newest first."""
        ...

    async def one(self, id_: str) -> State:
        """One evaluation."""
        ...

    async def cancel(self, id_: str) -> State:
        """Cancels it, if it has not ended."""
        ...

    async def close(self) -> None:
        """Closes when the server ends."""
        ...


@dataclass(frozen=True)
class EvaluationContext:
    """The model under evaluation, the recipe's section, and the folder of results."""

    part: Evaluate  # with paths as this process sees them
    folder: str
    subject: ModelUnderTest
    form: ChatForm  # prompt format for judged benchmarks; holds the tokenizer
    model: Mapping[str, Any]
    at_once: int
    decontaminated: str = ""  # folder of the pass that knows which items occur in the corpus


class Evaluations:
    """`EvaluationService` in this process. It starts with the first call and stays in that event loop."""

    def __init__(
        self, open_: Callable[[], EvaluationContext], clock: Callable[[], float] = time.time
    ) -> None:
        self._open, self._clock = open_, clock
        self._examined: EvaluationContext | None = None
        self._states: dict[str, State] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._worker: asyncio.Task | None = None
        self._runner: Runner | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Reads the stored states and resumes unfinished evaluations. All other methods call it first."""
        async with self._starting:
            if self._worker is None:
                self._examined = await asyncio.to_thread(self._open)
                kept = await asyncio.to_thread(_read_states, self._examined.folder)
                self._states = {state.id: state for state in kept}
                for state in kept:
                    if not state.over:
                        self._queue.put_nowait(state.id)
                self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stops. A running evaluation resumes at the next start."""
        if self._runner is not None:
            self._runner.cancel()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def task_names(self) -> list[str]:
        """As `EvaluationService.task_names`."""
        await self.start()
        return plan.names(self._there.part)

    async def submit(self, tasks: Sequence[str], limit: int) -> State:
        """As `EvaluationService.submit`."""
        await self.start()
        narrowed = plan.select_benchmarks(self._there.part, tasks, limit)
        if sum(state.status == "queued" for state in self._states.values()) >= MOST_WAITING:
            what = f"the queue is full: {MOST_WAITING} evaluations are waiting"
            raise Overloaded(what, remedy="retry when some are done", retry_s=FULL_RETRY_S)
        now = self._clock()
        id_ = f"eval-{int(now * 1000):012x}{secrets.token_hex(4)}"
        state = State(id=id_, tasks=plan.names(narrowed), limit=limit, created=now)
        await self._keep(state)
        self._queue.put_nowait(id_)
        return state

    async def all(self) -> list[State]:
        """As `EvaluationService.all`."""
        await self.start()
        return sorted(self._states.values(), key=lambda state: state.id, reverse=True)

    async def one(self, id_: str) -> State:
        """As `EvaluationService.one`."""
        await self.start()
        if id_ not in self._states:
            raise NotFound("this evaluation does not exist", where=id_[:100])
        return self._states[id_]

    async def cancel(self, id_: str) -> State:
        """As `EvaluationService.cancel`."""
        state = await self.one(id_)
        if not state.over:
            running = state.status == "running"
            await self._keep(state.model_copy(update={"status": "cancelled", "finished": self._clock()}))
            if running and self._runner is not None:
                self._runner.cancel()
        return self._states[id_]

    @property
    def _there(self) -> EvaluationContext:
        assert self._examined is not None
        return self._examined

    async def _work(self) -> None:
        """Runs one evaluation after another, forever."""
        while True:
            state = self._states[await self._queue.get()]
            if not state.over:
                await self._keep(state.model_copy(update={"status": "running", "started": self._clock()}))
                await self._run_one(state.id)

    async def _run_one(self, id_: str) -> None:
        update: dict[str, Any]
        self._runner = Runner(asyncio.get_running_loop())
        try:
            scores = await asyncio.to_thread(self._scores, self._states[id_], self._runner)
            update = {"status": "done", "scores": scores}
        except (CancelledError, asyncio.CancelledError):
            if not self._states[id_].over:
                raise  # this server stops; another one resumes
            return
        except CtllmError as error:
            update = {
                "status": "failed",
                "error": "; ".join(part for part in (error.what, error.remedy) if part),
            }
        except Exception:
            _log.exception("evaluation %s", id_)
            update = {"status": "failed", "error": "internal server error"}
        if not self._states[id_].over:
            await self._keep(self._states[id_].model_copy(update=update | {"finished": self._clock()}))

    def _scores(self, state: State, runner: Runner) -> list[dict[str, Any]]:
        """Runs in a thread: the evaluation."""
        context = self._there

        def tell(what: str, done: int, total: int) -> None:
            now = self._states[state.id]
            if not now.over:
                update = {"asked": what, "answered": done, "total": total}
                self._states[state.id] = now.model_copy(update=update)

        narrowed = plan.select_benchmarks(context.part, state.tasks, state.limit)
        runner.check()
        restart(storage.join(context.folder, state.id))  # its answers are kept elsewhere: it goes on
        work = EvaluationRun(
            plan.plan_evaluation(narrowed, context.form.tokenizer, context.decontaminated),
            storage.join(context.folder, state.id),
            context.subject,
            context.form,
            context.model,
            context.at_once,
            answers=storage.join(context.folder, f"answers-{key(context.model)[:16]}"),
        )
        return work.carry_out(runner, tell)["scores"]

    async def _keep(self, state: State) -> None:
        """Stores the new state, in memory and on storage."""
        self._states[state.id] = state
        uri = storage.join(self._there.folder, state.id, FILE)
        kept = state.model_dump(mode="json", exclude={"scores", "asked", "answered", "total"})
        await asyncio.to_thread(storage.write_json, uri, kept)


def _read_states(folder: str) -> list[State]:
    """The evaluations in a folder, oldest first; finished ones with their scores."""
    result = []
    for path in storage.list_tree(folder):
        if path.endswith(f"/{FILE}") and path.count("/") == 1:
            state = State.model_validate(storage.read_json(storage.join(folder, path)))
            if state.status == "done":
                with suppress(NotFound):  # somebody deleted it; the rest is still valid
                    scores = results(storage.join(folder, state.id))["scores"]
                    state = state.model_copy(update={"scores": scores})
            result.append(state)
    return sorted(result, key=lambda state: state.id)

"""Evaluations as a Ray Serve deployment with one replica, so that all ingresses share one queue.

It holds no model: it uses the same engines as all requests. If it dies, Ray Serve restarts it, and unfinished
evaluations resume. Ray Serve's health check starts it before the first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from ctllm_ray.base.recipe_evaluation import Evaluate
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.serving.evaluations.service import EvaluationContext, Evaluations, State
from ctllm_ray.serving.ray.engine_deployments import RemoteEngine
from ctllm_ray.serving.ray.remote import persistently
from ctllm_ray.tokenizer import tokenizer

SLOTS_SHARE = 4  # one in so many slots of a replica is for evaluations


class EvaluationsReplica:
    """The single place that evaluates. `facts` holds plain values from application.py."""

    def __init__(self, facts: dict[str, Any], engine: DeploymentHandle) -> None:
        self._facts, self._engine = facts, engine
        self._evaluations = Evaluations(self._open)
        self._begun: asyncio.Task[None] | None = None

    def _open(self) -> EvaluationContext:
        # these import torch, 300 MB, which ingresses that import this file do not need
        from ctllm_ray.evaluate import run
        from ctllm_ray.evaluate.formats.chat_form import choose_form
        from ctllm_ray.evaluate.models import model_identity
        from ctllm_ray.evaluate.models.model_under_test import EngineModel

        facts, folder = self._facts, self._facts["folder"]
        result = tokenizer.load_tokenizer(folder)
        engine = RemoteEngine(self._engine, facts["context_tokens"], facts["vocab_size"])
        part = Evaluate.model_validate(facts["evaluate"])
        serve = Serve.model_validate(facts["serve"])
        return EvaluationContext(
            part,
            facts["evaluations"],
            EngineModel(engine, result, run.stop_ids(folder, result)),
            choose_form(folder, result, part.judge.form if part.judge else "auto"),
            model_identity.identify_model(folder, result)
            | model_identity.describe_engine(serve, serve.engine),
            at_once=min(part.at_once, max(1, serve.slots // SLOTS_SHARE)),
            decontaminated=facts["decontaminated"],
        )

    async def task_names(self) -> list[str]:
        """As `EvaluationService.task_names`."""
        return await self._evaluations.task_names()

    async def submit(self, tasks: list[str], limit: int) -> State:
        """As `EvaluationService.submit`."""
        return await self._evaluations.submit(tasks, limit)

    async def all(self) -> list[State]:
        """As `EvaluationService.all`."""
        return await self._evaluations.all()

    async def one(self, id_: str) -> State:
        """As `EvaluationService.one`."""
        return await self._evaluations.one(id_)

    async def cancel(self, id_: str) -> State:
        """As `EvaluationService.cancel`."""
        return await self._evaluations.cancel(id_)

    async def check_health(self) -> None:
        """Resumes unfinished evaluations without waiting: weights may have to be
        hashed. Raises if that failed."""
        if self._begun is None:
            self._begun = asyncio.create_task(self._evaluations.start())
        if self._begun.done():
            self._begun.result()

    async def __del__(self) -> None:
        await self._evaluations.close()


class RemoteEvaluations:
    """The evaluations, called from an ingress."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def task_names(self) -> list[str]:
        """As `EvaluationService.task_names`."""
        return await persistently(lambda: self._handle.task_names.remote())

    async def submit(self, tasks: Sequence[str], limit: int) -> State:
        """As `EvaluationService.submit`."""
        return await persistently(lambda: self._handle.submit.remote(list(tasks), limit))

    async def all(self) -> list[State]:
        """As `EvaluationService.all`."""
        return await persistently(lambda: self._handle.all.remote())

    async def one(self, id_: str) -> State:
        """As `EvaluationService.one`."""
        return await persistently(lambda: self._handle.one.remote(id_))

    async def cancel(self, id_: str) -> State:
        """As `EvaluationService.cancel`."""
        return await persistently(lambda: self._handle.cancel.remote(id_))

    async def close(self) -> None:
        """Does nothing: the deployment keeps running."""

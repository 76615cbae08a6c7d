"""The endpoints `/v1/evaluations`: evaluate the served model on the recipe's tasks while it serves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from ctllm_ray.base.errors import NotFound
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.errors import Refused
from ctllm_ray.serving.evaluations.service import EvaluationService, State

Name = Annotated[str, Field(max_length=200)]


class EvaluationRequest(BaseModel):
    """What to evaluate: tasks of the recipe by name (empty: all), and the maximum
    number of items of each part."""

    model_config = ConfigDict(extra="forbid")

    tasks: Annotated[list[Name], Field(max_length=100)] = []
    limit: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # 0: as in the recipe


class EvaluationList(BaseModel):
    """All evaluations, newest first, and the available tasks; none if the recipe has none."""

    object: Literal["list"] = "list"
    data: list[State]
    tasks: list[str]


def add(app: FastAPI, served: AppState) -> None:
    """Adds the endpoints."""

    def require_service() -> EvaluationService:
        if served.evaluations is None:
            what, remedy = "this server offers no evaluations", "add the section `evaluate` to its recipe"
            raise Refused(what, status=404, code="no_evaluations", remedy=remedy)
        return served.evaluations

    @app.post("/v1/evaluations", response_model=State)
    async def evaluate(body: EvaluationRequest) -> Response:
        """Queues an evaluation. It runs beside other requests and yields to them."""
        return _json(await require_service().submit(body.tasks, body.limit))

    @app.get("/v1/evaluations", response_model=EvaluationList)
    async def evaluations() -> Response:
        """Lists all evaluations with their state: queued, running, done, failed or cancelled."""
        evaluating = served.evaluations
        if evaluating is None:
            return _json(EvaluationList(data=[], tasks=[]))
        return _json(EvaluationList(data=await evaluating.all(), tasks=await evaluating.task_names()))

    @app.get("/v1/evaluations/{id}", response_model=State)
    async def evaluation(id: str) -> Response:
        """Returns one evaluation: its progress, and its scores with intervals once it is done."""
        return _json(await _require_state(require_service().one(id)))

    @app.post("/v1/evaluations/{id}/cancel", response_model=State)
    async def cancel(id: str) -> Response:
        """Cancels an evaluation; a finished one does not change. Its answers are
        kept for the next evaluation."""
        return _json(await _require_state(require_service().cancel(id)))


async def _require_state(state: Any) -> State:
    try:
        return await state
    except NotFound as error:
        raise Refused(error.what, status=404, code="not_found") from None


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")

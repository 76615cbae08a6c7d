"""Calls to other deployments: retried after the loss of a replica, with errors of their own types.

Ray wraps what a replica raised; a client is to be told what it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ray.exceptions import RayActorError, RayTaskError
from ray.serve import get_replica_context
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from ctllm_ray.base.errors import CtllmError, EngineFailed, Overloaded
from ctllm_ray.serving.ray import model_replaced
from ctllm_ray.serving.ray.model_replaced import ModelReplaced

ATTEMPTS = 3  # replicas that a request may try, so it survives the loss of two
LOST = (RayActorError, DeploymentUnavailableError)
T = TypeVar("T")


@contextmanager
def own_errors() -> Iterator[None]:
    """Re-raises what a replica raised, with its own type. The loss of a replica is passed on."""
    try:
        yield
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, CtllmError) else explain_failure(error)) from error
    except BackPressureError as error:
        raise Overloaded("all replicas are busy and their queues are full", remedy="retry later") from error


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """The result of a repeatable call, retried after the loss of replicas."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with own_errors():
                return await call()
        except (*LOST, ModelReplaced) as error:
            after_loss(error, attempt)
    raise AssertionError("unreachable")


def after_loss(error: Exception, attempt: int) -> None:
    """Prepares another attempt, away from a refusing replica. Raises after the last attempt."""
    if isinstance(error, ModelReplaced):
        model_replaced.avoid(error.where)
    if attempt == ATTEMPTS:
        raise (error if isinstance(error, ModelReplaced) else explain_failure(error)) from error


def replica_id() -> str:
    """The id of the replica that runs this code, as in `ModelReplaced.where`;
    `local` in Serve's testing mode."""
    try:
        return get_replica_context().replica_id.unique_id
    except RayServeException:
        return "local"


def explain_failure(error: Exception) -> EngineFailed:
    """The last line of an error in a replica."""
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return EngineFailed(f"a replica failed while answering: {reason[:200]}", remedy="retry the request")

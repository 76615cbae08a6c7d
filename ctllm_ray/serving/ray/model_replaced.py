"""Prevents two models under one id: a replica refuses to
serve if its folder was replaced after the deployment.

It stays up and reports the problem. Requests go to other replicas; if there are none, each gets a 503 with
the reason at once. After `AGAIN_S` it fails its health check, so that Ray Serve starts another replica, which
checks the folder again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from ctllm_ray.base.errors import EngineFailed
from ctllm_ray.inference.engine import Engine, EngineLoad, Output, Sampling, Token
from ctllm_ray.model.fingerprint import hash_model

AGAIN_S = 60.0  # until the folder is checked again
REMEDY = (
    "restore the folder (replicas check it every minute). To serve the new model, stop the "
    "server and start it again; `serve deploy` of an unchanged file changes nothing: run "
    "`serve shutdown` first, or set another serve.name"
)
_REFUSING: deque[str] = deque(maxlen=256)  # refusing replicas by id; new ones have other ids
_log = logging.getLogger("ctllm.serve")
E_ = TypeVar("E_", bound=Engine)


class ModelReplaced(EngineFailed):
    """A model's folder holds another model than the deployed one. `where` is the replica's name in Ray."""


class RefusingEngine:
    """An `Engine` that refuses all requests."""

    def __init__(self, error: ModelReplaced) -> None:
        self.context_tokens = self.vocab_size = 0
        self._error, self._since = error, time.monotonic()

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """Raises `ModelReplaced`."""
        raise self._error
        yield  # makes it a generator

    async def logprobs(
        self, ids: Sequence[int], start: int = 1, top: int = 0, others: Sequence[int] = ()
    ) -> list[Token]:
        """Raises `ModelReplaced`."""
        raise self._error

    async def load(self) -> EngineLoad:
        """Reports one refusing replica."""
        return EngineLoad(0, 0, 0, 0, 0, 0.0, refusing=1)

    def check_health(self) -> None:
        """Raises `ModelReplaced` when it is time to check the folder again."""
        if time.monotonic() - self._since > AGAIN_S:
            raise self._error

    def close(self) -> None:
        """Does nothing."""


def open_checked(folder: str, sha256: str, replica: str, open_: Callable[[], E_]) -> E_ | RefusingEngine:
    """Opens the engine if the folder has the deployed hash; else returns one that refuses, and logs it.

    Reads the whole folder once.
    """
    if hash_model(folder) == sha256:
        return open_()
    what = f"the folder {folder} holds another model than the deployed one"
    error = ModelReplaced(what, where=replica, remedy=REMEDY)
    _log.error("%s", error)
    return RefusingEngine(error)


def avoid(replica: str) -> None:
    """From now on, requests of this process use the replica only if there is no other."""
    if replica not in _REFUSING:
        _REFUSING.append(replica)


def find_serving(replicas: Sequence[str]) -> list[int]:
    """The indexes of replicas, by their ids, that do not refuse; all if there are no others."""
    return [at for at, each in enumerate(replicas) if each not in _REFUSING] or list(range(len(replicas)))

"""Engines as Ray Serve deployments, and the client that an ingress uses to call any replica.

A request that loses its replica goes on at another: the prompt and what came so far are the new prompt
(`Sampling.answer_prefix_tokens`), and seeded draws depend on the place in the answer alone, so that a client notices a
pause and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, cast

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from ctllm_ray.base import resolve
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import EngineLoad, Output, Sampling, Token
from ctllm_ray.serving.ray.model_replaced import REMEDY, ModelReplaced, RefusingEngine, open_checked
from ctllm_ray.serving.ray.remote import ATTEMPTS, LOST, after_loss, own_errors, persistently, replica_id


class EngineReplica:
    """A replica whose engine lives in its process. Ray Serve calls `check_health` and replaces a replica where it
    raises."""

    def __init__(self, folder: str, sha256: str, plain: dict[str, Any]) -> None:
        serve = Serve.model_validate(plain)
        engine = resolve.load_module(resolve.ENGINES, serve.engine)
        self._engine = open_checked(folder, sha256, replica_id(), lambda: engine.open_engine(folder, serve))

    async def generate(self, ids: list[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """As `Engine.generate`."""
        async with aclosing(self._engine.generate(ids, sampling)) as outputs:
            async for output in outputs:
                yield output

    async def logprobs(self, ids: list[int], start: int, top: int, others: list[int]) -> list[Token]:
        """As `Engine.logprobs`."""
        return await self._engine.logprobs(ids, start, top, others)

    async def load(self) -> EngineLoad:
        """As `Engine.load`."""
        return await self._engine.load()

    async def check_health(self) -> None:
        """Raises `EngineFailed` if the engine died or is stuck, or has refused long enough."""
        if isinstance(self._engine, RefusingEngine):
            self._engine.check_health()
        await self._engine.load()

    def __del__(self) -> None:
        with suppress(AttributeError):  # the engine never opened
            self._engine.close()


class RemoteEngine:
    """The replicas of a deployment as one engine."""

    def __init__(
        self, handle: DeploymentHandle, context_tokens: int, vocab_size: int, may_rest: bool = False
    ) -> None:
        """`may_rest`: without requests, all replicas may be scaled down, even the last one."""
        self._handle, self.context_tokens, self.vocab_size = handle, context_tokens, vocab_size
        self._may_rest = may_rest

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """Like `Engine.generate`; continues after the loss of a replica."""
        came: list[int] = []
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(self._attempt([*ids, *came], _rest(sampling, len(came)))) as outputs:
                    async for output in outputs:
                        came += [token.id for token in output.tokens]
                        yield output if attempt == 1 else replace(output, cached_tokens=0)
                        if output.finish:
                            return
            except (*LOST, ModelReplaced) as error:
                after_loss(error, attempt)

    async def _attempt(self, ids: list[int], sampling: Sampling) -> AsyncGenerator[Output]:
        stream = cast(
            DeploymentResponseGenerator, self._handle.options(stream=True).generate.remote(ids, sampling)
        )
        try:
            with own_errors():
                async for output in stream:
                    yield output
        finally:
            stream.cancel()  # the client disconnected; no effect if the answer is complete

    async def logprobs(
        self, ids: Sequence[int], start: int = 1, top: int = 0, others: Sequence[int] = ()
    ) -> list[Token]:
        """Like `Engine.logprobs`; retries after the loss of a replica."""
        return await persistently(lambda: self._handle.logprobs.remote(list(ids), start, top, list(others)))

    async def load(self) -> EngineLoad:
        """The total of all replicas, with the oldest step. If they may be scaled to
        zero, none is not an error."""
        try:
            loads = await self._handle.broadcast("load").results_async()
        except DeploymentUnavailableError:
            if not self._may_rest:
                raise
            loads = []
        total = EngineLoad(0, 0, 0, 0, 0, 0.0)
        for one in loads:
            total = EngineLoad(
                total.running + one.running,
                total.waiting + one.waiting,
                total.slots + one.slots,
                total.used_tokens + one.used_tokens,
                total.cache_tokens + one.cache_tokens,
                max(total.step_age_s, one.step_age_s),
                total.refusing + one.refusing,
            )
        if total.refusing and not total.slots:
            raise ModelReplaced(
                "all replicas refuse to serve: the model's folder was replaced", remedy=REMEDY
            )
        return total


def _rest(sampling: Sampling, came: int) -> Sampling:
    """The rest of a request after so many ids of its answer."""
    return replace(
        sampling,
        max_tokens=sampling.max_tokens - came,
        answer_prefix_tokens=sampling.answer_prefix_tokens + came,
    )

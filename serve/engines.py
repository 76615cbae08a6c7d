"""Engines as Ray Serve deployments, and the engine that an ingress sees: whichever replica answers.

A request that loses its replica goes on at another: the prompt and what came so far are the new prompt
(`Sampling.answered`), and seeded draws depend on the place in the answer alone, so that a client notices a pause and
nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from ctllm_ray.base.errors import CtllmError, EngineFailed, Overloaded
from ctllm_ray.base.serving import Serve
from ctllm_ray.inference.engine import Load, Output, Sampling, Token
from ctllm_ray.model import config
from ctllm_ray.tokenizer import tokenizer

ATTEMPTS = 3  # replicas that a request may lose
LOST = (RayActorError, DeploymentUnavailableError)


class TorchReplica:
    """A replica of the torch engine. Ray Serve calls `check_health` and replaces a replica where it raises."""

    def __init__(self, folder: str, plain: dict[str, Any]) -> None:
        from ctllm_ray.inference.grammar import Grammars
        from ctllm_ray.inference.torch_engine import TorchEngine

        vocab_size = config.of_folder(folder).vocab_size
        grammars = Grammars(tokenizer.load(folder), vocab_size)
        self._engine = TorchEngine.open(folder, Serve.model_validate(plain), grammars)

    async def generate(self, ids: list[int], sampling: Sampling) -> AsyncIterator[Output]:
        """As `Engine.generate`."""
        async for output in self._engine.generate(ids, sampling):
            yield output

    async def logprobs(self, ids: list[int], start: int, top: int) -> list[Token]:
        """As `Engine.logprobs`."""
        return await self._engine.logprobs(ids, start, top)

    async def load(self) -> Load:
        """As `Engine.load`."""
        return await self._engine.load()

    async def check_health(self) -> None:
        """Raises `EngineFailed` where the engine died or is stuck."""
        await self._engine.load()

    def __del__(self) -> None:
        with suppress(AttributeError):  # it never opened
            self._engine.close()


class RemoteEngine:
    """The replicas of a deployment as one engine."""

    def __init__(self, handle: DeploymentHandle, context_tokens: int, vocab_size: int) -> None:
        self._handle, self.context_tokens, self.vocab_size = handle, context_tokens, vocab_size

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncIterator[Output]:
        """As `Engine.generate`, over the loss of a replica."""
        came: list[int] = []
        for attempt in range(ATTEMPTS):
            try:
                async for output in self._attempt([*ids, *came], _rest(sampling, len(came))):
                    came += [token.id for token in output.tokens]
                    yield output
                return
            except LOST as error:
                if attempt + 1 == ATTEMPTS:
                    raise _lost(error) from error

    async def _attempt(self, ids: list[int], sampling: Sampling) -> AsyncIterator[Output]:
        stream = cast(DeploymentResponseGenerator, self._handle.options(stream=True).generate.remote(ids, sampling))
        try:
            async for output in stream:
                yield output
        except RayTaskError as error:
            raise _cause(error) from error
        except BackPressureError as error:
            raise Overloaded("all replicas are busy and their queues full", remedy="ask again later") from error
        finally:
            stream.cancel()  # a client that went away; nothing where the answer is whole

    async def logprobs(self, ids: Sequence[int], start: int = 1, top: int = 0) -> list[Token]:
        """As `Engine.logprobs`, over the loss of a replica."""
        for _ in range(ATTEMPTS - 1):
            with suppress(*LOST):
                return await self._scored(ids, start, top)
        try:
            return await self._scored(ids, start, top)
        except LOST as error:
            raise _lost(error) from error

    async def _scored(self, ids: Sequence[int], start: int, top: int) -> list[Token]:
        try:
            return await self._handle.logprobs.remote(list(ids), start, top)
        except RayTaskError as error:
            raise _cause(error) from error
        except BackPressureError as error:
            raise Overloaded("all replicas are busy and their queues full", remedy="ask again later") from error

    async def load(self) -> Load:
        """Of all replicas together; the oldest step."""
        loads = await self._handle.broadcast("load").results_async()
        total = Load(0, 0, 0, 0, 0, 0.0)
        for one in loads:
            total = Load(
                total.running + one.running,
                total.waiting + one.waiting,
                total.slots + one.slots,
                total.used_tokens + one.used_tokens,
                total.cache_tokens + one.cache_tokens,
                max(total.step_age_s, one.step_age_s),
            )
        return total


def _rest(sampling: Sampling, came: int) -> Sampling:
    """What is left of a request after so many ids of its answer."""
    return replace(sampling, max_tokens=sampling.max_tokens - came, answered=sampling.answered + came)


def _cause(error: RayTaskError) -> Exception:
    """The engine's own error, with its type."""
    return error.cause if isinstance(error.cause, CtllmError) else _lost(error)


def _lost(error: Exception) -> EngineFailed:
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return EngineFailed(f"the engine failed while it answered: {reason[:200]}", remedy="ask again")

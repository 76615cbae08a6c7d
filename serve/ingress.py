"""The HTTP side on Ray Serve: the API of app.py in replicas that hold no model, and one counter of limits for all.

Engines and HTTP are deployments of their own, since an engine's replica must be as wide as a model is and an ingress as
wide as its clients are many; and since a request can then outlive an engine's replica (engines.py).
"""

from __future__ import annotations

from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from ctllm_ray.base.errors import CtllmError
from ctllm_ray.base.serving import Serve
from ctllm_ray.tokenizer import tokenizer
from serve import app, card
from serve.engines import RemoteEngine
from serve.keys import Key, Keys
from serve.limits import Counters
from serve.served import Served


class LimitsReplica:
    """The one place that counts."""

    def __init__(self, uri: str) -> None:
        self._counters = Counters(uri)

    async def admit(self, key: Key) -> None:
        """As `Limits.admit`."""
        await self._counters.admit(key)

    async def spend(self, key: Key, tokens: int) -> None:
        """As `Limits.spend`."""
        await self._counters.spend(key, tokens)

    async def __del__(self) -> None:
        await self._counters.close()


class RemoteLimits:
    """That place, seen from an ingress. Keys without limits are not sent there."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def admit(self, key: Key) -> None:
        """As `Limits.admit`."""
        if key.requests_per_minute or key.tokens_per_day:
            try:
                await self._handle.admit.remote(key)
            except RayTaskError as error:
                raise error.cause if isinstance(error.cause, CtllmError) else error from error

    async def spend(self, key: Key, tokens: int) -> None:
        """As `Limits.spend`."""
        if key.tokens_per_day:
            await self._handle.spend.remote(key, tokens)

    async def close(self) -> None:
        """Nothing to do here: the counter saves by itself."""


@ray_serve.ingress()
class Ingress:
    """A replica of the HTTP side. `facts` is what build.py found out, as plain values."""

    def __init__(self, facts: dict[str, Any], engine: DeploymentHandle, limits: DeploymentHandle) -> None:
        serve = Serve.model_validate(facts["serve"])
        found = tokenizer.load(facts["folder"])
        self._served = Served(
            engine=RemoteEngine(engine, facts["context_tokens"], facts["vocab_size"]),
            tokenizer=found,
            card=card.read(facts["folder"], facts["model"], found, facts["context_tokens"]),
            keys=Keys(facts["keys"], serve.host),
            limits=RemoteLimits(limits),
            serve=serve,
            reports=facts["reports"],
        )

    def __serve_build_asgi_app__(self) -> Any:  # named by Ray Serve
        return app.create(self._served)

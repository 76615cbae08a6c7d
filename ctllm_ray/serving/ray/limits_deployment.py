"""The rate limits as a Ray Serve deployment with one replica, so that all ingresses share the counts.

It imports next to nothing, so that it is up in a second. Where it
dies, Ray Serve starts it again with the counts that were saved.
"""

from __future__ import annotations

from ray.serve.handle import DeploymentHandle

from ctllm_ray.serving.api.keys import ApiKey
from ctllm_ray.serving.api.rate_limits import Counters
from ctllm_ray.serving.ray.remote import persistently


class LimitsReplica:
    """The single place that counts."""

    def __init__(self, uri: str) -> None:
        self._counters = Counters(uri)

    async def admit(self, key: ApiKey) -> None:
        """As `Limits.admit`."""
        await self._counters.admit(key)

    async def reserve(self, key: ApiKey, id_: str, tokens: int) -> None:
        """As `Limits.reserve`."""
        await self._counters.reserve(key, id_, tokens)

    async def settle(self, key: ApiKey, id_: str, tokens: int) -> None:
        """As `Limits.settle`."""
        await self._counters.settle(key, id_, tokens)

    async def __del__(self) -> None:
        await self._counters.close()


class RemoteLimits:
    """The limits, called from an ingress. Keys without limits are not sent."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def admit(self, key: ApiKey) -> None:
        """As `Limits.admit`."""
        if key.requests_per_minute or key.tokens_per_day:
            await persistently(lambda: self._handle.admit.remote(key))

    async def reserve(self, key: ApiKey, id_: str, tokens: int) -> None:
        """As `Limits.reserve`."""
        if key.tokens_per_day:
            await persistently(lambda: self._handle.reserve.remote(key, id_, tokens))

    async def settle(self, key: ApiKey, id_: str, tokens: int) -> None:
        """As `Limits.settle`."""
        if key.tokens_per_day:
            await persistently(lambda: self._handle.settle.remote(key, id_, tokens))

    async def close(self) -> None:
        """Does nothing: the deployment saves by itself."""

"""The HTTP side on Ray Serve: replicas of the API without a model.

Engines and HTTP are deployments of their own, since an engine's replica must be as wide as a model is and an
ingress as wide as its clients are many; and since a request can then outlive an engine's replica
(engines.py).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from ctllm_ray.base.errors import CtllmError
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.serving.api import app
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.draining import DrainOutcome
from ctllm_ray.serving.api.keys import KeyRing
from ctllm_ray.serving.api.model_card import ModelCard
from ctllm_ray.serving.evaluations.deployment import RemoteEvaluations
from ctllm_ray.serving.ray.engine_deployments import RemoteEngine
from ctllm_ray.serving.ray.limits_deployment import RemoteLimits
from ctllm_ray.tokenizer.tokenizer import Tokenizer

OPEN_S = 10.0  # for the first contact with the engines


@serve.ingress()
class Ingress:
    """A replica of the HTTP side. `facts` holds plain values from application.py.

    Tokenizer and card come with the deployment, not from the folder: that may be replaced meanwhile.
    """

    def __init__(
        self,
        facts: dict[str, Any],
        tokenizer: Tokenizer,
        card: ModelCard,
        engine: DeploymentHandle,
        limits: DeploymentHandle,
        evaluations: DeploymentHandle | None,
    ) -> None:
        serve = Serve.model_validate(facts["serve"])
        self._served = AppState(
            engine=RemoteEngine(
                engine, facts["context_tokens"], facts["vocab_size"], may_rest=serve.replicas[0] == 0
            ),
            tokenizer=tokenizer,
            card=card,
            keys=KeyRing(facts["keys"], serve.host),
            limits=RemoteLimits(limits),
            serve=serve,
            reports=facts["reports"],
            evaluations=RemoteEvaluations(evaluations) if evaluations else None,
        )

    async def drain(self, grace_s: float) -> DrainOutcome:
        """As `Draining.drain`."""
        return await self._served.draining.drain(grace_s)

    async def __serve_build_asgi_app__(self) -> Any:  # Ray Serve calls this name
        """Returns the API once the connection to the engines is
        open: that takes seconds, and no request must wait for it."""
        with suppress(CtllmError, RayServeException, TimeoutError):  # they may start later
            async with asyncio.timeout(OPEN_S):
                await self._served.engine.load()
        return app.create(self._served)

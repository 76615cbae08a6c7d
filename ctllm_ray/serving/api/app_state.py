"""The state of the API: what it serves, and with which objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import Engine
from ctllm_ray.serving.api.draining import Draining
from ctllm_ray.serving.api.keys import KeyRing
from ctllm_ray.serving.api.model_card import ModelCard
from ctllm_ray.serving.api.rate_limits import RateLimits
from ctllm_ray.serving.api.token_names import TokenNames
from ctllm_ray.serving.evaluations.service import EvaluationService
from ctllm_ray.tokenizer.conversations import ConversationEncoder
from ctllm_ray.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class AppState:
    """What the starter of the API provides. `reports` maps `clean` and `train` to the URIs of reports."""

    engine: Engine
    tokenizer: Tokenizer
    card: ModelCard
    keys: KeyRing
    limits: RateLimits
    serve: Serve
    reports: dict[str, str] = field(default_factory=dict)
    draining: Draining = field(default_factory=Draining)
    evaluations: EvaluationService | None = None  # None if the recipe has no tasks

    @cached_property
    def pieces(self) -> TokenNames:
        """The names of tokens."""
        return TokenNames(self.tokenizer)

    @cached_property
    def conversations(self) -> ConversationEncoder:
        """The encoder of conversations."""
        return ConversationEncoder(self.tokenizer, self.card.template)

"""The section `serve` of a recipe: which model, where, and how wide. It is in no fingerprint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctllm_ray.base.recipe_training import Count, Frozen, Positive


class Serve(Frozen):
    """Settings of `ctllm serve`. The defaults suit a small model on one machine."""

    model: str = ""  # a Hugging Face Llama folder; empty: this recipe's newest export
    name: str = ""  # the model's id in the API; empty: <recipe>-<version>, or the folder's name
    host: str = "127.0.0.1"  # any other host needs at least one API key
    port: Annotated[int, Field(ge=0, le=65535)] = 8000  # 0: any free port
    # from serving/ray/engines/: our own, on CPUs and GPUs; or vLLM through Ray Serve LLM, on GPUs
    engine: str = "torch"
    precision: Literal["auto", "fp32", "bf16"] = (
        "auto"  # number type of the weights; auto: bf16 on a GPU, fp32 on a CPU
    )
    gpus: Annotated[float, Field(ge=0)] = 0  # per replica
    cpus: Annotated[float, Field(gt=0)] = 1  # per replica, in Ray's count
    threads: Annotated[int, Field(ge=0)] = 0  # per CPU replica; 0: all cores
    context_tokens: Annotated[int, Field(ge=0)] = 0  # 0: the model's
    slots: Count = 16  # requests that a replica computes together
    cache_tokens: Annotated[int, Field(ge=0)] = 0  # positions of a replica's KV cache; 0: slots x context
    # maximum prompt tokens per step, so that prompts do not delay running answers
    prefill_tokens: Count = 512
    max_waiting: Annotated[int, Field(ge=0)] = 64  # requests in a replica's queue; further ones get 429
    stuck_s: Positive = 60  # seconds without a step although there is work, until the replica is replaced
    # minimum, maximum; 0: scale to zero without requests
    replicas: tuple[Annotated[int, Field(ge=0)], Count] = (1, 1)
    target_requests: Positive = 12  # per replica, before another one starts
    idle_s: Positive = 600  # seconds without need until a replica stops
    # replicas of the HTTP side; with only one, requests wait while a dead one is replaced
    ingresses: Count = 2
    drain_s: Annotated[float, Field(ge=0)] = 30  # seconds for running requests at shutdown
    max_body_kb: Count = 1024
    log_prompts: bool = False

    def request_tokens(self, model_tokens: int) -> int:
        """Positions for a prompt and its answer, given the model's context."""
        slot = self.cache_tokens // self.slots if self.cache_tokens else model_tokens
        return min(self.context_tokens or model_tokens, model_tokens, slot)

    @model_validator(mode="after")
    def _check_order(self) -> Serve:
        if self.replicas[0] > self.replicas[1]:
            raise ValueError(f"the minimum {self.replicas[0]} is larger than the maximum {self.replicas[1]}")
        return self

"""The part of a recipe about serving: which model, where, how wide. It decides no bytes, so it is in no
fingerprint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctllm_ray.base.recipe_training import Count, Frozen, Positive


class Serve(Frozen):
    """`ctllm serve`; the defaults fit a small model on one machine."""

    model: str = ""  # a Hugging Face Llama folder; empty: this recipe's newest export
    name: str = ""  # the model's id in the API; empty: <recipe>-<version>, or the folder's name
    host: str = "127.0.0.1"  # another one needs at least one key
    port: Annotated[int, Field(ge=0, le=65535)] = 8000  # 0: a free one
    # of serving/ray/engines/: ours, on CPUs and GPUs; vLLM through Ray Serve LLM, on GPUs
    engine: str = "torch"
    precision: Literal["auto", "fp32", "bf16"] = (
        "auto"  # of the weights in memory; auto: bf16 on a GPU, fp32 on a CPU
    )
    gpus: Annotated[float, Field(ge=0)] = 0  # of each replica
    cpus: Annotated[float, Field(gt=0)] = 1  # of each replica, as Ray counts them
    threads: Annotated[int, Field(ge=0)] = 0  # of each CPU replica; 0: all cores
    context_tokens: Annotated[int, Field(ge=0)] = 0  # 0: the model's
    slots: Count = 16  # requests computed together by a replica
    cache_tokens: Annotated[int, Field(ge=0)] = 0  # positions of a replica's KV cache; 0: slots x context
    # of a step at most, so that prompts do not hold up those who are being answered
    prefill_tokens: Count = 512
    max_waiting: Annotated[int, Field(ge=0)] = 64  # requests in a replica's queue; more get 429
    stuck_s: Positive = 60  # without a step though there is work: the replica is replaced
    replicas: tuple[Annotated[int, Field(ge=0)], Count] = (1, 1)  # least, most; 0: to zero when nobody asks
    target_requests: Positive = 12  # in each replica, before another is started
    idle_s: Positive = 600  # without need before a replica is stopped
    ingresses: Count = 2  # replicas of the HTTP side; with one, requests wait while a dead one is replaced
    drain_s: Annotated[float, Field(ge=0)] = 30  # that requests under way have when the server ends
    max_body_kb: Count = 1024
    log_prompts: bool = False

    def request_tokens(self, model_tokens: int) -> int:
        """Positions of a prompt and its answer, given the model's context."""
        slot = self.cache_tokens // self.slots if self.cache_tokens else model_tokens
        return min(self.context_tokens or model_tokens, model_tokens, slot)

    @model_validator(mode="after")
    def _check_order(self) -> Serve:
        if self.replicas[0] > self.replicas[1]:
            raise ValueError(f"the least, {self.replicas[0]}, is more than the most, {self.replicas[1]}")
        return self

"""A tiny Llama with random weights, what transformers says about it, and torch engines that serve it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.decoder import Decoder
from ctllm_ray.inference.engine import Engine, Finish, Output, Sampling, Token
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.inference.weights import take
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig

#: Heads that share keys, matrices of their own for input and output; wide weights make answers that do not
#: loop.
SHAPE = ModelConfig(3, 64, 4, 2, 16, 96, 128, 96, init_std=0.2)
PLAIN = replace(SHAPE, kv_heads=4, tied=True)
GREEDY = Sampling(max_tokens=12, temperature=0.0)


def model(shape: ModelConfig = SHAPE) -> LlamaForCausalLM:
    built = llama.build(shape, seed=3).eval()
    built.set_attn_implementation("sdpa")  # transformers' own, which knows a cache
    return built


def decoder(shape: ModelConfig = SHAPE, slots: int = 4, context_tokens: int = 0) -> Decoder:
    context = context_tokens or shape.context_tokens
    return Decoder(take(model(shape), shape, context, torch.device("cpu"), torch.float32), slots, context)


@contextmanager
def engine(shape: ModelConfig = SHAPE, context_tokens: int = 0, **serve: Any) -> Iterator[TorchEngine]:
    """An engine with 4 slots and small chunks of prompts."""
    settings = Serve(**{"slots": 4, "prefill_tokens": 16} | serve)
    opened = TorchEngine(decoder(shape, settings.slots, context_tokens), settings)
    try:
        yield opened
    finally:
        opened.close()


def prompts(count: int, least: int = 1, most: int = 40, seed: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, SHAPE.vocab_size, draw.integers(least, most + 1)).tolist() for _ in range(count)]


@torch.no_grad()
def expected(ids: Sequence[int], tokens: int, shape: ModelConfig = SHAPE) -> list[int]:
    """What transformers answers."""
    given = torch.tensor([list(ids)])
    all_ids = torch.ones_like(given)  # else it takes id 0 for padding
    found = model(shape).generate(
        given,
        attention_mask=all_ids,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return found[0, len(ids) :].tolist()


@torch.no_grad()
def expected_logprobs(ids: Sequence[int], shape: ModelConfig = SHAPE) -> torch.Tensor:
    """What transformers says about each next id, [T, V] in nats."""
    return model(shape)(torch.tensor([list(ids)])).logits[0].log_softmax(-1)


async def collect(engine: Engine, ids: Sequence[int], sampling: Sampling = GREEDY) -> list[Output]:
    return [output async for output in engine.generate(ids, sampling)]


def ids_of(outputs: Sequence[Output]) -> list[int]:
    return [token.id for token in tokens_of(outputs)]


def tokens_of(outputs: Sequence[Output]) -> list[Token]:
    return [token for output in outputs for token in output.tokens]


def finish_of(outputs: Sequence[Output]) -> Finish:
    return outputs[-1].finish


def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Results of coroutines that run side by side."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*work)

    return asyncio.run(gather())

"""Tokens per second on a CPU: our engine with 1 and 16 clients, transformers one at a time and in static
batches.

    python benchmarks/serve_engine.py --rounds 3
    python benchmarks/serve_engine.py --only prefix

The 25M size with random weights in fp32, greedy, prompts of 16 to 112 tokens, 64 new tokens each; clients ask
again as soon as they are answered. All contenders run in one process, in turn, for a number of rounds; ratios
are taken within a round. `static 16` is `transformers.generate` over 16 left-padded prompts, the best case of
a batch: all begin and end together.

`prefix` asks 32 prompts of 1,000 shared tokens and 8 of their own for 16 tokens, then 32 that are equally
long and share nothing (their first token differs).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.decoder import Decoder
from ctllm_ray.inference.engine import Sampling
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.inference.weights import take
from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES

CLIENTS, NEW_TOKENS = 16, 64
SHARED_TOKENS, OWN_TOKENS, PREFIX_REQUESTS, PREFIX_NEW_TOKENS = 1000, 8, 32, 16
CONFIG = SIZES["25m"]
Prompts = Sequence[Sequence[int]]


def prompts(count: int, seed: int) -> list[list[int]]:
    """Random ids, 16 to 112 of them."""
    draw = np.random.default_rng(seed)
    return [draw.integers(3, CONFIG.vocab_size, draw.integers(16, 113)).tolist() for _ in range(count)]


@torch.inference_mode()
def one_at_a_time(model: LlamaForCausalLM, asked: Prompts) -> float:
    """Seconds of `transformers.generate`, prompt after prompt."""
    began = time.perf_counter()
    for ids in asked:
        out = model.generate(torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        assert out.shape[1] == len(ids) + NEW_TOKENS
    return time.perf_counter() - began


@torch.inference_mode()
def static_batch(model: LlamaForCausalLM, asked: Prompts) -> float:
    """Seconds of `transformers.generate` over batches of 16."""
    began = time.perf_counter()
    for start in range(0, len(asked), CLIENTS):
        batch = asked[start : start + CLIENTS]
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        model.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    return time.perf_counter() - began


async def ask(engine: TorchEngine, ids: Sequence[int], tokens: int) -> float:
    """Seconds to the first token of a request that is answered whole."""
    began, first = time.perf_counter(), 0.0
    async for _ in engine.generate(ids, Sampling(max_tokens=tokens, temperature=0.0)):
        first = first or time.perf_counter() - began
    return first


async def clients(
    engine: TorchEngine, asked: Prompts, count: int, tokens: int = NEW_TOKENS
) -> tuple[float, list[float]]:
    """Seconds until so many clients have had all prompts answered, and to the first token of each."""
    left, firsts = iter(asked), []

    async def client() -> None:
        for ids in left:
            firsts.append(await ask(engine, ids, tokens))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(count)))
    return time.perf_counter() - began, firsts


def opened(slots: int = CLIENTS) -> TorchEngine:
    """The engine over the same weights."""
    weights = take(llama.build(CONFIG, 0), CONFIG, CONFIG.context_tokens, torch.device("cpu"), torch.float32)
    return TorchEngine(Decoder(weights, slots, CONFIG.context_tokens), Serve(slots=slots))


def throughput(rounds: int, requests: int) -> None:
    """Prints tokens per second of all, and ratios to one at a time."""
    model, engine = llama.build(CONFIG, 0).eval(), opened()
    model.set_attn_implementation("sdpa")
    one_at_a_time(model, prompts(1, 99))
    asyncio.run(clients(engine, prompts(CLIENTS, 99), CLIENTS))
    speeds: dict[str, list[float]] = {}
    ttft: list[float] = []
    for number in range(rounds):
        few, many = prompts(max(4, requests // 8), 2 * number), prompts(requests, 2 * number + 1)
        seconds = {
            "transformers, one at a time": (one_at_a_time(model, few), len(few)),
            "transformers, static 16": (static_batch(model, many), len(many)),
            "ours, 1 client": (asyncio.run(clients(engine, few, 1))[0], len(few)),
        }
        taken, firsts = asyncio.run(clients(engine, many, CLIENTS))
        seconds["ours, 16 clients"] = taken, len(many)
        ttft += firsts
        for name, (elapsed, count) in seconds.items():
            speeds.setdefault(name, []).append(count * NEW_TOKENS / elapsed)
    base = speeds["transformers, one at a time"]
    for name, found in speeds.items():
        ratios = [mine / its for mine, its in zip(found, base, strict=True)]
        print(
            f"{name:30s}{statistics.median(found):9,.0f} tokens/s {statistics.median(ratios):8.2f} x", end=""
        )
        print(f" ({min(ratios):.2f}-{max(ratios):.2f})")
    ttft.sort()
    print(f"TTFT with 16 clients: p50 {ttft[len(ttft) // 2]:.3f} s, p99 {ttft[int(len(ttft) * 0.99)]:.3f} s")
    engine.close()


def prefix(rounds: int) -> None:
    """Prints seconds with and without a shared prefix."""
    engine, ratios = opened(), []
    asyncio.run(clients(engine, prompts(CLIENTS, 99), CLIENTS))
    for number in range(rounds):
        draw = np.random.default_rng(number)
        shared = draw.integers(3, CONFIG.vocab_size, SHARED_TOKENS).tolist()
        reused = [
            [*shared, *draw.integers(3, CONFIG.vocab_size, OWN_TOKENS).tolist()]
            for _ in range(PREFIX_REQUESTS)
        ]
        alone = [[100 * number + n, *ids[1:]] for n, ids in enumerate(reused)]
        without, _ = asyncio.run(clients(engine, alone, PREFIX_REQUESTS, PREFIX_NEW_TOKENS))
        with_, _ = asyncio.run(clients(engine, reused, PREFIX_REQUESTS, PREFIX_NEW_TOKENS))
        ratios.append(without / with_)
        print(f"prefix: {without:.2f} s without reuse, {with_:.2f} s with it: {ratios[-1]:.2f} x", flush=True)
    print(f"prefix reuse: {statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f})")
    engine.close()


def main() -> None:
    """Runs both parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["throughput", "prefix"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.only != "prefix":
        throughput(given.rounds, given.requests)
    if given.only != "throughput":
        prefix(given.rounds)


if __name__ == "__main__":
    main()

"""Serving speed on one GPU: tokens per second of CT-LLM 2B with one stream and with 256, and time to first
token.

    python benchmarks/serve_gpu.py
    python benchmarks/serve_gpu.py --size tiny --device cpu --streams 8    # a dry run anywhere

It needs torch, transformers and the repository it lies in; weights are random, in bf16 on a GPU. Prompts of
256 tokens that share nothing, 256 new tokens, greedy; each figure after one run that is not counted. One
stream is bound by reading the weights: 3.75 GB a token, so 1,280 tokens/s at the 4.8 TB/s of an H200.
`--profile` prints the operations that took longest.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import numpy as np
import torch
from serve_engine import clients

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.decoder import Decoder
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.inference.weights import take
from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES, kv_bytes_per_token, parameters

PROMPT_TOKENS, NEW_TOKENS = 256, 256
TTFT_CLIENTS, TTFT_PROMPT_TOKENS = 32, 512


def opened(options: argparse.Namespace) -> TorchEngine:
    """The engine with random weights and as many slots as there are streams at most."""
    config, device = SIZES[options.size], torch.device(options.device)
    context = min(config.context_tokens, TTFT_PROMPT_TOKENS + NEW_TOKENS)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = llama.empty(config)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for (
            parameter
        ) in model.parameters():  # one after another from one generator: exactness is no matter here
            parameter.fill_(1.0) if parameter.dim() == 1 else parameter.normal_(
                0, config.init_std, generator=draw
            )
    decoder = Decoder(take(model, config, context, device, dtype), options.streams, context)
    settings = Serve(
        slots=options.streams, prefill_tokens=options.prefill_tokens, max_waiting=options.streams
    )
    cache = options.streams * context * kv_bytes_per_token(config, dtype.itemsize)
    print(
        f"{options.size}: {parameters(config):,} parameters in {dtype}, {cache / 1e9:.1f} GB of cache",
        flush=True,
    )
    return TorchEngine(decoder, settings)


def run(
    engine: TorchEngine, count: int, prompt_tokens: int, requests: int, seed: int
) -> tuple[float, list[float]]:
    """Output tokens per second, and the seconds to each first token, rising."""
    draw = np.random.default_rng(seed)
    asked = draw.integers(3, engine.vocab_size, (requests, prompt_tokens)).tolist()
    new = min(NEW_TOKENS, engine.context_tokens - prompt_tokens)
    seconds, firsts = asyncio.run(clients(engine, asked, count, new))
    return requests * new / seconds, sorted(firsts)


def measure(engine: TorchEngine, options: argparse.Namespace) -> None:
    """Prints the figures."""
    prompt = min(PROMPT_TOKENS, engine.context_tokens // 2)
    for count in dict.fromkeys([1, min(32, options.streams), options.streams]):
        run(engine, count, prompt, count, seed=count)
        speed, firsts = run(engine, count, prompt, 2 * count, seed=1000 + count)
        print(
            f"{count:4d} streams: {speed:10,.0f} tokens/s, first token p50 {firsts[len(firsts) // 2]:.3f} s",
            flush=True,
        )
    long = min(TTFT_PROMPT_TOKENS, engine.context_tokens * 2 // 3)
    _, firsts = run(engine, min(TTFT_CLIENTS, options.streams), long, 8 * TTFT_CLIENTS, seed=5)
    p50, p99 = firsts[len(firsts) // 2], firsts[int(len(firsts) * 0.99)]
    print(f"first token at {TTFT_CLIENTS} streams, prompts of {long}: p50 {p50:.3f} s, p99 {p99:.3f} s")


def profile(engine: TorchEngine, device: str) -> None:
    """Prints what a step with one stream spends its time on."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.startswith("cuda"):
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        run(engine, 1, min(PROMPT_TOKENS, engine.context_tokens // 2), 1, seed=77)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


def main() -> None:
    """Opens the engine and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="ct_llm_2b", choices=list(SIZES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--prefill-tokens", type=int, default=4096)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(f"{name}, torch {torch.__version__}")
    began = time.perf_counter()
    engine = opened(options)
    print(f"opened in {time.perf_counter() - began:.0f} s", flush=True)
    measure(engine, options)
    if options.profile:
        profile(engine, options.device)
    engine.close()


if __name__ == "__main__":
    main()

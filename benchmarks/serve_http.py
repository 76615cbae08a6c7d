"""What HTTP and Ray Serve cost: 16 clients of the engine called directly, of the API in one process, and on
Ray Serve.

    python benchmarks/serve_http.py --rounds 3
    python benchmarks/serve_http.py --rounds 3 --peers     # `transformers serve` too, plain and batching

The 25M size with random weights in fp32 and a vocabulary of the tokenizer's size, greedy, prompts of 16 to
112 ids, 64 new tokens each, streamed; clients ask again as soon as they are answered. All are up at the same
time and take turns (an engine without requests costs nothing); ratios are taken within a round. The clients
run in this process. transformers is given the same prompts as text, and half as many of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import Sampling
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES
from ctllm_ray.ray_session import session
from ctllm_ray.serving.api import model_card
from ctllm_ray.serving.api.app import create
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.keys import KeyRing
from ctllm_ray.serving.api.rate_limits import Counters
from ctllm_ray.serving.ray import application
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train

CLIENTS, NEW_TOKENS = 16, 64
Ask = Callable[[Sequence[int]], AsyncIterator[int]]  # numbers of tokens as they come


def write_model(folder: Path) -> SentencePiece:
    """The model's folder, and its tokenizer."""
    draw = random.Random(0)
    texts = ["".join(chr(draw.randrange(0x4E00, 0x5E00)) for _ in range(200)) for _ in range(2000)]
    tokenizer = SentencePiece(train(texts, 8192))
    shape = replace(SIZES["25m"], vocab_size=tokenizer.vocab_size)
    hugging_face.save_model(llama.build(shape, 0), shape, str(folder))
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return tokenizer


def directly(engine: TorchEngine) -> Ask:
    """Of the engine."""

    async def ask(ids: Sequence[int]) -> AsyncIterator[int]:
        async for output in engine.generate(ids, Sampling(max_tokens=NEW_TOKENS, temperature=0.0)):
            yield len(output.tokens)

    return ask


def over_http(url: str) -> Ask:
    """Of our API; its usage tells the tokens."""
    ours = {"model": "m", "ignore_eos": True, "stream_options": {"include_usage": True}}
    return _streamed(url, lambda ids: ours | {"prompt": list(ids), "temperature": 0})


def transformers_over_http(url: str, folder: str, tokenizer: SentencePiece) -> Ask:
    """Of `transformers serve`, which takes text."""
    return _streamed(url, lambda ids: {"model": folder, "prompt": tokenizer.decode(list(ids))})


def _streamed(url: str, body: Callable[[Sequence[int]], dict[str, Any]]) -> Ask:
    """A client that costs next to nothing, since it shares the cores: a socket, and no event is parsed but
    the last."""
    host, _, port = url.removeprefix("http://").rpartition(":")

    async def ask(ids: Sequence[int]) -> AsyncIterator[int]:
        asked = json.dumps(body(ids) | {"max_tokens": NEW_TOKENS, "stream": True}).encode()
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(asked)}\r\nConnection: close\r\n\r\n".encode() + asked)
        answer = b""
        while piece := await reader.read(1 << 16):
            answer += piece
            if b'"text"' in piece:
                yield 0
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:500].decode(errors="replace"))
        yield int(re.findall(rb'"completion_tokens": ?(\d+)', answer)[-1])

    return ask


async def clients(ask: Ask, asked: Sequence[Sequence[int]]) -> tuple[float, list[float]]:
    """Tokens per second of all clients together, and seconds to the first piece of each answer."""
    left, firsts, tokens = iter(asked), [], 0

    async def client() -> None:
        nonlocal tokens
        for ids in left:
            began, first = time.perf_counter(), 0.0
            async for count in ask(ids):
                first = first or time.perf_counter() - began
                tokens += count
            firsts.append(first)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return tokens / (time.perf_counter() - began), firsts


def in_this_process(served: AppState, open_: ExitStack) -> str:
    """The URL of the API in a thread of this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create(served), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    open_.callback(thread.join)
    open_.callback(setattr, server, "should_exit", True)
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def transformers_serve(folder: str, *options: str) -> Iterator[str]:
    """The URL of `transformers serve` with the model loaded."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = [str(Path(sys.executable).parent / "transformers"), "serve", folder, "--device", "cpu"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", port, "--log-level", "error", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health", timeout=5).is_success:
                    break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


async def measure(ways: dict[str, Ask], vocabulary: int, rounds: int, requests: int) -> None:
    """Prints speeds, ratios to the first way, and times to the first token."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        draw = random.Random(number)
        asked = [
            [draw.randrange(300, vocabulary) for _ in range(draw.randint(16, 112))] for _ in range(requests)
        ]
        for name in ways if number % 2 else reversed(ways):
            share = 2 if name.startswith("transformers") else 1
            speed, times = await clients(
                ways[name], asked[: len(asked) // share] if number >= 0 else asked[:CLIENTS]
            )
            if number >= 0:  # the first round warms up
                speeds[name].append(speed)
                firsts[name] += times
    base = next(iter(speeds.values()))
    for name, found in speeds.items():
        ratios = [mine / its for mine, its in zip(found, base, strict=True)]
        ordered = sorted(firsts[name])
        print(
            f"{name:30s}{statistics.median(found):7,.0f} tokens/s {statistics.median(ratios):7.3f} x "
            f"({min(ratios):.3f}-{max(ratios):.3f})  first token p50 {ordered[len(ordered) // 2]:.3f} s, "
            f"p99 {ordered[int(len(ordered) * 0.99)]:.3f} s"
        )


def main() -> None:
    """Rounds of all ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--peers", action="store_true", help="transformers serve too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-http-") as place, ExitStack() as open_:
        root = Path(place)
        (root / "model").mkdir()
        tokenizer = write_model(root / "model")
        serve = Serve(model=str(root / "model"), name="m", port=0)
        engine = TorchEngine.open(serve.model, serve)
        open_.callback(engine.close)
        told = model_card.read_card(serve.model, "m", tokenizer, engine.context_tokens)
        served = AppState(engine, tokenizer, told, KeyRing(str(root / "none.json")), Counters(), serve)
        plain = {
            "name": "b",
            "version": "1",
            "seed": 0,
            "root": str(root),
            "stages": [],
            "serve": serve.model_dump(),
        }
        plain["data"] = {"inputs": [{"use": "jsonl", "path": "nowhere/*"}], "max_error_share": 0}
        open_.enter_context(session(2, 128))
        on_ray = open_.enter_context(application.serving(recipes.parse_recipe(plain)))
        here = in_this_process(served, open_)
        options = {"": [], ", batching": ["--continuous-batching"]} if given.peers else {}
        peers = {
            f"transformers serve{name}": open_.enter_context(transformers_serve(serve.model, *extra))
            for name, extra in options.items()
        }

        async def run() -> None:
            ways = {
                "engine": directly(engine),
                "API, one process": over_http(here),
                "API on Ray Serve": over_http(on_ray),
            }
            for name, url in peers.items():
                ways[name] = transformers_over_http(url, serve.model, tokenizer)
            await measure(ways, tokenizer.vocab_size, given.rounds, given.requests)

        torch.set_num_threads(2)
        asyncio.run(run())


if __name__ == "__main__":
    main()

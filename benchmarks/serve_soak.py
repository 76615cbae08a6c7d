"""Minutes under load: 64 clients, a replica of the engine killed again and again; errors, and memory over
time.

    python benchmarks/serve_soak.py --minutes 5

A small model with random weights on Ray Serve, two replicas. Half of the clients stream, half do not, and one
in ten of the streams is left by its client. Every answer that is not left must be whole and equal to the one
of a quiet server (greedy), however many replicas die meanwhile. Memory is the resident set of all processes
that serve, in MB; replicas that were just born are counted like the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctllm_ray.base import recipe as recipes
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.ray_session import session
from ctllm_ray.serving.ray import application
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train

CLIENTS, PROMPTS = 64, 200
SHAPE = ModelConfig(2, 64, 4, 4, 16, 128, 1024, 256, tied=True, init_std=0.2)


def write_model(folder: Path) -> list[str]:
    """The model's folder, and prompts."""
    draw = random.Random(0)
    texts = ["".join(chr(draw.randrange(0x4E00, 0x4F00)) for _ in range(60)) for _ in range(2000)]
    tokenizer = SentencePiece(train(texts, SHAPE.vocab_size))
    hugging_face.save_model(llama.build(SHAPE, 0), SHAPE, str(folder), dtype=torch.float32)
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return [text[: draw.randint(4, 40)] for text in texts[:PROMPTS]]


def serving_processes() -> Iterator[psutil.Process]:
    """All processes of the Ray that this one started."""
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::" in " ".join(process.cmdline()):
                yield process
        except psutil.Error:
            continue


def memory_mb() -> float:
    """Resident memory of what serves."""
    return sum(process.memory_info().rss for process in serving_processes() if process.is_running()) / 2**20


def kill_one() -> bool:
    """Kills a replica of the engine, if one is up."""
    replicas = [p for p in serving_processes() if "ServeReplica:ctllm:engine" in " ".join(p.cmdline())]
    if replicas:
        random.choice(replicas).send_signal(signal.SIGKILL)
    return bool(replicas)


class Load:
    """What the clients saw."""

    def __init__(self, url: str, prompts: list[str]) -> None:
        self.url, self.prompts = url, prompts
        self.seen: Counter[str] = Counter()
        self.expected: dict[str, str] = {}

    async def one(self, client: httpx.AsyncClient, draw: random.Random) -> str:
        """A request, and how it went."""
        prompt = draw.choice(self.prompts)
        asked = {"model": "soak", "prompt": prompt, "max_tokens": 48, "temperature": 0, "ignore_eos": True}
        streams, leaves = draw.random() < 0.5, draw.random() < 0.1
        if not streams:
            answer = await client.post(f"{self.url}/v1/completions", json=asked)
            if answer.status_code != 200:
                return f"status {answer.status_code}"
            return self._judged(prompt, answer.json()["choices"][0]["text"])
        text, ended = "", False
        async with client.stream(
            "POST", f"{self.url}/v1/completions", json=asked | {"stream": True}
        ) as events:
            if events.status_code != 200:
                return f"status {events.status_code}"
            async for line in events.aiter_lines():
                ended = ended or line == "data: [DONE]"
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        return "error event"
                    text += "".join(choice["text"] for choice in event["choices"])
                    if leaves:
                        return "left"
        return self._judged(prompt, text) if ended else "cut off"

    def _judged(self, prompt: str, text: str) -> str:
        return "whole" if self.expected.setdefault(prompt, text) == text else "another text"

    async def client(self, number: int, until: float) -> None:
        """Asks again as soon as it is answered."""
        draw = random.Random(number)
        async with httpx.AsyncClient(timeout=300) as client:
            while time.monotonic() < until:
                try:
                    self.seen[await self.one(client, draw)] += 1
                except httpx.HTTPError as error:
                    self.seen[type(error).__name__] += 1


async def watch(load: Load, until: float, kill_s: float) -> None:
    """A line every ten seconds; a replica is killed every `kill_s`."""
    killed, began, next_kill = 0, time.monotonic(), time.monotonic() + kill_s
    while time.monotonic() < until:
        await asyncio.sleep(10)
        if time.monotonic() > next_kill:
            killed += await asyncio.to_thread(kill_one)
            next_kill += kill_s
        memory = await asyncio.to_thread(memory_mb)
        seconds = time.monotonic() - began
        print(f"{seconds:5.0f} s  {memory:7.0f} MB  {killed} killed  {dict(load.seen)}", flush=True)


async def soak(url: str, prompts: list[str], minutes: float, kill_s: float) -> None:
    """All clients, until the time is over; first every prompt is answered in quiet."""
    load = Load(url, prompts)
    async with httpx.AsyncClient(timeout=300) as client:
        for prompt in prompts:
            asked = {
                "model": "soak",
                "prompt": prompt,
                "max_tokens": 48,
                "temperature": 0,
                "ignore_eos": True,
            }
            answer = (await client.post(f"{url}/v1/completions", json=asked)).raise_for_status()
            load.expected[prompt] = answer.json()["choices"][0]["text"]
    until = time.monotonic() + minutes * 60
    await asyncio.gather(
        watch(load, until, kill_s), *(load.client(number, until) for number in range(CLIENTS))
    )
    answered = sum(load.seen.values())
    print(f"{answered:,} requests, {answered / minutes / 60:.1f}/s: {dict(load.seen)}")


def main() -> None:
    """Serves and soaks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--kill-s", type=float, default=60, help="seconds between kills")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-soak-") as place:
        folder = Path(place) / "model"
        folder.mkdir()
        prompts = write_model(folder)
        settings = {"model": str(folder), "name": "soak", "port": 0, "threads": 1, "replicas": [2, 2]}
        plain = {"name": "b", "version": "1", "seed": 0, "root": place, "stages": [], "serve": settings}
        plain["data"] = {"inputs": [{"use": "jsonl", "path": "nowhere/*"}], "max_error_share": 0}
        with session(2, 128), application.serving(recipes.parse_recipe(plain)) as url:
            asyncio.run(soak(url, prompts, given.minutes, given.kill_s))


if __name__ == "__main__":
    main()

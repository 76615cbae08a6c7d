"""Prometheus metrics: how long clients wait, and whether for the engine or for the API.

`ctllm_engine_seconds` is the time in which a request waited for the engine,
`ctllm_framework_seconds` all the rest of it: parsing, keys, tokenizing, writing, and a client that
reads slowly. Labels never hold what a client sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ctllm_ray.inference.engine import EngineLoad

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
FRAMEWORK_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 10)


class Metrics:
    """One registry per app, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ctllm_requests",
            "Finished requests by status (499: the client disconnected)",
            ("path", "status"),
            registry=registry,
        )
        self.ttft = Histogram(
            "ctllm_time_to_first_token_seconds",
            "Time to the first token",
            buckets=SECONDS,
            registry=registry,
        )
        self.token = Histogram(
            "ctllm_time_per_output_token_seconds",
            "Time between tokens",
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.engine = Histogram(
            "ctllm_engine_seconds",
            "Time per request spent waiting for the engine",
            buckets=SECONDS,
            registry=registry,
        )
        self.framework = Histogram(
            "ctllm_framework_seconds",
            "Time per request spent outside the engine",
            buckets=FRAMEWORK_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "ctllm_tokens", "Tokens by kind: prompt, cached, answer", ("kind",), registry=registry
        )
        self._up = Gauge("ctllm_engine_up", "1 if the engine works", registry=registry)
        facts = {
            "running": "Running requests, that is, the batch size",
            "waiting": "Waiting requests",
            "slots": "Maximum number of running requests",
            "used_tokens": "KV cache positions in use",
            "cache_tokens": "All KV cache positions",
            "refusing": "Replicas that refuse to serve because the model's folder was replaced",
            "step_age_s": "Seconds since the last step of the engine; 0 if there is no work",
        }
        self._load = {name: Gauge(f"ctllm_{name}", text, registry=registry) for name, text in facts.items()}

    def page(self, load: EngineLoad | None) -> bytes:
        """All metrics as text. `load` is the engine's load; None if it does not answer."""
        self._up.set(load is not None)
        for name, gauge in self._load.items():
            gauge.set(getattr(load, name) if load else 0)
        return generate_latest(self._registry)


class Watch:
    """The timer of one request, from its arrival (`time.perf_counter`)."""

    def __init__(self, metrics: Metrics, arrived: float) -> None:
        self.arrived, self.engine_s = arrived, 0.0
        self._metrics = metrics
        self._waiting, self._since = 0, 0.0  # choices that wait for the engine, and since when

    @contextmanager
    def engine(self) -> Iterator[None]:
        """Context of a wait for the engine. Choices that wait together count once."""
        if not self._waiting:
            self._since = time.perf_counter()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.engine_s += time.perf_counter() - self._since

    def came(self, tokens: int, last: float) -> float:
        """Records new tokens of a choice and returns the time. `last` is the time of the
        previous tokens, 0 for the first."""
        now = time.perf_counter()
        if not last:
            self._metrics.ttft.observe(now - self.arrived)
        else:
            for _ in range(tokens):
                self._metrics.token.observe((now - last) / tokens)
        return now

    def count_answer(self, prompt: int, cached: int, answer: int) -> None:
        """Records the tokens of an answer, however it ended."""
        self._metrics.engine.observe(self.engine_s)
        self._metrics.framework.observe(max(time.perf_counter() - self.arrived - self.engine_s, 0.0))
        for kind, count in (("prompt", prompt), ("cached", cached), ("answer", answer)):
            self._metrics.tokens.labels(kind).inc(count)

"""What operators watch, in Prometheus' format: how long clients wait, and whether for the engine or for us.

`ctllm_engine_seconds` is the time in which a request waited for the engine, `ctllm_framework_seconds` all the
rest of it: parsing, keys, tokenizing, writing, and a client that reads slowly. Labels never hold what a
client sent.
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
    """One registry for each app, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ctllm_requests",
            "Requests that ended (499: the client went away)",
            ("path", "status"),
            registry=registry,
        )
        self.ttft = Histogram(
            "ctllm_time_to_first_token_seconds",
            "From arrival to the first token",
            buckets=SECONDS,
            registry=registry,
        )
        self.token = Histogram(
            "ctllm_time_per_output_token_seconds",
            "Of each token after an answer's first",
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.engine = Histogram(
            "ctllm_engine_seconds", "Of a request: waiting for the engine", buckets=SECONDS, registry=registry
        )
        self.framework = Histogram(
            "ctllm_framework_seconds",
            "Of a request: all the rest",
            buckets=FRAMEWORK_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "ctllm_tokens", "Tokens by kind: prompt, cached, answer", ("kind",), registry=registry
        )
        self._up = Gauge("ctllm_engine_up", "1 where the engine works", registry=registry)
        facts = {
            "running": "Requests computed together: the batch size",
            "waiting": "Requests in the queue",
            "slots": "Requests that can be computed together",
            "used_tokens": "Positions of the KV cache in use",
            "cache_tokens": "Positions of the KV cache",
            "refusing": "Replicas that answer nobody, since their model's folder was replaced",
            "step_age_s": "Seconds since the engine's last step; 0 where there is nothing to do",
        }
        self._load = {name: Gauge(f"ctllm_{name}", text, registry=registry) for name, text in facts.items()}

    def page(self, load: EngineLoad | None) -> bytes:
        """All of them as text; `load` is the engine's, None where it does not answer."""
        self._up.set(load is not None)
        for name, gauge in self._load.items():
            gauge.set(getattr(load, name) if load else 0)
        return generate_latest(self._registry)


class Watch:
    """The clock of one request, from when it arrived (`time.perf_counter`)."""

    def __init__(self, metrics: Metrics, arrived: float) -> None:
        self.arrived, self.engine_s = arrived, 0.0
        self._metrics = metrics
        self._waiting, self._since = 0, 0.0  # choices that wait for the engine; since when one does

    @contextmanager
    def engine(self) -> Iterator[None]:
        """Around each wait for the engine; choices that wait together count once."""
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
        """The time, when tokens of a choice have come; `last` is that of those before them, 0 for the first
        ones."""
        now = time.perf_counter()
        if not last:
            self._metrics.ttft.observe(now - self.arrived)
        else:
            for _ in range(tokens):
                self._metrics.token.observe((now - last) / tokens)
        return now

    def count_answer(self, prompt: int, cached: int, answer: int) -> None:
        """After an answer, however it ended, with its tokens."""
        self._metrics.engine.observe(self.engine_s)
        self._metrics.framework.observe(max(time.perf_counter() - self.arrived - self.engine_s, 0.0))
        for kind, count in (("prompt", prompt), ("cached", cached), ("answer", answer)):
            self._metrics.tokens.labels(kind).inc(count)

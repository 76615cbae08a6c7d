"""Continuous batching in PyTorch: one thread computes steps, callers await tokens in their event loops.

Requests come and go between steps (steps.py). One lock guards what both sides touch, and is
held for microseconds. A second thread looks whether steps still end, for a step that never
does cannot tell about itself.

On a CPU a step of a small model is bound by reading weights and by the number of torch operations, not by
arithmetic: 16 requests in one step take little longer than one (benchmarks/serve_engine.py).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import torch

from ctllm_ray.base.errors import EngineFailed, InputError, Overloaded
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.decoder import Decoder
from ctllm_ray.inference.engine import EngineLoad, Output, Sampling, Token
from ctllm_ray.inference.requests import Delivery, GenerateRequest, Inbox, Request, ScoreRequest, deliver
from ctllm_ray.inference.sampling import Chooser, Matcher
from ctllm_ray.inference.steps import Steps
from ctllm_ray.inference.weights import take
from ctllm_ray.model import llama
from ctllm_ray.model.config import of_folder

#: If a step never ends, its thread is abandoned after this time; it is a daemon.
_JOIN_S = 10.0


class GrammarSource(Protocol):
    """Makes matchers; implemented in grammar.py."""

    def matcher(self, schema: str, stop_ids: Sequence[int]) -> Matcher: ...


class TorchEngine:
    """An `Engine` in this process. It owns a thread: `close` it."""

    def __init__(self, decoder: Decoder, serve: Serve, grammars: GrammarSource | None = None) -> None:
        self.context_tokens, self.vocab_size = decoder.context_tokens, decoder.config.vocab_size
        self._decoder, self._serve, self._grammars = decoder, serve, grammars
        self._work = threading.Condition()  # guards everything below
        self._steps = Steps(decoder, serve.prefill_tokens)
        self._failure = ""  # why the engine stopped
        self._since = time.monotonic()  # when the last step ended, or an idle engine got work
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._compute, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, folder: str, serve: Serve, grammars: GrammarSource | None = None) -> TorchEngine:
        """Opens an engine for the model in a folder. Raises `InputError` if the model does
        not load or no GPU exists."""
        config = of_folder(folder)
        device = _device(serve)
        if device.type == "cpu":  # Ray would limit a replica to its number of CPUs in Ray's count
            torch.set_num_threads(serve.threads or os.cpu_count() or 1)
        bf16 = serve.precision == "bf16" or (serve.precision == "auto" and device.type == "cuda")
        context = serve.request_tokens(config.context_tokens)
        dtype = torch.bfloat16 if bf16 else torch.float32
        weights = take(llama.load(folder), config, context, device, dtype)
        decoder = Decoder(weights, serve.slots, context)
        return cls(decoder, serve, grammars)

    def close(self) -> None:
        """Ends the thread. Waiting callers get `EngineFailed`."""
        with self._work:
            self._closed.set()
            self._fail("the engine was closed")
            self._work.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_S)

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """Generates the answer to a prompt; see `Engine`."""
        self._check(ids, self.context_tokens - 1)
        chooser = Chooser(sampling, ids, await self._matcher(sampling))
        room = min(sampling.max_tokens, self.context_tokens - len(ids))
        if room < 1:
            raise InputError(
                "the request asks for less than one token",
                where="max_tokens",
                remedy="set max_tokens to at least 1",
            )
        request = GenerateRequest(ids, Inbox(), chooser, room)
        self._submit(request)
        try:
            tokens, finish = await request.inbox.take()
            yield Output(tokens, finish, request.cached_tokens)
            while not finish:
                tokens, finish = await request.inbox.take()
                yield Output(tokens, finish)
        finally:
            self._cancel(request)

    async def logprobs(
        self, ids: Sequence[int], start: int = 1, top: int = 0, others: Sequence[int] = ()
    ) -> list[Token]:
        """Scores the ids from `start` on; see `Engine`."""
        self._check(ids, self.context_tokens)
        self._check_known(others)
        if start < 1:
            raise InputError(
                f"log-probabilities cannot start at id {start}: the first id has no context",
                where="start",
                remedy="start at 1 or later",
            )
        if start >= len(ids):
            return []
        request = ScoreRequest(ids, Inbox(), start, top, others)
        self._submit(request)
        try:
            result: list[Token] = []
            finish = ""
            while not finish:
                tokens, finish = await request.inbox.take()
                result += tokens
            return result
        finally:
            self._cancel(request)

    async def load(self) -> EngineLoad:
        """The current load; see `Engine`."""
        with self._work:
            self._fail_if_stuck()
            self._raise_failure()
            slots = self._steps.slots
            return EngineLoad(
                running=len(self._steps.running),
                waiting=len(self._steps.waiting),
                slots=slots.count,
                used_tokens=slots.used_tokens,
                cache_tokens=slots.count * self.context_tokens,
                step_age_s=self._age_s(),
            )

    def _check(self, ids: Sequence[int], most: int) -> None:
        """Raises `InputError` if the prompt is empty or too long."""
        if not 0 < len(ids) <= most:
            what = (
                f"the prompt has {len(ids)} tokens; prompt and answer must fit the context "
                f"of {self.context_tokens} tokens"
            )
            raise InputError(
                what, where="prompt", remedy="send at least one token and fewer than the context"
            )
        self._check_known(ids)

    def _check_known(self, ids: Sequence[int]) -> None:
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(id_ for id_ in ids if not 0 <= id_ < self.vocab_size)
            what = f"id {wrong} is not in the vocabulary of {self.vocab_size} ids"
            raise InputError(what, where="prompt", remedy="encode with the model's own tokenizer")

    async def _matcher(self, sampling: Sampling) -> Matcher | None:
        if not sampling.grammar:
            return None
        if self._grammars is None:
            raise InputError(
                "this engine does not support JSON schemas", remedy="send the request without a JSON schema"
            )
        return await asyncio.to_thread(self._grammars.matcher, sampling.grammar, sorted(sampling.stop_ids))

    def _submit(self, request: Request) -> None:
        with self._work:
            self._raise_failure()
            waiting = len(self._steps.waiting)
            if waiting >= self._serve.max_waiting + self._steps.slots.free:
                what = f"the queue is full: {waiting} requests are waiting"
                raise Overloaded(what, where="serve.max_waiting", remedy="retry later")
            if self._steps.idle:
                self._since = time.monotonic()
            self._steps.waiting.append(request)
            self._work.notify_all()

    def _cancel(self, request: Request) -> None:
        with self._work:
            self._steps.cancel(request)

    def _age_s(self) -> float:
        return 0.0 if self._steps.idle else time.monotonic() - self._since

    def _fail_if_stuck(self) -> None:
        age_s = self._age_s()
        if age_s > self._serve.stuck_s:
            self._fail(f"no step finished for {age_s:.0f} s although there is work")

    def _fail(self, why: str) -> None:
        """Stops the engine and tells all waiting callers. Only the first reason is kept."""
        if self._failure:
            return
        self._failure = why
        requests = [*self._steps.running, *self._steps.waiting]
        deliver([Delivery(request.inbox, error=_explain_failure(why)) for request in requests])
        for request in requests:
            self._steps.cancel(request)

    def _raise_failure(self) -> None:
        if self._failure:
            raise _explain_failure(self._failure)

    def _watch(self) -> None:
        """Runs in a thread: detects a step that never ends."""
        while not self._closed.wait(self._serve.stuck_s / 4):
            with self._work:
                self._fail_if_stuck()

    def _compute(self) -> None:
        """Runs in a thread: computes one step after another."""
        try:
            while self._has_work():
                self._step()
        except Exception as error:  # whatever torch raises, waiting callers must get it
            with self._work:
                self._fail(f"{type(error).__name__}: {error}")

    def _has_work(self) -> bool:
        with self._work:
            self._work.wait_for(lambda: self._failure or not self._steps.idle)
            return not self._failure

    def _step(self) -> None:
        with self._work:
            step = self._steps.begin()
        if not step.planned:  # all were cancelled in the meantime
            return
        tokens = self._steps.compute(step)
        with self._work:
            letters = self._steps.end(step, tokens)
            self._since = time.monotonic()
        deliver(letters)


def _explain_failure(why: str) -> EngineFailed:
    return EngineFailed(
        f"the engine stopped working: {why}",
        remedy="restart the command; in `ctllm serve`, Ray Serve replaces the replica by itself",
    )


def _device(serve: Serve) -> torch.device:
    if not serve.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            "no GPU is available in this process",
            where="serve.gpus",
            remedy="set serve.gpus=0, or run on a machine with a GPU",
        )
    return torch.device("cuda")

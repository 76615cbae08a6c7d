"""Runs many requests at once in an event loop, for a waiting thread. Results are stored as they arrive.

lm-eval calls a model like a function and waits; engines and APIs are coroutines. The loop may be one's own
(`own_loop`) or that of a server which evaluates beside its chats.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any, TypeVar

from ctllm_ray.base.errors import Overloaded
from ctllm_ray.evaluate.models.answer_cache import AnswerCache

LONGEST_PAUSE_S = 30.0
Q = TypeVar("Q")
#: Called with what is requested, how many are done, and the total.
Tell = Callable[[str, int, int], None]


@contextmanager
def own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in its own thread, inside the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Runner:
    """Runs coroutines in a loop, one at a time, for a waiting thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._under_way: Future | None = None
        self._cancelled = threading.Event()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of the coroutine. Raises `CancelledError` after `cancel`."""
        self._under_way = asyncio.run_coroutine_threadsafe(work, self._loop)
        if self._cancelled.is_set():
            self._under_way.cancel()
        try:
            return self._under_way.result()
        except BaseException:  # also if the waiting thread was interrupted: nobody needs the rest
            self._under_way.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs cleanup work, even after `cancel`."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def cancel(self) -> None:
        """Cancels what runs and all later work; callable from any thread."""
        self._cancelled.set()
        if self._under_way is not None:
            self._under_way.cancel()

    def check(self) -> None:
        """Raises `CancelledError` after `cancel`."""
        if self._cancelled.is_set():
            raise CancelledError


class ConcurrentRequests:
    """Runs `at_once` requests at a time and stores their results in `answered`."""

    def __init__(self, runner: Runner, cache: AnswerCache, at_once: int, tell: Tell) -> None:
        self.answered = cache
        self._runner, self._at_once, self._tell = runner, at_once, tell

    def ask(
        self,
        kind: str,
        questions: Sequence[Q],
        key_of: Callable[[Q], str],
        ask: Callable[[Q], Awaitable[Any]],
    ) -> None:
        """Sends the requests without a stored result. An error cancels the others;
        finished results are on storage."""
        self._runner.check()
        left = [question for question in questions if key_of(question) not in self.answered]
        if not left:
            return
        try:
            self._runner.run(self._all(kind, left, len(questions), key_of, ask))
        finally:
            self.answered.write()

    async def _all(
        self,
        kind: str,
        left: Sequence[Q],
        total: int,
        key_of: Callable[[Q], str],
        ask: Callable[[Q], Awaitable[Any]],
    ) -> None:
        waiting = iter(left)
        done = total - len(left)

        async def one_after_another() -> None:
            nonlocal done
            for question in waiting:
                self.answered.keep(key_of(question), await _patiently(ask, question))
                done += 1
                self._tell(kind, done, total)

        askers = [asyncio.create_task(one_after_another()) for _ in range(min(self._at_once, len(left)))]
        try:
            await asyncio.gather(*askers)
        finally:
            for asker in askers:
                asker.cancel()
            await asyncio.gather(*askers, return_exceptions=True)


async def _patiently(ask: Callable[[Q], Awaitable[Any]], question: Q) -> Any:
    """The result, retried while the queue is full."""
    while True:
        try:
            return await ask(question)
        except Overloaded as error:
            await asyncio.sleep(min(error.retry_s, LONGEST_PAUSE_S))

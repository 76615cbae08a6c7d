"""Many questions at a time, in an event loop that another thread waits for: kept as they are answered, and
cancellable.

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
from ctllm_ray.evaluate.models.answer_cache import Answered

LONGEST_PAUSE_S = 30.0
Q = TypeVar("Q")
#: Is given what is asked, how much of it is answered, and how much there is.
Tell = Callable[[str, int, int], None]


@contextmanager
def own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, for as long as the block lasts."""
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
    """Runs coroutines in a loop, one at a time, for a thread that waits for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._under_way: Future | None = None
        self._cancelled = threading.Event()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the coroutine gives. Raises `CancelledError` after `cancel`."""
        self._under_way = asyncio.run_coroutine_threadsafe(work, self._loop)
        if self._cancelled.is_set():
            self._under_way.cancel()
        try:
            return self._under_way.result()
        except BaseException:  # also where the thread that waits was interrupted: nobody wants the rest
            self._under_way.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs what has to be done at the end, also after `cancel`."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def cancel(self) -> None:
        """Ends what runs, and all that would; from any thread."""
        self._cancelled.set()
        if self._under_way is not None:
            self._under_way.cancel()

    def check(self) -> None:
        """Raises `CancelledError` after `cancel`."""
        if self._cancelled.is_set():
            raise CancelledError


class Crowd:
    """Asks `at_once` questions at a time and keeps the answers in `answered`."""

    def __init__(self, runner: Runner, answered: Answered, at_once: int, tell: Tell) -> None:
        self.answered = answered
        self._runner, self._at_once, self._tell = runner, at_once, tell

    def ask(
        self,
        kind: str,
        questions: Sequence[Q],
        key_of: Callable[[Q], str],
        ask: Callable[[Q], Awaitable[Any]],
    ) -> None:
        """Asks what is not answered yet. An error ends the others too; what was answered is on storage
        then."""
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
    """What is answered, however often the queue is full: others go first."""
    while True:
        try:
            return await ask(question)
        except Overloaded as error:
            await asyncio.sleep(min(error.retry_s, LONGEST_PAUSE_S))

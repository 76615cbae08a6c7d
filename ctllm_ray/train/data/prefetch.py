"""Prefetches items in a background thread, so that training does not wait for the loader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_LOOK_S = 0.1  # how soon a thread that waits for space notices that the consumer closed


class _End:
    """Follows the last item; holds the error that ended them, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """Yields the same items with up to `count` of them ready. The thread starts at the first request.

    An error in making an item is raised in its place. Closing or dropping the iterator ends the
    thread after its current item.
    """
    ready: queue.Queue[Item | _End] = queue.Queue(count)
    closed = threading.Event()
    thread = threading.Thread(target=_make, args=(items, ready, closed), name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error:
            raise item.error
    finally:
        closed.set()
        thread.join()


def _make(items: Iterable[Item], ready: queue.Queue[Item | _End], closed: threading.Event) -> None:
    try:
        for item in items:
            if not _handed_over(item, ready, closed):
                return
        _handed_over(_End(None), ready, closed)
    except BaseException as error:  # any error: else the consumer would wait forever
        _handed_over(_End(error), ready, closed)


def _handed_over(item: Item | _End, ready: queue.Queue[Item | _End], closed: threading.Event) -> bool:
    """True if the item was queued, False if the consumer closed."""
    while not closed.is_set():
        try:
            ready.put(item, timeout=_LOOK_S)
        except queue.Full:
            continue
        return True
    return False

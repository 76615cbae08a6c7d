"""Items made ahead by a background thread, so that the step does not wait for the loader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_LOOK_S = 0.1  # how long a thread that waits for room takes to see that nobody wants more


class _End:
    """What comes after the last item: the error that ended them, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """The same items, up to `count` of them waiting ready. The thread starts at the first one that is asked
    for.

    What goes wrong while an item is made is raised in its place. Closing the iterator, or dropping it, ends
    the thread after the item that it is at.
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
    except BaseException as error:  # whatever it is: else the consumer would wait for ever
        _handed_over(_End(error), ready, closed)


def _handed_over(item: Item | _End, ready: queue.Queue[Item | _End], closed: threading.Event) -> bool:
    """True when the item found room, False when nobody wants it."""
    while not closed.is_set():
        try:
            ready.put(item, timeout=_LOOK_S)
        except queue.Full:
            continue
        return True
    return False

"""An actor through which the driver and its workers exchange messages. It runs on the driver's machine.

A file of its own that imports nothing: an actor's process imports
the module of its class, and ray.train takes three seconds.
"""

from __future__ import annotations


class Board:
    """Messages between the driver and its workers."""

    def __init__(self) -> None:
        self._stop, self._failure, self._notes = False, b"", list[str]()

    def ask_to_stop(self) -> None:
        """For the workers: save and end."""
        self._stop = True

    def is_stopping(self) -> bool:
        """True once the driver requested it."""
        return self._stop

    def fail(self, error: bytes) -> None:
        """For the driver: an error that a retry cannot fix. The first one counts."""
        self._failure = self._failure or error

    def failure(self) -> bytes:
        """That error, pickled; empty if there is none."""
        return self._failure

    def note(self, text: str) -> None:
        """For people. A repeated text is dropped."""
        if text not in self._notes:
            self._notes.append(text)

    def notes(self) -> list[str]:
        """The notes since the last call."""
        notes, self._notes = self._notes, []
        return notes

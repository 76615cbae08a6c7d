"""What the driver and its workers leave for each other: an actor on the driver's machine.

A file of its own that imports nothing: an actor's process imports the module of its class, and ray.train takes three
seconds.
"""

from __future__ import annotations


class Board:
    """What the driver and its workers leave for each other: an actor on the driver's machine."""

    def __init__(self) -> None:
        self._stop, self._failure, self._notes = False, b"", list[str]()

    def ask_to_stop(self) -> None:
        """For the workers: save and end."""
        self._stop = True

    def is_stopping(self) -> bool:
        """True once the driver asked for it."""
        return self._stop

    def fail(self, error: bytes) -> None:
        """For the driver: an error that trying again does not mend. The first one counts."""
        self._failure = self._failure or error

    def failure(self) -> bytes:
        """That error, pickled; empty where there is none."""
        return self._failure

    def note(self, text: str) -> None:
        """For people; what was said before is not said again."""
        if text not in self._notes:
            self._notes.append(text)

    def notes(self) -> list[str]:
        """What was noted since it was last asked."""
        told, self._notes = self._notes, []
        return told

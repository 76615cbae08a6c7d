"""One tree of errors, each with what happened, where, and the remedy.

They are raised anywhere and caught at one border only (the command line turns them into one message and an
exit code), so they must survive the pickling that Ray does between a worker and the driver: hence
`__reduce__`.
"""

from __future__ import annotations


class CtllmError(Exception):
    """Base of all errors a user can cause or repair. `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where:  {self.where}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def _rebuild(kind: type[CtllmError], what: str, where: str, remedy: str) -> CtllmError:
    return kind(what, where=where, remedy=remedy)


class RecipeError(CtllmError):
    """The recipe, or an override of it, cannot be used."""

    exit_code = 2


class InputError(CtllmError):
    """An input of the run is missing, unreadable, or not what the recipe says it is."""

    exit_code = 3


class ErrorShareExceeded(CtllmError):
    """More records were unreadable than `data.max_error_share` allows."""

    exit_code = 4


class StorageError(CtllmError):
    """Output could not be written or read back: disk full, no permission, object store failure."""

    exit_code = 5


class VersionConflict(CtllmError):
    """Output of another recipe stands under the same name and version."""

    exit_code = 6


class NotFound(CtllmError):
    """What was asked for (a page, a finished section) is not there."""

    exit_code = 7


class WorkerLost(CtllmError):
    """A piece of work ended its worker process again and again."""

    exit_code = 8


class NoCluster(CtllmError):
    """Ray is not to be reached, or does not start."""

    exit_code = 9


class Diverged(CtllmError):
    """Training gave a loss or a gradient that is not a number, or met spike after spike."""

    exit_code = 10


class Overloaded(CtllmError):
    """A queue is full or a quota is used up: the same request may be sent again, `retry_s` seconds later."""

    exit_code = 11

    def __init__(self, what: str, *, where: str = "", remedy: str = "", retry_s: float = 1.0) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.retry_s = retry_s

    def __reduce__(self) -> tuple:
        return _rebuild_overloaded, (self.what, self.where, self.remedy, self.retry_s)


def _rebuild_overloaded(what: str, where: str, remedy: str, retry_s: float) -> Overloaded:
    return Overloaded(what, where=where, remedy=remedy, retry_s=retry_s)


class EngineFailed(CtllmError):
    """An engine died, or has work to do and does none."""

    exit_code = 12

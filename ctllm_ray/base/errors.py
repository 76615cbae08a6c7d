"""The error tree. Each error says what happened, where, and what to do.

They are raised anywhere and caught at one border only (the command line turns them into one message and an
exit code), so they must survive the pickling that Ray does between a worker and the driver: hence
`__reduce__`.
"""

from __future__ import annotations


class CtllmError(Exception):
    """Base of all errors that a user can cause or fix. `exit_code` is the exit code of the command line."""

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
    """The recipe or an override is invalid."""

    exit_code = 2


class InputError(CtllmError):
    """An input of the run is missing, unreadable, or not what the recipe says."""

    exit_code = 3


class ErrorShareExceeded(CtllmError):
    """More records were unreadable than `data.max_error_share` allows."""

    exit_code = 4


class StorageError(CtllmError):
    """Output could not be written or read back: disk full, no permission, object store failure."""

    exit_code = 5


class VersionConflict(CtllmError):
    """The output folder holds results of another recipe with the same name and version."""

    exit_code = 6


class NotFound(CtllmError):
    """A requested page, section or file does not exist."""

    exit_code = 7


class WorkerLost(CtllmError):
    """A split or trial crashed its worker too often."""

    exit_code = 8


class NoCluster(CtllmError):
    """Ray cannot be reached, or does not start."""

    exit_code = 9


class Diverged(CtllmError):
    """The loss or the gradient of training became NaN or infinite, or spikes did not stop."""

    exit_code = 10


class Overloaded(CtllmError):
    """A queue is full or a quota is used up. The same request may be sent again after `retry_s` seconds."""

    exit_code = 11

    def __init__(self, what: str, *, where: str = "", remedy: str = "", retry_s: float = 1.0) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.retry_s = retry_s

    def __reduce__(self) -> tuple:
        return _rebuild_overloaded, (self.what, self.where, self.remedy, self.retry_s)


def _rebuild_overloaded(what: str, where: str, remedy: str, retry_s: float) -> Overloaded:
    return Overloaded(what, where=where, remedy=remedy, retry_s=retry_s)


class EngineFailed(CtllmError):
    """An engine died, or has work but makes no progress."""

    exit_code = 12

"""Run lock: allows one writer per run. A second run under the same name is refused.

RUNNING.json in the run's folder names its owner and is rewritten every few seconds. Another start that finds
it checks by its own clock whether it still changes, so clock differences do no harm. The lock is free at once
if its process no longer exists on this machine, or if the owner is the same (a worker group that Ray
restarts). Otherwise it is free after `STALE_S` without a change. A process that finds its lock taken over
stops: it must not write after a long sleep.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass

import psutil

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, VersionConflict

RUNNING = "RUNNING.json"
BEAT_S = 5.0
STALE_S = 20.0
LOOK_S = 1.0


@dataclass(frozen=True)
class _Note:
    """The content of the file."""

    owner: str
    token: str
    host: str
    pid: int
    started: float  # start of the process, Unix seconds: detects a reused pid
    beat: int = 0


class RunLock:
    """Held from its creation. Raises `VersionConflict` if another run is alive under this name."""

    def __init__(self, run_folder: str, owner: str) -> None:
        self._folder, self._uri = run_folder, storage.join(run_folder, RUNNING)
        process = psutil.Process()
        self._note = _Note(owner, uuid.uuid4().hex, socket.gethostname(), process.pid, process.create_time())
        wait_until_free(run_folder, owner)
        self._lost = ""
        self._done = threading.Event()
        self._write(0)
        self._thread = threading.Thread(target=self._keep_alive, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises `VersionConflict` if another run took over the name. Costs nothing."""
        if self._lost:
            raise _conflict(self._folder, self._lost)

    def release(self) -> None:
        """Releases the name."""
        self._done.set()
        self._thread.join()
        with suppress(CtllmError):
            note = _read_note(self._uri)
            if note is not None and note.token == self._note.token:
                storage.remove(self._uri)

    def _keep_alive(self) -> None:
        beat = 0
        while not self._done.wait(BEAT_S):
            beat += 1
            with suppress(CtllmError):  # storage failed for a moment: the next write may succeed
                note = _read_note(self._uri)
                if note is not None and note.token != self._note.token:
                    self._lost = _words(note)
                    return
                self._write(beat)

    def _write(self, beat: int) -> None:
        storage.write_json(self._uri, asdict(self._note) | {"beat": beat})


def wait_until_free(run_folder: str, owner: str = "") -> None:
    """Returns at once if the name is free, after `STALE_S` if its owner shows no sign of life.

    Raises `VersionConflict` if another run is alive under this name.
    """
    uri = storage.join(run_folder, RUNNING)
    first = note = _read_note(uri)
    deadline = time.monotonic() + STALE_S
    while note is not None and not _may_take(note, owner) and time.monotonic() < deadline:
        if note != first:
            raise _conflict(run_folder, _words(note))
        time.sleep(LOOK_S)
        note = _read_note(uri)


def _may_take(note: _Note, owner: str) -> bool:
    has_ended = note.host == socket.gethostname() and not _runs(note)
    return has_ended or note.owner == owner


def _read_note(uri: str) -> _Note | None:
    if not storage.exists(uri):
        return None
    try:
        return _Note(**storage.read_json(uri))
    except (CtllmError, TypeError):  # deleted in the meantime, or not ours: nobody keeps it alive
        return None


def _conflict(run_folder: str, other: str) -> VersionConflict:
    return VersionConflict(
        f"another process is training this run: {other}",
        where=run_folder,
        remedy="stop it, or set another name for this run with `train.run`",
    )


def _words(note: _Note) -> str:
    return f"process {note.pid} on {note.host}"


def _runs(note: _Note) -> bool:
    """True if the process runs on this machine."""
    try:
        return abs(psutil.Process(note.pid).create_time() - note.started) < 1
    except psutil.Error:
        return False

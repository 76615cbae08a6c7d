"""Saves checkpoints in the background: the training thread only copies, another thread hashes and writes.

At most one save runs at a time; a second one waits for it, and training waits too. Each worker writes its
file, then a small JSON that announces it. Rank 0's thread waits for the announcements of all workers and
writes CHECKPOINT.json last; only then does the checkpoint exist. File names contain a token of this start and
the number of the save. So an interrupted save, or a second save of the same step, never touches complete
files. No collective operation is used: background threads must not interfere with training's process group.

Retention: the newest `keep` stay, and for good the first
one at or after each multiple of `keep_every_tokens`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass

import torch

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, StorageError
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.checkpoint.checkpoint import CHECKPOINT, FORMAT, StateFile
from ctllm_ray.train.checkpoint.run_state import RunState

LOOK_S = (0.02, 1.0)  # between checks for the other workers' files: first, later
ALL_WORKERS_S = 1800.0  # timeout for all workers' files


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint. `seconds` is its time in the background."""

    state: RunState
    folder: str
    bytes: int
    seconds: float


class Saver:
    """The part of one worker in saving. `token` is equal on all workers and new at each start."""

    def __init__(
        self, run_folder: str, rank: int, world: int, token: str, keep: int, keep_every_tokens: int
    ) -> None:
        self._run_folder, self._rank, self._world, self._token = run_folder, rank, world, token
        self._keep, self._keep_every_tokens = keep, keep_every_tokens
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._flight: Future[Saved] | None = None
        self._complete: list[Saved] = []
        self._given_up = threading.Event()
        self._count = 0
        self._known: dict[int, int] = {}  # tokens by step, for the retention policy
        if rank == 0:
            self._take_stock()

    def save(self, state: RunState, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Returns when the tensors are copied. Raises `StorageError` if the previous save failed."""
        self.wait()
        copies = list(tensors)
        self._count += 1
        self._flight = self._thread.submit(self._write, state, copies, f"{self._token}{self._count}")

    def take_finished(self) -> list[Saved]:
        """Saves completed since the last call; on other ranks this rank's part of them.

        Raises the error of a failed save.
        """
        if self._flight is not None and self._flight.done():
            self.wait()
        finished, self._complete = self._complete, []
        return finished

    def wait(self) -> None:
        """Waits until no save is running. Raises the error of a failed save."""
        if self._flight is not None:
            flight, self._flight = self._flight, None
            self._complete.append(flight.result())

    def close(self) -> None:
        """Abandons a save that waits for other workers. What this worker is writing is finished."""
        self._given_up.set()
        self._thread.shutdown(wait=True)

    def _take_stock(self) -> None:
        """Deletes unfinished saves, and reads what the retention policy needs."""
        for step in checkpoint.half_written(self._run_folder):
            remove(self._run_folder, step)
        for step in checkpoint.steps(self._run_folder):
            with suppress(CtllmError):  # damaged ones are left to people
                self._known[step] = checkpoint.open_at(
                    checkpoint.folder_of(self._run_folder, step)
                ).state.tokens

    def _write(self, state: RunState, tensors: Sequence[tuple[str, torch.Tensor]], token: str) -> Saved:
        began = time.perf_counter()
        folder = checkpoint.folder_of(self._run_folder, state.step)
        mine = _name(self._rank, self._world, token)
        try:
            size = self._write_parts(folder, mine, state, tensors, token)
        except StorageError as error:
            for name in (mine, _announcement(mine)):
                with suppress(CtllmError):
                    storage.remove(storage.join(folder, name))
            raise StorageError(
                f"the checkpoint of step {state.step} could not be written: {error.what}",
                where=error.where,
                remedy="free space or repair the storage, then run the same command again; "
                "training resumes from the checkpoint before this one",
            ) from error
        return Saved(state, folder, size, time.perf_counter() - began)

    def _write_parts(
        self, folder: str, mine: str, state: RunState, tensors: Sequence[tuple[str, torch.Tensor]], token: str
    ) -> int:
        """The size of the whole checkpoint on rank 0, of this rank's file on others, in bytes."""
        written = checkpoint.write_state_file(storage.join(folder, mine), tensors)
        if self._rank:
            storage.write_json(storage.join(folder, _announcement(mine)), asdict(written))
            return written.bytes
        files = {mine: written} | self._others(folder, token)
        plain = {
            "format": FORMAT,
            "state": state.plain(),
            "files": {name: asdict(f) for name, f in files.items()},
        }
        storage.write_json(storage.join(folder, CHECKPOINT), plain)
        self._known[state.step] = state.tokens
        self._tidy(folder, set(files), state.step)
        return sum(file.bytes for file in files.values())

    def _others(self, folder: str, token: str) -> dict[str, StateFile]:
        """The announcements of the other workers, once all are there."""
        awaited = {_name(rank, self._world, token) for rank in range(1, self._world)}
        results: dict[str, StateFile] = {}
        pause, deadline = LOOK_S[0], time.monotonic() + ALL_WORKERS_S
        while awaited:
            present = set(storage.list_names(folder))
            for name in sorted(name for name in awaited if _announcement(name) in present):
                plain = storage.read_json(storage.join(folder, _announcement(name)))
                results[name] = StateFile(plain["bytes"], plain["sha256"], tuple(plain["names"]))
                awaited.remove(name)
            if awaited and (self._given_up.wait(pause) or time.monotonic() > deadline):
                raise StorageError(
                    f"{len(awaited)} workers did not write their checkpoint files", where=folder
                )
            pause = min(2 * pause, LOOK_S[1])
        return results

    def _tidy(self, folder: str, files: set[str], step: int) -> None:
        """Deletes announcements, files of an older save of this step, and checkpoints that
        the retention policy drops."""
        for name in storage.list_names(folder):
            if name not in files and name.startswith("state-"):
                storage.remove(storage.join(folder, name))
        older = {known: tokens for known, tokens in self._known.items() if known <= step}
        for dropped_step in to_drop(older, self._keep, self._keep_every_tokens):
            remove(self._run_folder, dropped_step)
            del self._known[dropped_step]


def _name(rank: int, world: int, token: str) -> str:
    return f"state-{rank:05d}-of-{world:05d}-{token}.safetensors"


def _announcement(name: str) -> str:
    return f"{name.removesuffix('.safetensors')}.json"


def to_drop(tokens: dict[int, int], keep: int, keep_every_tokens: int) -> list[int]:
    """The steps whose checkpoints are dropped, from tokens by step."""
    stay = set(sorted(tokens)[-keep:])
    reached = 0
    for step in sorted(tokens):
        if keep_every_tokens and tokens[step] // keep_every_tokens > reached:
            reached = tokens[step] // keep_every_tokens
            stay.add(step)
    return [step for step in sorted(tokens) if step not in stay]


def remove(run_folder: str, step: int) -> None:
    """Deletes a checkpoint, CHECKPOINT.json first."""
    folder = checkpoint.folder_of(run_folder, step)
    storage.remove(storage.join(folder, CHECKPOINT))
    for name in storage.list_names(folder):
        storage.remove(storage.join(folder, name))
    fs, path = storage.filesystem(folder)
    if not storage.is_remote(folder) and fs.exists(path):
        fs.rm(path, recursive=True)

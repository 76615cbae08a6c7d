"""Checkpoints: what they are on disk, and how one is found and read. How one is written stands in saver.py.

    checkpoints/<step:08d>/state-<rank:05d>-of-<world:05d>-<token>.safetensors   each rank's share of the tensors
    checkpoints/<step:08d>/CHECKPOINT.json                                       written last: names all of them

Tensors are whole, fp32, by parameter name (`model.<p>`, `exp_avg.<p>`, `exp_avg_sq.<p>`), each in exactly one
file. So a checkpoint does not depend on the number of workers, the stepper or the ZeRO stage, and needs no
conversion when they change; any program that reads safetensors can take the weights out. It costs 12 bytes
for each parameter.

CHECKPOINT.json has the run state and the size, SHA-256 and names of every file. A folder without it is
half-written and not a checkpoint. One whose files are missing, shorter, longer or different is passed over
for the one before it, and the reason is kept to be told: sizes are looked at always, SHA-256 by `verify`
before a run resumes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ctllm_ray.base import storage
from ctllm_ray.base.errors import NotFound, StorageError
from ctllm_ray.train.checkpoint.run_state import RunState

FOLDER = "checkpoints"  # below the folder of a run
CHECKPOINT = "CHECKPOINT.json"
FORMAT = 1
BLOCK_BYTES = 16 << 20  # read, hashed and written at a time


@dataclass(frozen=True)
class StateFile:
    """One rank's file."""

    bytes: int
    sha256: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class PassedOver:
    """A checkpoint that was not used, and why."""

    folder: str
    reason: str


@dataclass
class Checkpoint:
    """A complete checkpoint. Files are opened when a tensor of theirs is first asked for; remote ones are
    fetched."""

    folder: str
    state: RunState
    files: dict[str, StateFile]
    passed_over: tuple[PassedOver, ...] = ()  # newer ones
    _open: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def step(self) -> int:
        """Updates that the model has seen."""
        return self.state.step

    @property
    def names(self) -> list[str]:
        """All tensors, sorted."""
        return sorted(name for file in self.files.values() for name in file.names)

    def tensor(self, name: str) -> torch.Tensor:
        """A whole fp32 tensor on the CPU. Raises `StorageError` where the checkpoint has none of that
        name."""
        return self._open_file(self._file_of(name)).get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, without reading it. Raises as `tensor` does."""
        return tuple(self._open_file(self._file_of(name)).get_slice(name).get_shape())

    def _file_of(self, name: str) -> str:
        for file, facts in self.files.items():
            if name in facts.names:
                return file
        remedy = "the checkpoint is of another model: check model.use, model.path and the tokenizer"
        raise StorageError(f"there is no tensor {name!r} in it", where=self.folder, remedy=remedy)

    def verify(self, files: Iterable[str]) -> str:
        """What is wrong with some of its files, by SHA-256; empty where nothing is. Fetches those that are
        remote."""
        for name in files:
            path = self._local(name)
            if (result := storage.size_and_sha256(path)[1]) != self.files[name].sha256:
                Path(path).unlink(missing_ok=True) if storage.is_remote(self.folder) else None
                return f"{name} has SHA-256 {result[:12]}..., not {self.files[name].sha256[:12]}..."
        return ""

    def forget_copies(self) -> None:
        """Closes all files and deletes what was fetched."""
        self._open.clear()
        if storage.is_remote(self.folder):
            for file in self.files:
                _copy_of(self.files[file]).unlink(missing_ok=True)

    def _open_file(self, file: str) -> Any:
        if file not in self._open:
            try:
                self._open[file] = safe_open(self._local(file), framework="pt")
            except (SafetensorError, OSError) as error:
                where, remedy = (
                    storage.join(self.folder, file),
                    "delete this checkpoint: the one before it is used",
                )
                raise StorageError(f"not readable: {error}", where=where, remedy=remedy) from error
        return self._open[file]

    def _local(self, file: str) -> str:
        uri = storage.join(self.folder, file)
        if not storage.is_remote(uri):
            return uri
        copy = _copy_of(self.files[file])
        if not copy.exists():  # workers of one machine share it
            with (
                storage.writing(str(copy)) as path,
                storage.reading(uri) as source,
                Path(path).open("wb") as target,
            ):
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
        return str(copy)


def _copy_of(file: StateFile) -> Path:
    return Path(tempfile.gettempdir()) / "ctllm-checkpoints" / f"{file.sha256}.safetensors"


def folder_of(run_folder: str, step: int) -> str:
    """Where the checkpoint of a step stands in a run's folder."""
    return storage.join(run_folder, FOLDER, f"{step:08d}")


def steps(run_folder: str) -> list[int]:
    """The steps of all complete checkpoints of a run, rising; whether their files are whole is not looked
    at."""
    return sorted({int(folder) for folder, name in _names(run_folder) if name == CHECKPOINT})


def half_written(run_folder: str) -> list[int]:
    """The steps of saves that never finished: folders with files and no CHECKPOINT.json."""
    result = _names(run_folder)
    complete = {folder for folder, name in result if name == CHECKPOINT}
    return sorted({int(folder) for folder, _ in result if folder not in complete})


def _names(run_folder: str) -> list[tuple[str, str]]:
    """(folder, file name) of every file below the checkpoints of a run."""
    results = [path.split("/") for path in storage.list_tree(storage.join(run_folder, FOLDER))]
    return sorted((parts[0], parts[1]) for parts in results if len(parts) == 2 and parts[0].isdecimal())


def open_at(folder: str) -> Checkpoint:
    """The checkpoint in a folder. Raises `NotFound` where none was finished, `StorageError` where it is
    damaged."""
    path = storage.join(folder, CHECKPOINT)
    if not storage.exists(path):
        raise NotFound(
            "no finished checkpoint here", where=folder, remedy=f"name a folder with a {CHECKPOINT}"
        )
    plain = storage.read_json(path)
    try:
        if plain["format"] != FORMAT:
            raise TypeError(f"format {plain['format']}, not {FORMAT}")
        files = {
            name: StateFile(f["bytes"], f["sha256"], tuple(f["names"])) for name, f in plain["files"].items()
        }
        if not files:
            raise TypeError("no files")
        checkpoint = Checkpoint(folder, RunState.from_plain(plain["state"]), files)
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"not a checkpoint of this program: {error}", where=path, remedy="delete it"
        ) from None
    if reason := _sizes(checkpoint):
        raise StorageError(
            f"the checkpoint is damaged: {reason}", where=folder, remedy="use the one before it"
        )
    return checkpoint


def _sizes(checkpoint: Checkpoint) -> str:
    """What is wrong with its files at a glance; empty where nothing is."""
    fs, path = storage.filesystem(checkpoint.folder)
    fs.invalidate_cache()
    present = {
        i["name"].rpartition("/")[2]: i["size"] for i in fs.ls(path, detail=True) if i["type"] == "file"
    }
    for name, file in checkpoint.files.items():
        if name not in present:
            return f"{name} is missing"
        if present[name] != file.bytes:
            return f"{name} has {present[name]} bytes, not {file.bytes}"
    return ""


def newest(run_folder: str, *, unfit: Sequence[PassedOver] = ()) -> Checkpoint:
    """The newest whole checkpoint of a run, leaving out `unfit` ones; it names those that it passed over.

    Raises `NotFound` where the run has none, and `StorageError` where it has some and none is whole.
    """
    passed_over = list(unfit)
    for step in reversed(steps(run_folder)):
        folder = folder_of(run_folder, step)
        if folder in {known.folder for known in unfit}:
            continue
        try:
            result = open_at(folder)
        except (StorageError, NotFound) as error:
            passed_over.append(PassedOver(folder, error.what))
            continue
        result.passed_over = tuple(passed_over)
        return result
    if passed_over:
        reasons = "; ".join(f"{known.folder.rpartition('/')[2]}: {known.reason}" for known in passed_over)
        remedy = "restore one of them, or delete the folder to begin again"
        raise StorageError(f"no checkpoint is whole ({reasons})", where=run_folder, remedy=remedy)
    raise NotFound("this run has no checkpoint yet", where=run_folder, remedy="run `ctllm train`")


def safetensors_blocks(tensors: Sequence[tuple[str, torch.Tensor]]) -> Iterator[memoryview]:
    """The bytes of a safetensors file of fp32 tensors, in blocks, without a second copy of them.

    The format: 8 bytes with the length of a JSON header, the header with each tensor's type, shape and place,
    the tensors one after the other; the header ends in spaces so that these begin at a multiple of 8.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors:
        first, end = end, end + tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [first, end]}
    plain = json.dumps(header, separators=(",", ":")).encode()
    plain += b" " * (-len(plain) % 8)
    yield memoryview(len(plain).to_bytes(8, "little") + plain)
    for _, tensor in tensors:
        content = memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        for first in range(0, len(content), BLOCK_BYTES):
            yield content[first : first + BLOCK_BYTES]


def write_state_file(uri: str, tensors: Sequence[tuple[str, torch.Tensor]]) -> StateFile:
    """What was written: sizes, SHA-256 and names. The bytes are hashed on their way, read once."""
    digest, size = hashlib.sha256(), 0
    with storage.writing(uri) as path, open(path, "wb", buffering=0) as stream:
        for block in safetensors_blocks(tensors):
            digest.update(block)
            written = 0
            while written < len(block):
                written += stream.write(block[written:]) or 0
            size += len(block)
    return StateFile(size, digest.hexdigest(), tuple(name for name, _ in tensors))

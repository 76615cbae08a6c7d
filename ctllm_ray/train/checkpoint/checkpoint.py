"""Checkpoints on disk: their format, how to find and how to read them. saver.py writes them.

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

FOLDER = "checkpoints"  # below a run's folder
CHECKPOINT = "CHECKPOINT.json"
FORMAT = 1
BLOCK_BYTES = 16 << 20  # read, hashed and written at once


@dataclass(frozen=True)
class StateFile:
    """The file of one rank."""

    bytes: int
    sha256: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class PassedOver:
    """A checkpoint that was skipped, and why."""

    folder: str
    reason: str


@dataclass
class Checkpoint:
    """A complete checkpoint. Each file is opened when one of its tensors is first needed;
    remote ones are downloaded."""

    folder: str
    state: RunState
    files: dict[str, StateFile]
    passed_over: tuple[PassedOver, ...] = ()  # newer checkpoints that were skipped
    _open: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def step(self) -> int:
        """The number of updates of the model."""
        return self.state.step

    @property
    def names(self) -> list[str]:
        """All tensors, sorted."""
        return sorted(name for file in self.files.values() for name in file.names)

    def tensor(self, name: str) -> torch.Tensor:
        """A whole fp32 tensor on the CPU. Raises `StorageError` if the checkpoint
        has no tensor of that name."""
        return self._open_file(self._file_of(name)).get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it. Raises like `tensor`."""
        return tuple(self._open_file(self._file_of(name)).get_slice(name).get_shape())

    def _file_of(self, name: str) -> str:
        for file, facts in self.files.items():
            if name in facts.names:
                return file
        remedy = "the checkpoint is of another model: check model.use, model.path and the tokenizer"
        raise StorageError(f"the checkpoint has no tensor {name!r}", where=self.folder, remedy=remedy)

    def verify(self, files: Iterable[str]) -> str:
        """Checks files by SHA-256; returns the first problem, or an empty string. Downloads remote files."""
        for name in files:
            path = self._local(name)
            if (result := storage.size_and_sha256(path)[1]) != self.files[name].sha256:
                Path(path).unlink(missing_ok=True) if storage.is_remote(self.folder) else None
                return f"{name} has SHA-256 {result[:12]}..., not {self.files[name].sha256[:12]}..."
        return ""

    def forget_copies(self) -> None:
        """Closes all files and deletes downloaded copies."""
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
                    "delete this checkpoint; the one before it is then used",
                )
                raise StorageError(
                    f"a checkpoint file cannot be read: {error}", where=where, remedy=remedy
                ) from error
        return self._open[file]

    def _local(self, file: str) -> str:
        uri = storage.join(self.folder, file)
        if not storage.is_remote(uri):
            return uri
        copy = _copy_of(self.files[file])
        if not copy.exists():  # the workers of a machine share it
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
    """The folder of a step's checkpoint in a run's folder."""
    return storage.join(run_folder, FOLDER, f"{step:08d}")


def steps(run_folder: str) -> list[int]:
    """The steps of all complete checkpoints of a run, ascending. Their files are not checked."""
    return sorted({int(folder) for folder, name in _names(run_folder) if name == CHECKPOINT})


def half_written(run_folder: str) -> list[int]:
    """The steps of unfinished saves: folders with files but without CHECKPOINT.json."""
    result = _names(run_folder)
    complete = {folder for folder, name in result if name == CHECKPOINT}
    return sorted({int(folder) for folder, _ in result if folder not in complete})


def _names(run_folder: str) -> list[tuple[str, str]]:
    """(folder, file name) of every file in the checkpoints of a run."""
    results = [path.split("/") for path in storage.list_tree(storage.join(run_folder, FOLDER))]
    return sorted((parts[0], parts[1]) for parts in results if len(parts) == 2 and parts[0].isdecimal())


def open_at(folder: str) -> Checkpoint:
    """Opens the checkpoint in a folder. Raises `NotFound` if none was finished,
    `StorageError` if it is damaged."""
    path = storage.join(folder, CHECKPOINT)
    if not storage.exists(path):
        raise NotFound(
            "this folder has no finished checkpoint",
            where=folder,
            remedy=f"give a folder that contains {CHECKPOINT}",
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
            f"the checkpoint was not written by ctllm, or is damaged: {error}", where=path, remedy="delete it"
        ) from None
    if reason := _sizes(checkpoint):
        raise StorageError(
            f"the checkpoint is damaged: {reason}", where=folder, remedy="use an earlier checkpoint"
        )
    return checkpoint


def _sizes(checkpoint: Checkpoint) -> str:
    """Checks the sizes of its files; returns the first problem, or an empty string."""
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
    """The newest undamaged checkpoint of a run, except `unfit` ones. It lists those that it skipped.

    Raises `NotFound` if the run has none, and `StorageError` where it has some and none is whole.
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
        remedy = "restore one of them, or delete the folder to start from the beginning"
        raise StorageError(f"all checkpoints are damaged ({reasons})", where=run_folder, remedy=remedy)
    raise NotFound("this run has no checkpoint yet", where=run_folder, remedy="run `ctllm train` first")


def safetensors_blocks(tensors: Sequence[tuple[str, torch.Tensor]]) -> Iterator[memoryview]:
    """The bytes of a safetensors file of fp32 tensors, in blocks, without a second copy of the tensors.

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
    """Writes a file; returns its size, SHA-256 and names. The bytes are hashed while they are written."""
    digest, size = hashlib.sha256(), 0
    with storage.writing(uri) as path, open(path, "wb", buffering=0) as stream:
        for block in safetensors_blocks(tensors):
            digest.update(block)
            written = 0
            while written < len(block):
                written += stream.write(block[written:]) or 0
            size += len(block)
    return StateFile(size, digest.hexdigest(), tuple(name for name, _ in tensors))

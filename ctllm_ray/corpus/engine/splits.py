"""Splits: the units of reading, retry and resume.

A split is a stretch of one input file, a whole shard of the section before, or a part of what a shuffle
wrote. Which splits there are depends on the files and on `data.split_mb` only, never on how many workers run:
shards are numbered by split, so the output is the same for any parallelism. A source module may cut files
with a function `spans(file, split_bytes)`; without one a file is one split.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from ctllm_ray import sample
from ctllm_ray.base import resolve, storage
from ctllm_ray.base.recipe import Data
from ctllm_ray.base.storage import File
from ctllm_ray.shards.manifest import Manifest, Shard


@dataclass(frozen=True)
class SplitLimits:
    """What a source may hold in memory, in bytes."""

    record_bytes: int  # longer records become error.record_too_large
    error_raw_bytes: int  # so many bytes of a bad record are kept in `raw`
    batch_bytes: int = 4 << 20  # a RAW table is closed once its text and raw bytes reach this


@dataclass(frozen=True)
class Split:
    """`start` and `stop` are in the source's unit (bytes after decompression, row
    groups). Stop None means the end."""

    index: int
    input: str  # name of the recipe's input: the `source` column, and the first part of every id
    use: str
    options: dict[str, Any]
    file: File
    start: int
    stop: int | None
    limits: SplitLimits
    section: str = "clean"  # the section that works on it

    def id(self, position: int) -> str:
        """The address of the record at a position of this split's file."""
        return f"{self.input}/{self.file.name}#{position}"

    def plain(self) -> dict[str, Any]:
        """Plain values for a Ray row or a JSON file."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Split:
        """Restores a split from its plain form."""
        return Split(**plain | {"file": File(**plain["file"]), "limits": SplitLimits(**plain["limits"])})


def list_splits(data: Data) -> list[Split]:
    """All splits of the recipe's inputs: in the order of the recipe, of file names, then of position."""
    limits = SplitLimits(int(data.max_record_mb * 2**20), int(data.error_raw_kb * 2**10))
    spans = [
        (part, file, start, stop)
        for part in data.inputs
        for file in storage.list_files(sample.locate(part.path))
        for start, stop in _spans(part.use, file, int(data.split_mb * 2**20))
    ]
    return [
        Split(index, part.name, part.use, dict(part.model_extra or {}), file, start, stop, limits)
        for index, (part, file, start, stop) in enumerate(spans)
    ]


def of_shard(
    index: int,
    section: str,
    folder: str,
    shard: Shard,
    options: dict[str, Any] | None = None,
    *,
    input: str = "",
) -> Split:
    """The split of a section that works on a whole shard in a folder. `input` is
    the source of its documents."""
    file = File(storage.join(folder, shard.path), shard.path, shard.bytes, shard.sha256)
    return Split(index, input, "", options or {}, file, 0, None, SplitLimits(0, 0), section)


def of_part(index: int, section: str, folder: str, made: Manifest, kind: str, parts: int) -> Split:
    """The split of a section that works on part `index` of a kind of files in
    the folder of a finished phase."""
    size = sum(shard.bytes for shard in made.of_kind(kind)) // parts
    file = File(folder, f"{kind}, part {index} of {parts}", size, made.digest(kind))
    return Split(index, made.section, "", {}, file, index, index + 1, SplitLimits(0, 0), section)


def _spans(use: str, file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    module = importlib.import_module(f"{resolve.SOURCES}.{use}")
    return module.spans(file, split_bytes) if hasattr(module, "spans") else [(0, None)]


def read_split(split: Split) -> Iterator[pa.Table]:
    """The RAW tables of a split."""
    yield from resolve.resolve(resolve.SOURCES, split.use)(split, **split.options)

"""Splits: the units of reading, of retry and of resume.

A split is a stretch of one input file. Which splits there are depends on the files and on `data.split_mb` only, never
on how many workers run: shards are numbered by split, so the output is the same for any parallelism. A source module
may cut files with a function `spans(file, split_bytes)`; without one a file is one split.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.recipe import Data
from ctllm_ray.base.storage import File


@dataclass(frozen=True)
class Limits:
    """What a source may hold in memory, in bytes."""

    record_bytes: int  # a longer record becomes error.record_too_large
    error_raw_bytes: int  # of a bad record this many bytes are kept in `raw`
    batch_bytes: int = 4 << 20  # a RAW table is closed once its text and raw bytes reach this


@dataclass(frozen=True)
class Split:
    """`start` and `stop` count what the source counts (bytes after decompression, row groups); stop None is the end."""

    index: int
    input: str  # name of the recipe's input: the `source` column, and the first part of every id
    use: str
    options: dict[str, Any]
    file: File
    start: int
    stop: int | None
    limits: Limits

    def id(self, position: int) -> str:
        """The address of the record at a position of this split's file."""
        return f"{self.input}/{self.file.name}#{position}"

    def plain(self) -> dict[str, Any]:
        """As plain values, for a Ray row or a JSON file."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Split:
        """The split that `plain` described."""
        return Split(**plain | {"file": File(**plain["file"]), "limits": Limits(**plain["limits"])})


def list_splits(data: Data) -> list[Split]:
    """All splits of the recipe's inputs, in the order of the recipe, then of file names, then of position."""
    return [split._replace_index(i) for i, split in enumerate(_unnumbered(data))]


def _unnumbered(data: Data) -> Iterator[Split]:
    raise NotImplementedError

"""Splits: the units of reading, retry and resume.

A split is a stretch of one input file, a whole shard of the section before, or a part of what a shuffle
wrote. Which splits there are depends on the files and on `data.split_mb` only, never on how many workers run:
shards are numbered by split, so the output is the same for any parallelism. A source module may cut files
with a function `spans(file, split_bytes)`; without one a file is one span. Whole small files share a split.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa

from ctllm_ray import sample
from ctllm_ray.base import resolve, storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import Data, Input
from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.file_account import FileAccount
from ctllm_ray.shards import schema
from ctllm_ray.shards.manifest import Manifest, Shard

#: Small files of one split. Each costs a few milliseconds of opening.
MAX_FILES = 10_000


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
    more: tuple[File, ...] = ()  # further small files, read whole after `file`
    account: FileAccount = field(default_factory=FileAccount, compare=False, repr=False)

    def id(self, position: int) -> str:
        """The address of the record at a position of this split's file."""
        return f"{self.input}/{self.file.name}#{position}"

    def plain(self) -> dict[str, Any]:
        """Plain values for a Ray row or a JSON file, without the account."""
        plain = asdict(self)
        del plain["account"]
        for file in (plain["file"], *plain["more"]):
            if not file["odd"]:
                del file["odd"]
        return plain if self.more else {key: value for key, value in plain.items() if key != "more"}

    @property
    def files(self) -> tuple[File, ...]:
        """All its files."""
        return (self.file, *self.more)

    @property
    def bytes(self) -> int:
        """Bytes of all its files, as stored."""
        return sum(file.size for file in self.files)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Split:
        """Restores a split from its plain form."""
        more = tuple(File(**file) for file in plain.get("more", ()))
        limits = SplitLimits(**plain["limits"])
        return Split(**plain | {"file": File(**plain["file"]), "limits": limits, "more": more})

    def each_file(self) -> Iterator[Split]:
        """A split for each of its files, with an account of its own."""
        for file in self.files:
            yield replace(self, file=file, more=(), account=FileAccount())


def list_splits(data: Data) -> list[Split]:
    """All splits of the recipe's inputs: in the order of the recipe, of file names, then of position.

    Small files that follow each other share a split. Raises `InputError` for a file that two inputs name.
    """
    limits = SplitLimits(int(data.max_record_mb * 2**20), int(data.error_raw_kb * 2**10))
    split_bytes, seen, spans = int(data.split_mb * 2**20), dict[str, str](), list[_Span]()
    for part in data.inputs:
        options = dict(part.model_extra or {})
        for file in list_input(part):
            if file.uri in seen:
                remedy = "leave it out of one of them: a page would be read twice"
                what = f"the inputs {seen[file.uri]!r} and {part.name!r} name the same file"
                raise InputError(what, where=file.uri, remedy=remedy)
            seen[file.uri] = part.name
            spans += [
                _Span(part, options, (file,), start, stop)
                for start, stop in _spans(part.use, file, split_bytes)
            ]
    packed = enumerate(_pack_small(spans, split_bytes))
    return [_make_split(index, span, limits) for index, span in packed]


def _make_split(index: int, span: _Span, limits: SplitLimits) -> Split:
    file, *more = span.files
    part = span.input
    return Split(
        index, part.name, part.use, span.options, file, span.start, span.stop, limits, more=tuple(more)
    )


def list_input(part: Input) -> list[File]:
    """The files of an input, by name."""
    return storage.list_files(sample.locate(part.path))


class _Span(NamedTuple):
    input: Input
    options: dict[str, Any]
    files: tuple[File, ...]
    start: int
    stop: int | None


def _pack_small(spans: Sequence[_Span], split_bytes: int) -> Iterator[_Span]:
    """The spans, with runs of whole small files of one input joined.

    A quarter of `split_bytes` in all: many workers still find work where there is little.
    """
    held, held_bytes, split_bytes = list[_Span](), 0, split_bytes // 4
    for span in spans:
        size = span.files[0].size
        is_whole = span.start == 0 and span.stop is None
        fits = is_whole and held_bytes + size <= split_bytes and len(held) < MAX_FILES
        if held and not (fits and span.input is held[0].input):
            yield _join(held)
            held, held_bytes = [], 0
        if is_whole:
            held.append(span)
            held_bytes += size
        else:
            yield span
    if held:
        yield _join(held)


def _join(spans: Sequence[_Span]) -> _Span:
    return spans[0]._replace(files=tuple(file for span in spans for file in span.files))


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
    if file.odd:
        return [(0, None)]
    module = importlib.import_module(f"{resolve.SOURCES}.{use}")
    return module.spans(file, split_bytes) if hasattr(module, "spans") else [(0, None)]


def read_split(split: Split) -> Iterator[pa.Table]:
    """The RAW tables of a split of one file."""
    if split.file.odd:
        split.account.count(split.file.odd, 0, 0, to_end=True)
        values = {"id": split.id(0), "title": split.file.odd, "raw": b"", "reject": "error.no_file"}
        yield pa.Table.from_pylist([values], schema=schema.RAW)
        return
    yield from resolve.resolve(resolve.SOURCES, split.use)(split, **split.options)

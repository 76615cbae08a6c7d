"""Does any damage to an input file crash its source, break a law of the account, or lose more than it touched?

    PYTHONPATH=. python benchmarks/fuzz_sources.py --count 10000 --seed 0

Each seed makes one small file of a source and a packing (benchmarks/source_files.py), damages it, and reads it in
this process, without Ray: as one span, cut into small spans, and through `clean.work`. Laws: no exception; ids are
unique in a file; no table is empty; the bytes of all spans add up to the file's size; spans give the same rows as
the whole file; in == kept + rejects + skipped. Every third seed reads with tiny buffers, as if the file were large.

`survived` is the share of records that come again, word for word, of those whose stored bytes the damage did not
touch. `altered` is the share of read records that no file held so: damage that nobody could see, or that cut a text.
A failure is printed with its seed: `--seed SEED --count 1` makes the same file again. Exit status 1 on failures.
"""

from __future__ import annotations

import argparse
import importlib
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from benchmarks.source_files import Damaged, Kind, Stored, damage, list_kinds, untouched
from ctllm_ray.base import recipe
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.storage import list_files
from ctllm_ray.corpus import clean
from ctllm_ray.corpus.engine.input_files import list_input_files
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split, SplitLimits
from ctllm_ray.corpus.readers import decompress, json_stream, warc_records

LIMITS = SplitLimits(record_bytes=1 << 16, error_raw_bytes=64, batch_bytes=1 << 14)
LIMIT_S = 20  # of one file: a reader that does not end is a failure too
MARK = re.compile(r"R\d{6}")
#: Buffers as small as records, so that small files cross their edges as large ones do.
SMALL_BUFFERS = (
    (decompress, "READ_BYTES", 1500),
    (decompress, "HOLD_BYTES", 3000),
    (json_stream, "HEAD_BYTES", 2000),
    (json_stream, "PARSED_BYTES", 64),
    (warc_records, "HEADER_BYTES", 1000),
    (warc_records, "TAIL_BYTES", 300),
)


@dataclass
class Row:
    """A line of the table: sums over the files of a source and packing."""

    files: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)  # read, error, skipped
    stored: int = 0  # bytes
    lost: int = 0  # bytes
    sound: int = 0  # records that the damage did not touch
    survived: int = 0
    altered: int = 0
    failures: int = 0


class Broken(AssertionError):
    """A law that does not hold."""


def require(law: bool, what: str) -> None:
    """Raises `Broken` unless the law holds."""
    if not law:
        raise Broken(what)


@contextmanager
def small_buffers(is_small: bool) -> Iterator[None]:
    """Readers with tiny buffers."""
    before = [(module, name, getattr(module, name)) for module, name, _ in SMALL_BUFFERS]
    try:
        for module, name, value in SMALL_BUFFERS if is_small else ():
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextmanager
def limit_time(seconds: int) -> Iterator[None]:
    """Raises `TimeoutError` in what does not end."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not read within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(kind: Kind, path: Path, split_bytes: int | None) -> tuple[list[dict[str, Any]], int]:
    """The rows of a file, cut into spans if `split_bytes` is given, and the stored bytes that were lost."""
    module = importlib.import_module(f"ctllm_ray.corpus.sources.{kind.use}")
    (file,) = list_files(str(path))
    spans = module.spans(file, split_bytes) if split_bytes else [(0, None)]
    tables, counted, lost = list[pa.Table](), 0, 0
    for index, (start, stop) in enumerate(spans):
        split = Split(index, "in", kind.use, kind.options, file, start, stop, LIMITS)
        tables += list(getattr(module, kind.use)(split, **kind.options))
        counted += split.account.decoded + split.account.gaps
        own = split.account.bytes_lost
        require(0 <= own <= split.account.decoded + split.account.gaps, f"{own} bytes lost in a span")
        lost += own
    require(counted == file.size, f"{counted} bytes counted of {file.size}")
    require(all(table.num_rows for table in tables), "an empty table")
    rows = [row for table in tables for row in table.to_pylist()]
    ids = Counter(row["id"] for row in rows)
    require(len(ids) == len(rows), f"ids that occur twice: {[i for i, n in ids.items() if n > 1][:3]}")
    return rows, lost


@cache
def make_recipe(use: str, path: str, options: tuple[tuple[str, str], ...], split_mb: float) -> Recipe:
    """A recipe that only reads."""
    return recipe.parse_recipe(
        {
            "name": "fuzz",
            "version": "1",
            "seed": 0,
            "root": str(Path(path).parent / "out"),
            "stages": [],
            "data": {
                "inputs": [{"name": "in", "use": use, "path": path, **dict(options)}],
                "max_error_share": 1.0,
                "split_mb": split_mb,
                "max_record_mb": LIMITS.record_bytes / 2**20,
            },
        }
    )


def clean_file(kind: Kind, path: Path, split_mb: float) -> Counter[str]:
    """The counts of all splits of a file, after the checks of the section's laws."""
    made = make_recipe(kind.use, str(path), tuple(kind.options.items()), split_mb)
    splits, done = clean.list_splits(made), list[Done]()
    counts: Counter[str] = Counter()
    for split in splits:
        work = clean.work(made, str(path.parent / "out"), split)
        counts.update(work.counts)
        done.append(Done(split.index, split.file.name, "", work.counts, work.text_bytes, [], 0.0, work.files))
    outcomes = sum(n for name, n in counts.items() if name.startswith(("kept", "reject:", "skipped.")))
    require(counts["in"] == outcomes, f"in {counts['in']} is not kept + rejects + skipped {outcomes}")
    (file,) = list_input_files(splits, done)
    require(file["bytes"] == file["bytes_read"] + file["bytes_lost"], f"bytes of the account: {file}")
    require(file["records"] == counts["in"], f"{file['records']} records in the account, in {counts['in']}")
    return counts


def texts_of(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The texts of rows that were read, by their marks."""
    texts = dict[str, str]()
    for row in rows:
        if row["reject"] is None:
            text = row["text"] if row["text"] is not None else row["raw"].decode("gb18030", "replace")
            texts[found[0] if (found := MARK.search(text)) else row["id"]] = text
    return texts


def fuzz_file(seed: int, kinds: list[Kind], folder: Path, row: Row) -> Damaged:
    """Makes, damages and reads the file of a seed; raises what goes wrong."""
    random = Random(seed)
    kind = kinds[seed % len(kinds)]
    sound, other = kind.make(random), kind.make(random)
    foreign = random.choice(kinds).make(random).content
    damaged = damage(random, sound.content, other.content, foreign)
    split_bytes, path = random.choice((20, 200, 2000)), folder / kind.name
    expected = dict[str, str]()
    for stored in (other, sound):
        path.write_bytes(stored.content)
        expected |= texts_of(read(kind, path, None)[0])
    require(set(sound.records) <= set(expected), "records of a sound file are missing")
    path.write_bytes(damaged.content)
    started = time.perf_counter()
    try:
        with limit_time(LIMIT_S), small_buffers(seed // len(kinds) % 3 == 0):
            rows, lost = read(kind, path, None)
            if hasattr(importlib.import_module(f"ctllm_ray.corpus.sources.{kind.use}"), "spans"):
                cut, _ = read(kind, path, split_bytes)
                require(cut == rows, f"{len(cut)} rows in spans of {split_bytes} bytes, {len(rows)} in one")
            counts = clean_file(kind, path, split_bytes / 2**20)
            require(counts["in"] == len(rows), f"{len(rows)} rows, in {counts['in']}")
    finally:
        row.seconds += time.perf_counter() - started
    add(row, sound, damaged, rows, lost, expected)
    return damaged


def add(
    row: Row,
    sound: Stored,
    damaged: Damaged,
    rows: list[dict[str, Any]],
    lost: int,
    expected: dict[str, str],
) -> None:
    """Adds a file to its line of the table."""
    row.outcomes.update(((item["reject"] or "read").partition(".")[0]) for item in rows)
    row.stored += len(damaged.content)
    row.lost += lost
    texts = texts_of(rows)
    alive = untouched(sound, damaged.touched)
    row.sound += len(alive)
    row.survived += sum(texts.get(name) == expected[name] for name in alive)
    row.altered += len(set(texts.values()) - set(expected.values()))


def fuzz(count: int, seed: int, folder: Path) -> tuple[dict[str, Row], list[str]]:
    """The lines of the table by source and packing, and the failures."""
    kinds, table, failures = list_kinds(), defaultdict[str, Row](Row), list[str]()
    for one in range(seed, seed + count):
        kind = kinds[one % len(kinds)]
        row = table[" ".join([kind.use, kind.name[1:], *kind.options.values()])]
        row.files += 1
        try:
            fuzz_file(one, kinds, folder, row)
        except Exception as error:
            row.failures += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            failures.append(
                f"--seed {one} --count 1: {kind.use} {kind.name}: {type(error).__name__}: {str(error)[:300]} "
                f"({Path(where.filename).name}:{where.lineno})"
            )
    return dict(sorted(table.items())), failures


def print_table(table: dict[str, Row]) -> None:
    """One line a source and packing."""
    heads = (
        "files",
        "read",
        "errors",
        "rejects",
        "skipped",
        "lost",
        "survived",
        "altered",
        "seconds",
        "failures",
    )
    print(f"{'source':32}" + "".join(f"{head:>10}" for head in heads))
    for name, row in table.items():
        outcomes = row.outcomes
        rejects = outcomes.total() - outcomes["read"] - outcomes["error"] - outcomes["skipped"]
        counts = (row.files, outcomes["read"], outcomes["error"], rejects, outcomes["skipped"])
        shares = (
            row.lost / max(1, row.stored),
            row.survived / max(1, row.sound),
            row.altered / max(1, outcomes["read"]),
        )
        cells = [f"{n:10,}" for n in counts] + [f"{share:10.1%}" for share in shares]
        print(f"{name:32}{''.join(cells)}{row.seconds:10.1f}{row.failures:10,}")


def main() -> None:
    """Prints the table and the failures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, failures = fuzz(options.count, options.seed, Path(folder))
    print_table(table)
    print("\n".join(failures) or "no failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

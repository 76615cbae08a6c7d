"""What a source makes of a file, as plain rows; for the tests of sources."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ctllm_ray.base.storage import list_files
from ctllm_ray.corpus.engine.splits import Split, SplitLimits
from ctllm_ray.shards import schema

LIMITS = SplitLimits(record_bytes=1 << 20, error_raw_bytes=64)


def tables(
    use: str, path: Path | str, limits: SplitLimits = LIMITS, split_bytes: int | None = None, **options: Any
) -> list:
    """The RAW tables of all spans of a file, in order; one span unless `split_bytes` is given.

    Whatever is in the file, its bytes are accounted for: those read and those lost are all.
    """
    module = importlib.import_module(f"ctllm_ray.corpus.sources.{use}")
    (file,) = list_files(str(path))
    spans = module.spans(file, split_bytes) if split_bytes else [(0, None)]
    found, counted = [], 0
    for index, (start, stop) in enumerate(spans):
        split = Split(index, "in", use, options, file, start, stop, limits)
        found += list(getattr(module, use)(split, **options))
        counted += split.account.decoded + split.account.gaps
        assert 0 <= split.account.bytes_lost <= split.account.decoded + split.account.gaps
    assert counted == file.size
    assert all(table.select(schema.RAW.names).schema.equals(schema.RAW) for table in found)
    assert all(table.num_rows for table in found)
    return found


def rows(
    use: str, path: Path | str, limits: SplitLimits = LIMITS, split_bytes: int | None = None, **options: Any
) -> list:
    """The same as dictionaries, one a record, without those of archives that are skipped."""
    return [row for row in all_rows(use, path, limits, split_bytes, **options) if not is_skipped(row)]


def all_rows(
    use: str, path: Path | str, limits: SplitLimits = LIMITS, split_bytes: int | None = None, **options: Any
) -> list:
    """All rows as dictionaries, with only the columns of RAW."""
    found = tables(use, path, limits, split_bytes, **options)
    return [row for table in found for row in table.select(schema.RAW.names).to_pylist()]


def is_skipped(row: dict) -> bool:
    """Whether a row is a record that is no document."""
    return (row["reject"] or "").startswith("skipped.")


def positions(found: list[dict]) -> list[int]:
    """The positions in the ids of rows."""
    return [int(row["id"].rpartition("#")[2]) for row in found]


def errors(found: list[dict]) -> list[str]:
    """The errors among rows, in order."""
    return [row["reject"] for row in found if row["reject"]]

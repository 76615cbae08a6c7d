"""The normalisation stage on tables, and its laws on real pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import zstandard

from ctllm_ray.corpus.stages.normalize import SCORES, normalize
from ctllm_ray.shards import schema
from ctllm_ray.text.encoding import normalize as text


def table(texts: list[str | None], rejects: list[str | None] | None = None) -> pa.Table:
    n = len(texts)
    columns = {"id": [f"x#{i}" for i in range(n)], "text": texts, "reject": rejects or [None] * n}
    raw = pa.table(
        {f.name: pa.array(columns.get(f.name, [None] * n), f.type) for f in schema.RAW}, schema=schema.RAW
    )
    return schema.working(raw, "x")


def test_live_rows_are_normalised_and_the_others_left_alone() -> None:
    done = normalize(table(["a\x00\r\nb", None, "c\x00", ""], [None, None, "error.json", None]))
    assert done["text"].to_pylist() == ["a\nb", None, "c\x00", ""]
    assert done[f"score.{SCORES[0]}"].to_pylist() == [np.float32(0.2), None, None, 0]
    assert done["reject"].to_pylist() == [None, None, "error.json", None]


def test_a_table_without_live_rows_gets_the_column() -> None:
    done = normalize(table([None]))
    assert done[f"score.{SCORES[0]}"].to_pylist() == [None]
    assert normalize(table([])).num_rows == 0


def test_twice_is_once_on_real_pages(shared_data: Path) -> None:
    file = shared_data / "web_zh_raw" / "part-000.jsonl.zst"
    with zstandard.open(file, "rt", encoding="utf-8") as stream:
        records = [orjson.loads(line) for line in stream]
    texts = pa.array([r["raw_content"] for r in records if "raw_content" in r])
    for options in ({}, {"links": "remove", "width": "fold"}):
        once = text.normalize_texts(texts, **options).texts
        assert text.normalize_texts(once, **options).texts.equals(once), options

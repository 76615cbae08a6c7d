"""The mojibake stage: repairs live rows, labels what it found, scores what is left."""

from __future__ import annotations

import pyarrow as pa

from ctllm_ray.corpus.stages.mojibake import LABELS, SCORES, mojibake
from ctllm_ray.shards import schema

CLEAN = "今天天气很好，我们去公园散步。"
LATIN = CLEAN.encode("gbk").decode("latin-1")
LOSSY = f"{CLEAN}\n{CLEAN}".encode().decode("gb18030", "replace")
GHOST = f"{CLEAN}锟斤拷"


def rows(texts: list[str | None], reject: list[str | None] | None = None) -> pa.Table:
    n = len(texts)
    given = {"id": [str(i) for i in range(n)], "text": texts, "reject": reject or [None] * n}
    raw = pa.table([pa.array(given.get(f.name, [None] * n), f.type) for f in schema.RAW], schema=schema.RAW)
    return schema.working(raw, "test")


def test_rows_keep_their_order_and_only_damaged_ones_change() -> None:
    done = mojibake(rows([CLEAN, LATIN, LOSSY, GHOST, None, ""]))
    texts = done["text"].to_pylist()
    assert [texts[i] for i in (0, 1, 3, 4, 5)] == [CLEAN, CLEAN, GHOST, None, ""]
    assert texts[2].startswith(CLEAN[:-1])
    labels = [None, "gbk_as_latin1:repaired", "utf8_as_gbk:partial", "gbk_ghost:marked", None, None]
    assert done["label.mojibake"].to_pylist() == labels
    shares = done["score.mojibake.suspect_share"].to_pylist()
    assert shares[:2] == [0.0, 0.0]
    assert shares[2] > 0.5  # both lines lost a character
    assert abs(shares[3] - 3 / len(GHOST)) < 1e-6
    assert shares[4:] == [None, 0.0]


def test_without_repair_the_text_stays_and_all_of_it_is_suspect() -> None:
    done = mojibake(rows([LATIN, CLEAN]), repair=False)
    assert done["text"].to_pylist() == [LATIN, CLEAN]
    assert done["label.mojibake"].to_pylist() == ["gbk_as_latin1:marked", None]
    assert done["score.mojibake.suspect_share"].to_pylist()[0] > 0.4


def test_rejected_rows_are_left_alone() -> None:
    done = mojibake(rows([LATIN, LATIN], ["host.blocked", None]))
    assert done["text"].to_pylist() == [LATIN, CLEAN]
    assert done["label.mojibake"].to_pylist() == [None, "gbk_as_latin1:repaired"]
    assert done["reject"].to_pylist() == ["host.blocked", None]


def test_columns_are_the_declared_ones_with_their_types_even_in_an_empty_table() -> None:
    for table in (rows([]), rows([CLEAN])):
        done = mojibake(table)
        added = done.schema.names[len(table.schema.names) :]
        assert added == [*(f"label.{name}" for name in LABELS), *(f"score.{name}" for name in SCORES)]
        assert [done.schema.field(name).type for name in added] == [pa.string(), pa.float32()]
        assert done.schema.field("text").type == pa.string()


def test_the_result_does_not_depend_on_how_rows_are_batched() -> None:
    table = rows([CLEAN, LATIN, LOSSY, GHOST, CLEAN, None])
    apart = pa.concat_tables([mojibake(table.slice(i, 1)) for i in range(table.num_rows)])
    assert mojibake(table).to_pydict() == apart.to_pydict()

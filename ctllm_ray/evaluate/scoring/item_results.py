"""The results of each item of an evaluation: one row of a Parquet file, with a score or a reason.

An item's id is its address in the files that were read, so that two evaluations can be compared item
by item and an item can be looked up elsewhere (in a training corpus, for one). Nothing is left out:
rows and items are as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from ctllm_ray.base import storage

FILE = "items.parquet"
SCORED = "scored"
#: Why an item has no score: it does not fit the context; the judge gave no mark; it has no label; its row is
#: invalid; it is one of the examples.
TOO_LONG, UNPARSABLE, NO_LABEL, BAD, SHOWN = "too_long", "unparsable", "no_label", "bad", "shown"
LOST = (TOO_LONG, UNPARSABLE, NO_LABEL, BAD, SHOWN)

SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("part", pa.string()),
        ("item", pa.string()),
        ("status", pa.string()),
        ("score", pa.float64()),
        ("chance", pa.float64()),
        ("target", pa.string()),
        ("answer", pa.string()),
        ("logprobs", pa.list_(pa.float64())),
        ("nats", pa.float64()),
        ("text_bytes", pa.int64()),
        ("said", pa.string()),
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("seen_overlap", pa.float64()),
        ("lm_eval", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Item:
    """One item. `score` is 1 for right, 0 for wrong; a judge's
    mark, 1 to 10; or bits per byte. None if not scored."""

    benchmark: str
    part: str
    item: str
    status: str
    score: float | None
    chance: float | None = None  # the score of random guessing
    target: str = ""
    answer: str = ""  # the index of the scored choice, or the generated text
    logprobs: Sequence[float] = field(default_factory=list)  # nats of each choice
    nats: float | None = None  # of a text, if the score is bits per byte
    text_bytes: int | None = None
    said: str = ""  # the judge's words; or what is wrong with the row
    doc_hash: str = ""  # of the item as read
    prompt_hash: str = ""  # of the prompt
    seen_overlap: float | None = None  # with a page of the corpus before decontamination; None: unknown
    lm_eval: float | None = None  # lm-eval's own score, if ours is another


def write_items(folder: str, items: Sequence[Item]) -> None:
    """Writes the file, sorted by benchmark, part and item."""
    rows = sorted(map(asdict, items), key=lambda row: (row["benchmark"], row["part"], row["item"]))
    with storage.writing(storage.join(folder, FILE)) as local:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), local, compression="zstd")


def read_items(folder: str) -> list[Item]:
    """The items of an evaluation. Raises `InputError` if there are none."""
    with storage.reading(storage.join(folder, FILE)) as stream:
        return [Item(**row) for row in pq.read_table(stream).to_pylist()]

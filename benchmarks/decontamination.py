"""Decontamination of real pages: MB/s, real pages hit by bound, and how many planted copies of items are
found.

One process on one core, CPU time; MB are 10**6 bytes of UTF-8 of the pages. Pages are those of a crawl that
nobody planted anything in: what is hit there is quotation or chance. Copies are of items with four options
(fields `question`, A to D), one a page, as exams are printed elsewhere: in Traditional characters, with other
marks and line ends, with the options in another order, without their letters, without the options, with every
tenth character another.

    PYTHONPATH=. python benchmarks/decontamination.py '../shared/data/web_zh_raw/part-00[0-2].jsonl.zst' \
        question,A,B,C,D=../shared/data/eval/cmmlu.jsonl.zst question=../shared/data/eval/cmmlu.jsonl.zst ...

A set is FIELD,FIELD=PATH, or all=PATH. Copies are made of the first, and found where any set of the same file
has them: given twice, with the options and by the questions alone, it finds more.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import opencc
import pyarrow as pa

from ctllm_ray.benchmark_files import Row, table
from ctllm_ray.corpus.decontamination.evaluation_sets import text_of
from ctllm_ray.text.contamination import NgramIndex, hits, index

NGRAMS, BOUNDS, MAX_ITEMS, COPIES = (8, 10, 13, 20), (0.3, 0.5, 0.7, 0.9), 8, 500
OPTIONS = ("A", "B", "C", "D")
_TRADITIONAL = opencc.OpenCC("s2t")


def _shuffled(row: Row, draw: random.Random) -> str:
    texts = draw.sample([row[letter] for letter in OPTIONS], len(OPTIONS))
    return text_of(row | dict(zip(OPTIONS, texts, strict=True)), ["question", *OPTIONS])


def _noisy(row: Row, draw: random.Random) -> str:
    return "".join("囧" if c.isalnum() and draw.random() < 0.1 else c for c in _whole(row))


def _whole(row: Row) -> str:
    return text_of(row, ["question", *OPTIONS])


KINDS: dict[str, Callable[[Row, random.Random], str]] = {
    "as it is": lambda row, _: _whole(row),
    "Traditional": lambda row, _: _TRADITIONAL.convert(_whole(row)),
    "other marks and lines": lambda row, _: (
        _whole(row).replace("\n", "　").replace(". ", "、").replace("，", " , ")
    ),
    "options in another order": _shuffled,
    "without letters": lambda row, _: "\n".join(row[key] for key in ("question", *OPTIONS)),
    "without options": lambda row, _: row["question"],
    "a tenth of the characters changed": _noisy,
}


def _items(sets: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The texts of all items, and the row of the first set's file that each is of, or -1."""
    texts, owners, first = [], [], sets[0].partition("=")[2]
    for argument in sets:
        named, _, path = argument.partition("=")
        rows = table(path).rows
        texts += [text_of(row, "all" if named == "all" else named.split(",")) for row in rows]
        owners += list(range(len(rows))) if path == first else [-1] * len(rows)
    return texts, np.array(owners)


def _real(pages: pa.Array, built: NgramIndex) -> None:
    hits(pages.slice(0, 10), built)
    megabytes = sum(len(text.as_py().encode()) for text in pages) / 1e6
    started = time.process_time()
    found = hits(pages, built)
    speed = megabytes / (time.process_time() - started)
    lost = int((built.grams == 0).sum())
    told = [f"{len(np.unique(found.rows[found.overlap >= bound]))}" for bound in BOUNDS]
    print(f"| {built.ngram_chars} | {len(built.hashes):,} | {lost} | {speed:.0f} | {' | '.join(told)} |")


def _copies(rows: list[Row], owners: np.ndarray, built: Sequence[NgramIndex]) -> None:
    draw = random.Random(1)
    chosen = draw.sample(range(len(rows)), min(COPIES, len(rows)))
    for kind, make in KINDS.items():
        pages = pa.array([make(rows[number], draw) for number in chosen])
        told = []
        for made in built:
            found = hits(pages, made)
            own = owners[found.items] == np.array(chosen)[found.rows]
            told += [
                f"{len(np.unique(found.rows[own & (found.overlap >= b)])) / len(chosen):.3f}"
                for b in BOUNDS[:3]
            ]
        print(f"| {kind} | {' | '.join(told)} |")


def main(crawl: str, *sets: str) -> None:
    """Prints the two tables."""
    texts, owners = _items(sets)
    pages = pa.array(
        [text for row in table(crawl).rows if (text := row.get("text") or row.get("raw_content"))]
    )
    print(f"{len(pages):,} pages, {len(texts):,} items, max_items {MAX_ITEMS}\n")
    print(
        f"| ngram_chars | n-grams | cannot be found | MB/s | {' | '.join(f'pages >= {b}' for b in BOUNDS)} |"
    )
    built = [index(pa.array(texts), ngram_chars=size, max_items=MAX_ITEMS) for size in NGRAMS]
    for each in built:
        _real(pages, each)
    print(f"\n| copy | {' | '.join(f'{size}, {b}' for size in NGRAMS for b in BOUNDS[:3])} |")
    _copies(table(sets[0].partition("=")[2]).rows, owners, built)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The tokenizer on real documents: equal ids, speed beside what it is made of, characters per token by
domain.

    python benchmarks/tokenizer.py --data ../shared/data --vocab-size 32000 --sample-mb 20

Reads `text/*.jsonl.zst` (fields text, kind), trains on a seeded sample, and works on the documents that are
not in it. Prints Markdown. Speeds are megabytes of UTF-8 per second of CPU time on one core, the best of
`--rounds` rounds in which the ways take turns; `tokenizers` runs without threads. The ids of tokenizer.json
are compared on every document.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import orjson
import psutil
import sentencepiece
import zstandard

from ctllm_ray.tokenizer import convert, report
from ctllm_ray.tokenizer.tokenizer import HuggingFace, SentencePiece
from ctllm_ray.tokenizer.train import train

BATCH = 64  # documents encoded at a time


def documents(data: Path) -> list[tuple[str, str]]:
    """(kind, text) of every document, shuffled."""
    found = []
    for path in sorted((data / "text").glob("*.jsonl.zst")):
        with path.open("rb") as stream:
            lines = zstandard.ZstdDecompressor().stream_reader(stream).read().splitlines()
        found += [(row["kind"], row["text"]) for row in map(orjson.loads, lines)]
    random.Random(1).shuffle(found)
    return found


def taken(rows: list[tuple[str, str]], size_mb: float) -> int:
    """How many of the first rows come to a size."""
    total = np.cumsum([len(text.encode()) for _, text in rows])
    return int(np.searchsorted(total, size_mb * 1e6))


def speeds(ways: dict[str, Callable[[list[str]], object]], texts: list[str], rounds: int) -> dict[str, float]:
    """MB per second of CPU time of each way, the best round."""
    size = sum(len(text.encode()) for text in texts)
    best = dict.fromkeys(ways, 0.0)
    for turn in range(rounds):
        order = [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]
        for name in order:
            way = ways[name]
            started = time.process_time()
            for i in range(0, len(texts), BATCH):
                way(texts[i : i + BATCH])
            best[name] = max(best[name], size / 1e6 / (time.process_time() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--sample-mb", type=float, default=20)
    parser.add_argument("--measure-mb", type=float, default=30)
    parser.add_argument("--timed-mb", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    rows = documents(options.data)
    cut = taken(rows, options.sample_mb)
    sample = [text for _, text in rows[:cut]]
    rows = rows[cut:][: taken(rows[cut:], options.measure_mb)]
    texts = [text for _, text in rows]

    before, wall, cpu = psutil.Process().memory_info().rss, time.monotonic(), time.process_time()
    model = train(sample, options.vocab_size)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(
        f"Trained {options.vocab_size:,} pieces on {options.sample_mb:g} MB: {wall:.0f} s, {cpu:.0f} s of "
        f"CPU, ",
        end="",
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(f"{peak / 1e9:.2f} GB of memory\n")

    ours = SentencePiece(model)
    fast = HuggingFace(ours.files())
    bare = sentencepiece.SentencePieceProcessor(model_proto=model)
    contents = ours.encode(texts)
    others = [ids for i in range(0, len(texts), BATCH) for ids in fast.encode(texts[i : i + BATCH])]
    wrong = sum(not np.array_equal(a, b) for a, b in zip(contents, others, strict=True))
    size = sum(len(text.encode()) for text in texts)
    print(
        f"tokenizer.json against SentencePiece: {wrong} of {len(texts):,} documents ({size / 1e6:.0f} MB) "
        f"differ\n"
    )

    ways = {
        "ours (SentencePiece, numpy)": ours.encode,
        "bare SentencePiece, lists": lambda batch: bare.encode(batch, num_threads=1),
        "bare SentencePiece, numpy": lambda batch: bare.encode(batch, num_threads=1, return_type="numpy"),
        f"tokenizers on our {convert.TOKENIZER}": fast.encode,
    }
    found = speeds(ways, texts[: taken(rows, options.timed_mb)], options.rounds)
    print("| encode, one core | MB/s | x bare SentencePiece, lists |\n|---|---:|---:|")
    for name, speed in found.items():
        print(f"| {name} | {speed:.1f} | {speed / found['bare SentencePiece, lists']:.2f} |")
    print("\n| kind | documents | characters/token | bytes/token | byte tokens |\n|---|---:|---:|---:|---:|")
    for kind, row in report.by_group(ours, texts, contents, [kind for kind, _ in rows]).items():
        ratios = (
            f"{row['chars_per_token']:.3f} | {row['bytes_per_token']:.3f} | {row['byte_token_share']:.2%}"
        )
        print(f"| {kind} | {row['documents']:,} | {ratios} |")


if __name__ == "__main__":
    main()

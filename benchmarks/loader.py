"""How fast batches are made out of memory-mapped token shards, and what share of a training step that is.

    python benchmarks/loader.py                       # synthetic lengths, 100 M tokens
    python benchmarks/loader.py --text ../shared/data/text --millions 50   # lengths of real documents

Prints for each way of packing: time to open and pack, share of padding, share of documents that are cut, rows
and tokens a second of one thread (first on a cold index, then warm), the cost of `targets`, and the share of
a step: of a 10M-parameter model on a CPU at sequence 512, and of CT-LLM 2B on one GPU at 34,000 tokens/s and
sequence 4096.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import zstandard

from ctllm_ray.base import recipe as recipes
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.corpora import open_corpora

CHARS_PER_TOKEN = 1.5  # Chinese text under a vocabulary of 125,696 pieces, about
STEPS = {
    512: ("9M on 2 cores", 2_000.0),
    4096: ("2B on a GPU", 34_000.0),
}  # width: (what, tokens/s of the step)
SPLIT_TOKENS = 10_000_000
BATCH_TOKENS = 65_536


def real_lengths(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(group, targets of its documents) of each file of texts."""
    for file in sorted(folder.glob("*.jsonl.zst")):
        with zstandard.open(file, "rb") as stream:
            chars = [len(json.loads(line)["text"]) for line in io.BufferedReader(stream)]
        yield file.name.split(".")[0], np.maximum(1, np.array(chars) / CHARS_PER_TOKEN).astype(np.int64) + 1


def synthetic_lengths() -> Iterator[tuple[str, np.ndarray]]:
    """Web pages, books and posts: lognormal lengths with medians of 500, 20,000 and 30 tokens."""
    draw = np.random.default_rng(1)
    for group, median, sigma, count in (
        ("web", 500, 1.2, 120_000),
        ("books", 20_000, 1, 500),
        ("posts", 30, 0.8, 9**6),
    ):
        yield group, draw.lognormal(np.log(median), sigma, count).astype(np.int64) + 2


def write_section(folder: str, groups: list[tuple[str, np.ndarray]], most_tokens: int) -> dict[str, int]:
    """Token shards with documents of these lengths, no more than `most_tokens` in all; tokens by group."""
    draw = np.random.default_rng(2)
    shards: list[Shard] = []
    share = most_tokens / sum(int(targets.sum()) for _, targets in groups)
    for group, targets in groups:
        targets = draw.permutation(targets)[: max(1, int(len(targets) * min(1.0, share)))]
        for split, part in enumerate(np.array_split(targets, -(-int(targets.sum()) // SPLIT_TOKENS))):
            ids = [draw.integers(64, 125_000, count + 1) for count in part]
            names = [f"{group}/{split}#{number}" for number in range(len(part))]
            sizes = part.astype(np.int32)
            with tokens.TokenShardWriter(folder, tokens.TRAIN, group, split, pa.uint32(), ()) as writer:
                writer.write(tokens.table(names, ids, sizes, sizes, {}, pa.uint32()))
            shards += writer.shards
    facts = {"tokenizer": "none", "vocab_size": "125696", "bos": "1", "eos": "2", "pad": "3"}
    documents = sum(shard.rows for shard in shards)
    counts = {"in": documents, "kept": documents}
    manifest.write_manifest(folder, Manifest("tokens", "loader", "1", "", {}, [], counts, shards, facts))
    found: dict[str, int] = {}
    for shard in shards:
        found[shard.group] = found.get(shard.group, 0) + shard.tokens
    return found


def recipe_of(root: str, groups: dict[str, int], packing: str, width: int) -> recipes.Recipe:
    """A run of one epoch over all groups, each by its size."""
    total = sum(groups.values())
    return recipes.parse_recipe(
        {
            "name": "loader", "version": "1", "seed": 1, "root": root, "stages": [],
            "data": {"inputs": [{"use": "jsonl", "path": "none/*.jsonl"}], "max_error_share": 0},
            "train": {
                "objective": {"use": "pretrain"}, "tokens": total, "batch_tokens": BATCH_TOKENS,
                "run": f"{packing}-{width}", "sequence_tokens": width, "packing": packing,
                "document_attention": True,
                "mixture": [{"shares": {name: count / total for name, count in groups.items()}}],
                "max_epochs": 100,
                "block_sequences": 8192, "precision": "fp32",
                "schedule": {"use": "cosine", "peak_rate": 1e-3, "warmup_tokens": 0},
            },
            "resources": {"train": {"verify_shards": False}},
        }
    )  # fmt: skip


def cut_share(batches: Batches) -> float:
    """Share of documents that stand in more than one piece, over all units."""
    cut = documents = 0
    for rows in batches._rows.values():
        for unit in rows._units:
            opened = batches._units[unit]
            pieces = np.concatenate(
                [opened.packing.pieces(row).documents for row in range(opened.packing.fills.rows)]
            )
            counts = np.bincount(pieces)
            cut, documents = cut + int((counts > 1).sum()), documents + len(counts)
    return cut / documents


def timed(batches: Batches, numbers: range) -> float:
    """Seconds for these global batches in this thread."""
    start = time.perf_counter()
    for number in numbers:
        batches.batch(number, 0, batches.sequences)
    return time.perf_counter() - start


def measure(
    root: str, groups: dict[str, int], packing: str, width: int, count: int
) -> dict[str, float | str]:
    """The figures of one packing and width."""
    recipe = recipe_of(root, groups, packing, width)
    start = time.perf_counter()
    batches = Batches(recipe, open_corpora(recipe))
    opened_s = time.perf_counter() - start
    count = min(count, batches.count // 2)
    cold_s, warm_s = timed(batches, range(count)), timed(batches, range(count, 2 * count))
    start = time.perf_counter()
    targets = sum(batches.targets(number) for number in range(count))
    targets_s = time.perf_counter() - start
    account = batches.account(0, batches.count).values()
    what, speed = STEPS[width]
    padding = sum(a.padding for a in account) / sum(a.padding + a.targets for a in account)
    return {
        "packing": packing, "width": width, "open_s": round(opened_s, 2), "padding": f"{padding:.3%}",
        "cut documents": f"{cut_share(batches):.1%}",
        "rows/s cold": round(count * batches.sequences / cold_s),
        "rows/s": round(count * batches.sequences / warm_s),
        "Mtokens/s": round(count * BATCH_TOKENS / warm_s / 1e6, 1),
        "targets us": round(1e6 * targets_s / count),
        "targets a row": round(targets / count / batches.sequences, 1),
        f"share of a step, {what}": f"{warm_s / (count * BATCH_TOKENS) * speed:.3%}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a folder of .jsonl.zst files with `text`")
    parser.add_argument("--millions", type=int, default=100, help="of tokens, at most")
    parser.add_argument("--batches", type=int, default=200, help="that are timed, of 65,536 tokens")
    options = parser.parse_args()
    lengths = list(real_lengths(options.text) if options.text else synthetic_lengths())
    with tempfile.TemporaryDirectory() as root:
        groups = write_section(f"{root}/loader/1/tokens", lengths, options.millions * 1_000_000)
        print(f"{sum(groups.values()):,} tokens in {len(groups)} groups, one thread")
        for width in STEPS:
            for packing in ("concatenate", "best_fit"):
                figures = measure(root, groups, packing, width, options.batches)
                print("  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()

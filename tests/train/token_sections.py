"""Token sections made by hand, and recipes over them: each id tells its document and its place in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard

BOS, EOS, PAD = 1, 2, 3
FACTS = {"tokenizer": "f" * 64, "vocab_size": "100000", "bos": str(BOS), "eos": str(EOS), "pad": str(PAD)}


def write_section(
    folder: Path,
    groups: Mapping[str, Sequence[Sequence[int]]],
    kind: str = tokens.TRAIN,
    facts: Mapping[str, str] = FACTS,
    scores: Mapping[str, np.ndarray] | None = None,
) -> list[Shard]:
    """A token section: for each group its shards, for each shard the numbers of targets of its documents.

    Document d of shard s of a group is `<group>/<s>/<d>`; its content ids count up from a number of its own.
    """
    shards: list[Shard] = []
    for group, lengths in groups.items():
        for split, targets in enumerate(lengths):
            ids = [document_ids(group, split, number, count) for number, count in enumerate(targets)]
            names = [f"{group}/{split}/{number}" for number in range(len(targets))]
            columns = {name: values[: len(targets)] for name, values in (scores or {}).items()}
            sizes = np.array(targets, np.int32)
            kind_of_ids = tokens.id_type(int(facts["vocab_size"]))
            table = tokens.table(names, ids, sizes, sizes, columns, kind_of_ids)
            with tokens.TokenShardWriter(
                str(folder), kind, group, split, kind_of_ids, tuple(columns)
            ) as writer:
                writer.write(table)
            shards += writer.shards
    documents = sum(shard.rows for shard in shards)
    counts = {"in": documents, "kept": documents, "tokens": sum(shard.tokens for shard in shards)}
    found = Manifest("tokens", "test", "1", "0" * 64, {}, [], counts, shards, dict(facts))
    manifest.write_manifest(str(folder), found)
    return shards


def document_ids(group: str, split: int, number: int, targets: int) -> np.ndarray:
    """BOS, targets - 1 content ids, EOS."""
    start = 1000 + (sum(map(ord, group)) * 7919 + split * 104729 + number * 613) % 90_000
    return np.concatenate([[BOS], (start + np.arange(targets - 1)) % 99_000 + 1000, [EOS]]).astype(np.int64)


def recipe_over(root: Path, train: Mapping[str, Any], seed: int = 11) -> Recipe:
    """A recipe whose own token section stands at `<root>/test/1/tokens`."""
    plain = {
        "name": "test", "version": "1", "seed": seed, "root": str(root), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "nowhere/*.jsonl"}], "max_error_share": 0},
        "model": {"use": "tiny"},
        "train": {
            "objective": {"use": "pretrain"}, "tokens": 64 * 40, "batch_tokens": 64, "sequence_tokens": 16,
            "packing": "concatenate", "document_attention": True, "precision": "fp32", "block_sequences": 10,
            "schedule": {"use": "cosine", "peak_rate": 0.001, "warmup_tokens": 0},
            "mixture": [{"shares": {"web": 0.7, "books": 0.3}}],
        } | dict(train),
    }  # fmt: skip
    return recipes.parse_recipe(plain)

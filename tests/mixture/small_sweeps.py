"""Sweeps over token sections made by hand: what the tests of this folder share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.mixture.results import Trial
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard

VOCABULARY, SEQUENCE_TOKENS, BATCH_TOKENS = 128, 16, 64
FACTS = {"tokenizer": "a" * 64, "vocab_size": str(VOCABULARY), "bos": "1", "eos": "2", "pad": "3"}
#: Each group has ids of its own, so that training on one says nothing about another.
ALPHABETS = {"books": (8, 40), "law": (40, 80), "web": (80, 128)}


def write_tokens(folder: Path, documents: Mapping[str, int]) -> None:
    """A token section with so many documents of each group of ALPHABETS, and four held-out ones."""
    draw = np.random.default_rng(0)
    kind = tokens.id_type(VOCABULARY)
    shards: list[Shard] = []
    for part in (tokens.TRAIN, tokens.HELD_OUT):
        for group, of_training in documents.items():
            count = of_training if part == tokens.TRAIN else 4
            ids = [
                np.concatenate([[1], draw.integers(*ALPHABETS[group], draw.integers(10, 30)), [2]])
                for _ in range(count)
            ]
            sizes = np.array([len(i) for i in ids], np.int32)
            names = [f"{group}/{part}/{number}" for number in range(count)]
            with tokens.TokenShardWriter(str(folder), part, group, 0, kind, ()) as writer:
                writer.write(tokens.table(names, ids, sizes, sizes, {}, kind))
            shards += writer.shards
    rows = sum(shard.rows for shard in shards)
    counts = {"in": rows, "kept": rows, "tokens": sum(shard.tokens for shard in shards)}
    manifest.write_manifest(
        str(folder), Manifest("tokens", "t", "1", "0" * 64, {}, [], counts, shards, dict(FACTS))
    )


def recipe(root: Path, sweep: Mapping[str, Any] | None = None, **train: Any) -> Recipe:
    """A sweep of tiny models, some 600 targets of each group an epoch, in a run of 512 tokens."""
    folder = root / "t" / "1" / "tokens"
    if not folder.exists():
        write_tokens(folder, {"books": 30, "law": 30, "web": 60})
    return recipes.parse_recipe(plain(root, sweep, **train))


def plain(root: Path, sweep: Mapping[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    """The same as plain values."""
    schedule = {"use": "wsd", "peak_rate": 0.003, "warmup_tokens": BATCH_TOKENS}
    return {
        "name": "t", "version": "1", "seed": 5, "root": str(root), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "nowhere/*.jsonl"}], "max_error_share": 0},
        "model": {"use": "tiny"},
        "train": {
            "objective": {"use": "pretrain"}, "tokens": 512, "batch_tokens": BATCH_TOKENS,
            "sequence_tokens": SEQUENCE_TOKENS, "packing": "concatenate", "document_attention": True,
            "precision": "fp32", "block_sequences": 8, "schedule": schedule,
            "mixture": [{"shares": {"web": 0.5, "books": 0.5}}], "validation": {"every_tokens": 256},
        } | train,
        "sweep": {
            "trials": 3, "seed": 1, "temperature": 1.0, "concentration": 4.0, "model": {"use": "tiny"},
            "bounds": {"books": [0.0, 0.9], "law": [0.0, 0.9], "web": [0.1, 1.0]},
            "weights": {"books": 0.5, "law": 0.25, "web": 0.25},
            "tokens": 256, "batch_tokens": BATCH_TOKENS, "schedule": schedule,
        } | dict(sweep or {}),
        "resources": {"object_store_mb": 100, "train": {"micro_sequences": 4}},
    }  # fmt: skip


def trial(number: int, shares: Mapping[str, float], bits: Mapping[str, float], **changed: Any) -> Trial:
    """A trial that ended, with what a law does not look at made up."""
    facts: dict[str, Any] = {
        "number": number, "shares": dict(shares), "status": "finished", "bits": dict(bits), "steps": 4,
        "tokens": 256,
        "loss": 4.5, "tokens_per_s": 1000.0, "seconds": 2.0,
    }  # fmt: skip
    return Trial(**(facts | changed))

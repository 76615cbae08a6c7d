"""Whole runs of a tiny model over preference pairs made by hand, from a model folder: what the tests of DPO
share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model import folder as folders
from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES, ModelConfig
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard
from tests.train.tiny_runs import FACTS, VOCABULARY

CONFIG: ModelConfig = replace(SIZES["tiny"], vocab_size=VOCABULARY)
SEQUENCE_TOKENS, BATCH_TOKENS = 48, 192


def write_pairs(folder: Path, seed: int = 0, pairs: int = 40, splits: int = 2) -> None:
    """A token section of pairs, in two groups and so many shards of each. The chosen answers hold low ids
    only."""
    draw = np.random.default_rng(seed)
    kind, shards = tokens.id_type(VOCABULARY), list[Shard]()
    for part, count, parts in ((tokens.TRAIN, pairs, splits), (tokens.HELD_OUT, 6, 1)):
        for group in ("helpful", "harmless"):
            for split in range(parts):
                table = _table(draw, f"{group}/{part}/{split}", count)
                with tokens.TokenShardWriter(str(folder), part, group, split, kind, (), "pairs") as writer:
                    writer.write(table)
                shards += writer.shards
    rows = sum(shard.rows for shard in shards)
    counts = {"in": rows, "kept": rows, "tokens": sum(shard.tokens for shard in shards)}
    manifest.write_manifest(
        str(folder), Manifest("tokens", "p", "1", "0" * 64, {}, [], counts, shards, dict(FACTS))
    )


def _table(draw: np.random.Generator, name: str, pairs: int) -> Any:
    """TOKENS of so many pairs: BOS, a prompt, an answer, EOS."""
    ids, answers, names = [], [], []
    for pair in range(pairs):
        prompt = draw.integers(8, VOCABULARY, draw.integers(2, 8))
        for low, high in ((8, VOCABULARY // 2), (VOCABULARY // 2, VOCABULARY)):
            answer = draw.integers(low, high, draw.integers(2, 10))
            ids.append(np.concatenate([[1], prompt, answer, [2]]))
            answers.append(np.array([1 + len(prompt), len(ids[-1])], np.int32))
            names.append(f"{name}/{pair}")
    sizes = np.array([len(answer) for answer in ids], np.int32)
    table = tokens.table(names, ids, sizes, sizes, {}, tokens.id_type(VOCABULARY))
    return tokens.with_answers(table, answers, "pairs")


def write_model(folder: Path, seed: int = 3) -> None:
    """The model that the runs begin with."""
    folders.save_model(llama.build(CONFIG, seed), CONFIG, str(folder))


def recipe(root: Path, batches: int = 6, resources: Mapping[str, Any] | None = None, **train: Any) -> Recipe:
    """A DPO run of so many batches over `<root>/p/1/tokens` from `<root>/model`, which are written if not
    there."""
    if not (root / "p" / "1" / "tokens").exists():
        write_pairs(root / "p" / "1" / "tokens")
    if not (root / "model").exists():
        write_model(root / "model")
    plain = {
        "name": "p", "version": "1", "seed": 5, "root": str(root), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "nowhere/*.jsonl"}], "max_error_share": 0},
        "model": {"path": str(root / "model")},
        "train": {
            "objective": {"use": "dpo", "beta": 0.3}, "tokens": BATCH_TOKENS * batches,
            "batch_tokens": BATCH_TOKENS,
            "sequence_tokens": SEQUENCE_TOKENS, "packing": "best_fit", "document_attention": True,
            "precision": "fp32", "block_sequences": 8, "max_epochs": 100,
            "schedule": {"use": "cosine", "peak_rate": 0.001, "warmup_tokens": 0},
            "mixture": [{"shares": {"helpful": 0.5, "harmless": 0.5}}],
        } | train,
        "resources": {"train": {"micro_sequences": 2, "keep": 100} | dict(resources or {})},
    }  # fmt: skip
    return recipes.parse_recipe(plain)


def touch_model(folder: Path) -> None:
    """Writes the model's folder again with other weights."""
    write_model(folder, seed=99)
    assert torch.isfinite(llama.load(str(folder)).lm_head.weight).all()

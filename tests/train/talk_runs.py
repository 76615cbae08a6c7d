"""Token sections of conversations made by hand, runs over them, and each conversation by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard
from tests.train.tiny_runs import FACTS, VOCABULARY

SEQUENCE_TOKENS, BATCH_TOKENS = 32, 128
Talk = tuple[np.ndarray, np.ndarray]  # ids, and a mask of the same length that is True in answers


def talk(draw: np.random.Generator, most_turns: int = 3) -> Talk:
    """BOS, then questions and answers in turns; every id tells nothing, every answer has one at least."""
    ids, answered = [np.array([1])], [np.array([False])]
    for _ in range(draw.integers(1, most_turns + 1)):
        for said in (False, True):
            part = draw.integers(8, VOCABULARY, draw.integers(1, 6))
            ids.append(part)
            answered.append(np.full(len(part), said))
    return np.concatenate(ids), np.concatenate(answered)


def talks(seed: int, count: int) -> list[Talk]:
    draw = np.random.default_rng(seed)
    return [talk(draw) for _ in range(count)]


def write_talks(
    folder: Path, groups: Mapping[str, Sequence[Talk]], form: tokens.Form = "conversations"
) -> None:
    """A token section with these groups; of each four documents are held out. Their ids are
    `<group>/<number>`."""
    kind, shards = tokens.id_type(VOCABULARY), list[Shard]()
    for group, found in groups.items():
        for part, some in ((tokens.TRAIN, found[:-4]), (tokens.HELD_OUT, found[-4:])):
            names = [f"{group}/{part}/{number}" for number in range(len(some))]
            sizes = np.array([int(answered.sum()) for _, answered in some], np.int32)
            table = tokens.table(names, [ids for ids, _ in some], sizes, sizes, {}, kind)
            spans = [np.flatnonzero(np.diff(answered, prepend=False, append=False)) for _, answered in some]
            with tokens.TokenShardWriter(str(folder), part, group, 0, kind, (), form) as writer:
                writer.write(table if form == "texts" else tokens.with_answers(table, spans, form))
            shards += writer.shards
    rows = sum(shard.rows for shard in shards)
    counts = {"in": rows, "kept": rows, "tokens": sum(shard.tokens for shard in shards)}
    manifest.write_manifest(
        str(folder), Manifest("tokens", "s", "1", "0" * 64, {}, [], counts, shards, dict(FACTS))
    )


def recipe(root: Path, batches: int = 8, resources: Mapping[str, Any] | None = None, **train: Any) -> Recipe:
    """A run over `<root>/s/1/tokens`, where 60 conversations stand in two groups if nothing is there yet."""
    folder = root / "s" / "1" / "tokens"
    if not folder.exists():
        write_talks(folder, {"zh": talks(1, 40), "en": talks(2, 20)})
    plain = {
        "name": "s", "version": "1", "seed": 5, "root": str(root), "stages": [],
        "data": {"inputs": [], "max_error_share": 0},
        "model": {"use": "tiny"},
        "train": {
            "objective": {"use": "sft"}, "tokens": BATCH_TOKENS * batches, "batch_tokens": BATCH_TOKENS,
            "sequence_tokens": SEQUENCE_TOKENS, "packing": "best_fit", "document_attention": True,
            "precision": "fp32", "block_sequences": 8, "max_epochs": 100,
            "schedule": {"use": "cosine", "peak_rate": 0.003, "warmup_tokens": BATCH_TOKENS},
            "mixture": [{"shares": {"zh": 0.75, "en": 0.25}}],
        } | train,
        "resources": {"train": {"micro_sequences": 2, "keep": 100} | dict(resources or {})},
    }  # fmt: skip
    return recipes.parse_recipe(plain)

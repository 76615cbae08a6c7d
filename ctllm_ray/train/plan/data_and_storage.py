"""Estimates data and storage of a run before it starts: text to clean, token shards, checkpoints, epochs.

From the manifests of the token sections once they are finished; until then from the run's token count and
figures that are assumed and named here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.model.config import SIZES, ModelConfig, of_folder, parameters
from ctllm_ray.shards import manifest
from ctllm_ray.shards.tokens import TRAIN

#: Assumed until the data exists. MAP-CC: 2,702 GB of text for about 800 billion tokens of CT-LLM's tokenizer.
BYTES_PER_TOKEN = 3.4
#: Share of raw Chinese Common Crawl text that the heuristic rules of CT-LLM's successor keep: 38 % (MAP-NEO's
#: figure).
KEPT_SHARE = 0.38
#: MB/s per core: `zh_web` end to end (9 to 13, docs/results.md), SentencePiece BPE encoding (8.6 alone).
CLEAN_MB_PER_S, TOKENIZE_MB_PER_S = 10.0, 8.0
#: Compression ratio of clean shards: zstd level 3 on 6 MB of Chinese web text.
CLEAN_COMPRESSION = 0.44


@dataclass(frozen=True)
class DataGroup:
    """A group of the mixture: the tokens that the run uses, and those that exist (0: unknown yet)."""

    name: str
    drawn_tokens: float
    there_tokens: int

    @property
    def epochs(self) -> float:
        """Epochs over the group; NaN if unknown."""
        return self.drawn_tokens / self.there_tokens if self.there_tokens else math.nan


@dataclass(frozen=True)
class DataWork:
    """From raw text to token shards. Bytes are uncompressed UTF-8 text.
    `measured` is False for assumptions."""

    measured: bool
    clean_bytes: float
    raw_bytes: float
    clean_core_hours: float
    tokenize_core_hours: float


@dataclass(frozen=True)
class Space:
    """Bytes on storage."""

    clean_shards: float
    token_shards: float
    checkpoint: float
    checkpoints: int
    export: float

    @property
    def total(self) -> float:
        """Bytes at the end of the run."""
        return self.clean_shards + self.token_shards + self.checkpoint * self.checkpoints + self.export


def token_counts(recipe: Recipe) -> dict[str, int]:
    """Facts of the finished token sections that the run reads, summed; empty if one is missing."""
    results: dict[str, int] = {}
    for folder in recipe.token_folders():
        if not manifest.is_finished(folder):
            return {}
        section = manifest.read_manifest(folder)
        for shard in section.of_kind(TRAIN):
            for key, number in (
                (f"tokens:{shard.group}", shard.tokens),
                ("tokens", shard.tokens),
                ("text", shard.text_bytes),
            ):
                results[key] = results.get(key, 0) + number
        results["vocab_size"] = int(section.provenance["vocab_size"])
    return results


def vocab_size(recipe: Recipe, tokens: Mapping[str, int]) -> int:
    """Pieces of the tokenizer: of the token section, of the recipe, or the model's default number of rows."""
    assert recipe.model is not None
    if "vocab_size" in tokens:
        return tokens["vocab_size"]
    if recipe.tokenizer and recipe.tokenizer.vocab_size:
        return recipe.tokenizer.vocab_size
    if recipe.model.path:
        return of_folder(recipe.locate(recipe.model.path)).vocab_size
    return SIZES[recipe.model.use].vocab_size if recipe.model.use in SIZES else 0


def work(train: Train, tokens: Mapping[str, int]) -> DataWork:
    """Text to clean and tokenize: what exists, or what one epoch of the run would need."""
    clean = float(tokens["text"]) if tokens else train.tokens * BYTES_PER_TOKEN
    raw = clean / KEPT_SHARE
    hours = [size / 1e6 / speed / 3600 for size, speed in ((raw, CLEAN_MB_PER_S), (clean, TOKENIZE_MB_PER_S))]
    return DataWork(bool(tokens), clean, raw, hours[0], hours[1])


def space(recipe: Recipe, config: ModelConfig, tokens: Mapping[str, int]) -> Space:
    """Storage at the end of the run; one epoch of data if none exists yet."""
    assert recipe.train is not None
    resources, train = recipe.resources.train, recipe.train
    for_good = train.tokens // resources.keep_every_tokens if resources.keep_every_tokens else 0
    count = parameters(config)
    id_bytes = 2 if config.vocab_size <= 1 << 16 else 4
    return Space(
        clean_shards=work(train, tokens).clean_bytes * CLEAN_COMPRESSION,
        token_shards=(tokens["tokens"] if tokens else train.tokens) * id_bytes,
        checkpoint=12 * count,
        checkpoints=resources.keep + for_good,
        export=2 * count,
    )


def groups(train: Train, tokens: Mapping[str, int]) -> tuple[DataGroup, ...]:
    """What the run takes from each group of the mixture, phase by phase."""
    drawn: dict[str, float] = {}
    begun = 0
    for phase in train.mixture:
        end = min(train.tokens, phase.until_tokens or train.tokens)
        for name, share in phase.shares.items():
            drawn[name] = drawn.get(name, 0.0) + share * max(0, end - begun)
        begun = max(begun, end)
    return tuple(DataGroup(name, amount, tokens.get(f"tokens:{name}", 0)) for name, amount in drawn.items())


def group_problems(groups: tuple[DataGroup, ...], train: Train) -> list[str]:
    """Groups that are missing, or too small for their share."""
    if not any(group.there_tokens for group in groups):
        return []
    results = []
    for group in groups:
        most = train.epoch_caps.get(group.name, train.max_epochs)
        if not group.there_tokens:
            results.append(f"the token shards have no group {group.name!r}; correct train.mixture")
        elif group.epochs > most and group.name not in train.epoch_caps:
            results.append(
                f"group {group.name!r} is too small for its share: {group.epochs:.1f} "
                f"epochs, but at most {most:g} are allowed; lower its share, add data, or "
                "set an epoch cap"
            )
    return results

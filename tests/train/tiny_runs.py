"""Whole runs of a tiny model over token sections made by hand: what the tests of the loop share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.train import session
from ctllm_ray.train.batch import Batch
from ctllm_ray.train.checkpoint import Checkpoint, newest
from ctllm_ray.train.state import RunState
from ctllm_ray.train.torch_stepper import TorchStepper

VOCABULARY = 128
FACTS = {"tokenizer": "a" * 64, "vocab_size": str(VOCABULARY), "bos": "1", "eos": "2", "pad": "3"}
BATCH_TOKENS, SEQUENCE_TOKENS = 64, 16


def write_tokens(folder: Path, seed: int = 0, facts: Mapping[str, str] = FACTS, documents: int = 120) -> None:
    """A token section with the groups `web` and `books`, and held-out documents of both."""
    draw = np.random.default_rng(seed)
    kind = tokens.id_type(VOCABULARY)
    shards: list[Shard] = []
    for part, count in ((tokens.TRAIN, documents), (tokens.HELD_OUT, 4)):
        for group in ("books", "web"):
            ids = [np.concatenate([[1], draw.integers(8, VOCABULARY, draw.integers(3, 40)), [2]]) for _ in range(count)]
            sizes = np.array([len(i) for i in ids], np.int32)
            names = [f"{group}/{part}/{number}" for number in range(count)]
            with tokens.TokenShardWriter(str(folder), part, group, 0, kind, ()) as writer:
                writer.write(tokens.table(names, ids, sizes, sizes, {}, kind))
            shards += writer.shards
    rows = sum(shard.rows for shard in shards)
    counts = {"in": rows, "kept": rows, "tokens": sum(shard.tokens for shard in shards)}
    manifest.write(str(folder), Manifest("tokens", "t", "1", "0" * 64, {}, [], counts, shards, dict(facts)))


def recipe(root: Path, batches: int = 8, resources: Mapping[str, Any] | None = None, **train: Any) -> Recipe:
    """A run of so many batches over `<root>/t/1/tokens`, which is written if it is not there."""
    folder = root / "t" / "1" / "tokens"
    if not folder.exists():
        write_tokens(folder)
    plain = {
        "name": "t", "version": "1", "seed": 5, "root": str(root), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "nowhere/*.jsonl"}], "max_error_share": 0},
        "model": {"use": "tiny"},
        "train": {
            "objective": {"use": "pretrain"}, "tokens": BATCH_TOKENS * batches, "batch_tokens": BATCH_TOKENS,
            "sequence_tokens": SEQUENCE_TOKENS, "packing": "concatenate", "document_attention": True,
            "precision": "fp32", "block_sequences": 8, "max_epochs": 100,
            "schedule": {"use": "wsd", "peak_rate": 0.003, "warmup_tokens": BATCH_TOKENS},
            "mixture": [
                {"shares": {"web": 0.75, "books": 0.25}, "until_tokens": BATCH_TOKENS * 4},
                {"shares": {"web": 0.25, "books": 0.75}},
            ],
        } | train,
        "resources": {"train": {"micro_sequences": 2, "keep": 100} | dict(resources or {})},
    }  # fmt: skip
    return recipes.from_plain(plain)


class Around:
    """Hooks that stop a run after so many updates, and write down what they are told."""

    def __init__(self, stop_after: int = 10**9, owner: str = "test") -> None:
        self.owner = owner
        self.stop_after = stop_after
        self.asked = 0
        self.saves: list[int] = []
        self.validations: list[int] = []

    def should_stop(self) -> bool:
        """The loop of a lone worker asks after every update."""
        return False

    def saved(self, step: int, metrics: Mapping[str, float]) -> None:
        self.saves.append(step)

    def validate(self, step: int) -> None:
        self.validations.append(step)


class Watched(TorchStepper):
    """The plain stepper with a diary: losses, and which batches it was given. It can spoil batches and be killed."""

    spoilt: frozenset[int] = frozenset()  # numbers of calls to `backward` whose loss is made large
    worth: float = 50.0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.losses: list[float] = []
        self.rows: list[bytes] = []

    def backward(self, micro_batches: Iterable[Batch], target_tokens: int) -> torch.Tensor:
        batches = list(micro_batches)
        self.rows.append(b"".join(batch.input_ids.tobytes() for batch in batches))
        loss = super().backward(batches, target_tokens)
        if self._spoils(batches):
            loss = loss + self.worth
        self.losses.append(float(loss))
        return loss

    def _spoils(self, batches: list[Batch]) -> bool:
        return False


class Stopping(Around):
    """Stops once the stepper has made so many updates."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates
        self.stepper: Watched | None = None

    def should_stop(self) -> bool:
        return self.stepper is not None and len(self.stepper.losses) >= self.updates

    def stepper_of(self, *given: Any) -> Watched:
        self.stepper = Watched(*given)
        return self.stepper


def run(of: Recipe, updates: int = 10**9) -> tuple[RunState, Watched]:
    """A run of this process, stopped after so many batches of this start."""
    around = Stopping(updates)
    state = session.train(of, around.stepper_of, hooks=around)
    assert around.stepper is not None
    return state, around.stepper


def last(of: Recipe) -> Checkpoint:
    """The newest checkpoint of a run."""
    return newest(of.folder("train"))


def tensors(found: Checkpoint) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    return {name: found.tensor(name) for name in found.names}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Raises unless two sets of tensors are equal to the bit."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different

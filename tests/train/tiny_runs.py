"""Whole runs of a tiny model over token sections made by hand: what the tests of the loop share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.train import session
from ctllm_ray.train.checkpoint.checkpoint import Checkpoint, newest
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.data.batch import Batch
from ctllm_ray.train.steppers.torch import TorchStepper

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
            ids = [
                np.concatenate([[1], draw.integers(8, VOCABULARY, draw.integers(3, 40)), [2]])
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
        str(folder), Manifest("tokens", "t", "1", "0" * 64, {}, [], counts, shards, dict(facts))
    )


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
    return recipes.parse_recipe(plain)


class Watched(TorchStepper):
    """The plain stepper with a diary: the losses and rows of the batches it was given.

    `tamper` sees each batch (its rows' bytes) and the loss before the loop does, and may hand on another
    loss.
    """

    tamper: Callable[[bytes, torch.Tensor], torch.Tensor] = staticmethod(lambda rows, loss: loss)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.losses: list[float] = []
        self.rows: list[bytes] = []

    def backward(self, micro_batches: Iterable[Batch], divisor: int) -> torch.Tensor:
        batches = list(micro_batches)
        self.rows.append(b"".join(batch.input_ids.tobytes() for batch in batches))
        sums = super().backward(batches, divisor)
        loss = self.tamper(self.rows[-1], sums[0])
        self.losses.append(float(loss))
        return torch.cat([loss.reshape(1), sums[1:]])


class Around:
    """Hooks that stop a start after so many batches, and write down what they are told."""

    def __init__(self, batches: int = 10**9, kind: type[Watched] = Watched) -> None:
        self.owner = "test"
        self.saves: list[int] = []
        self.validations: list[int] = []
        self.steppers: list[Watched] = []
        self._batches, self._kind = batches, kind

    def stepper_of(self, *given: Any) -> Watched:
        """A stepper that this object knows of."""
        self.steppers.append(self._kind(*given))
        return self.steppers[-1]

    def should_stop(self) -> bool:
        return bool(self.steppers) and len(self.steppers[0].losses) >= self._batches

    def after_save(self, step: int, metrics: Mapping[str, float]) -> None:
        self.saves.append(step)

    def validate(self, step: int) -> None:
        self.validations.append(step)


def run(
    of: Recipe, batches: int = 10**9, kind: type[Watched] = Watched
) -> tuple[RunState, list[float], list[bytes]]:
    """A start in this process, stopped after so many batches: its state, the losses and the rows it trained
    on."""
    around = Around(batches, kind)
    state = session.train(of, around.stepper_of, hooks=around)
    found = around.steppers
    return state, [loss for one in found for loss in one.losses], [rows for one in found for rows in one.rows]


def last(of: Recipe) -> Checkpoint:
    """The newest checkpoint of a run."""
    return newest(of.folder("train"))


def assert_same_model(one: Recipe, other: Recipe) -> None:
    """Raises unless the newest checkpoints of two runs hold the same tensors, to the bit."""
    a, b = last(one), last(other)
    assert a.names == b.names
    assert not [name for name in a.names if not torch.equal(a.tensor(name), b.tensor(name))]
